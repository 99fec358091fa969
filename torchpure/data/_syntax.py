"""The syntax tree of an expression, of bounded size and depth."""

import ast
import re
import warnings
from collections.abc import Sequence
from typing import NamedTuple

from torchpure.errors import InputError

MAX_LENGTH = 1000
MAX_NODES = 400
MAX_DEPTH = 100
MAX_BRACKETS = 50
MAX_DIGITS = 40


class Scope(NamedTuple):
    """The text of an expression, the names of its inputs, and the option that it was given as."""

    caller: str
    inputs: tuple[str, ...]
    source: str


def parse(scope: Scope) -> ast.expr:
    """Parse an expression of bounded size.

    Raises:
        InputError: the text is not an expression, or is too large.
    """
    _check_text(scope)
    tree = _parse(scope)
    _check_size(tree, scope)
    return tree


def _parse(scope: Scope) -> ast.expr:
    source = scope.source
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # Python only warns about `1if x`; here it is an error
            return ast.parse(source, mode="eval").body
    except (RecursionError, MemoryError):
        raise InputError(f"{scope.caller}: the expression is nested too deeply") from None
    except SyntaxError as error:
        if re.search(r"[0-9)]\s*[A-Za-z(]", source):
            hint = "; write a product with `*`: `2*x`, `2*sin(x)`"
        else:
            hint = "; wanted something like `2*sin(x + 2*pi)`"
        place = f" at character {error.offset}" if error.offset and error.offset <= len(source) else ""
        raise InputError(f"{scope.caller}: {source[:80]!r} is not an expression: {error.msg}{place}{hint}") from None


def _check_text(scope: Scope) -> None:
    source = scope.source
    if not source:
        raise InputError(f"{scope.caller}: the expression is empty; wanted something like `2*sin(x + 2*pi)`")
    if len(source) > MAX_LENGTH:
        raise InputError(
            f"{scope.caller}: the expression has {len(source)} characters; at most {MAX_LENGTH} are allowed"
        )
    for position, character in enumerate(source, start=1):
        if not " " <= character <= "~":
            shown = f"{character!r} at character {position}"
            raise InputError(f"{scope.caller}: {shown} is not plain ASCII; write `pi`, `*`, `-`, `**` and so on")
    if re.search(rf"[0-9][0-9_.]{{{MAX_DIGITS},}}", source):
        raise InputError(f"{scope.caller}: a number has more than {MAX_DIGITS} digits")
    depths = [0]
    for character in source:
        depths.append(depths[-1] + (character in "([{") - (character in ")]}"))
    if max(depths) > MAX_BRACKETS:
        raise InputError(f"{scope.caller}: more than {MAX_BRACKETS} brackets are open at once")


def _check_size(tree: ast.expr, scope: Scope) -> None:
    count, level, depth = 0, [tree], 0
    while level:
        chains = [chain(node) if isinstance(node, ast.BinOp) else [node] for node in level]
        count, depth = count + sum(map(len, chains)), depth + 1
        level = [child for chain in chains for child in _below(chain)]
    if count > MAX_NODES:
        raise InputError(f"{scope.caller}: the expression has {count} parts; at most {MAX_NODES} are allowed")
    if depth > MAX_DEPTH:
        raise InputError(
            f"{scope.caller}: the expression is nested {depth} levels deep; at most {MAX_DEPTH} are allowed"
        )


def chain(node: ast.BinOp) -> list[ast.BinOp]:
    """List a node and the left operands within it: the parser nests `a + b + c` once per term, to the left."""
    found = [node]
    while isinstance(node.left, ast.BinOp):
        node = node.left
        found.append(node)
    return found


def _below(chain: Sequence[ast.expr]) -> list[ast.expr]:
    inside = {*map(id, chain)}
    children = (child for node in chain for child in ast.iter_child_nodes(node))
    return [child for child in children if isinstance(child, ast.expr) and id(child) not in inside]
