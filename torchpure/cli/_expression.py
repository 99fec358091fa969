"""Expressions such as `2*sin(x + 2*pi)`: parsed, checked against an allowlist, and compiled to torch operations.

No text is evaluated as Python. Every number is a float64 tensor, so a power cannot grow to a huge Python integer.
"""

import ast
import difflib
import functools
import math
import operator
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

import torch
from torch import Tensor

from torchpure.errors import InputError

from ._functions import CONSTANTS, FUNCTIONS, OTHER_NAMES

MAX_LENGTH = 1000
MAX_NODES = 400
MAX_DEPTH = 100
MAX_BRACKETS = 50
MAX_DIGITS = 40

Points = Mapping[str, Tensor]  # the values of each input, shape (n,)
Evaluate = Callable[[Points], Tensor]


class _Compiled(NamedTuple):
    value: Evaluate
    condition: bool  # True: the value is boolean, from a comparison


class _Scope(NamedTuple):
    caller: str
    inputs: tuple[str, ...]


_BINARY: dict[type, Callable[[Tensor, Tensor], Tensor]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: torch.pow,
    ast.Mod: torch.remainder,
    ast.FloorDiv: torch.floor_divide,
}
_COMPARE: dict[type, Callable[[Tensor, Tensor], Tensor]] = {
    ast.Lt: torch.lt,
    ast.LtE: torch.le,
    ast.Gt: torch.gt,
    ast.GtE: torch.ge,
    ast.Eq: torch.eq,
    ast.NotEq: torch.ne,
}
_BOOLEAN: dict[type, Callable[[Tensor, Tensor], Tensor]] = {ast.And: torch.logical_and, ast.Or: torch.logical_or}
_REFUSED: dict[type, str] = {
    ast.BitXor: "`^` is not a power here; write `**`",
    ast.Attribute: "names with a dot are not allowed; write `sin(x)`, not `np.sin(x)`",
    ast.IfExp: "write `where(condition, a, b)` instead of `a if condition else b`",
    ast.Tuple: "wanted one expression, without commas outside of a call",
    ast.BitAnd: "write `and` instead of `&`",
    ast.BitOr: "write `or` instead of `|`",
    ast.Invert: "write `not` instead of `~`",
}


def compile_expression(source: str, inputs: Sequence[str], *, caller: str = "TARGET") -> Evaluate:
    """Compile an expression to a function of the named inputs.

    Raises:
        InputError: the text is not an expression, is too large, or contains something that is not allowed.

    >>> compile_expression("2*x + 1", ["x"])({"x": torch.tensor([0.0, 3.0], dtype=torch.float64)})
    tensor([1., 7.], dtype=torch.float64)
    """
    scope = _Scope(caller, tuple(inputs))
    tree = _parse(source.strip(), scope)
    _check_size(tree, scope)
    return _as_number(_build(tree, scope))


def _parse(source: str, scope: _Scope) -> ast.expr:
    _check_text(source, scope)
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


def _check_text(source: str, scope: _Scope) -> None:
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


def _check_size(tree: ast.expr, scope: _Scope) -> None:
    count, level, depth = 0, [tree], 0
    while level:
        count, depth = count + len(level), depth + 1
        level = [child for node in level for child in ast.iter_child_nodes(node) if isinstance(child, ast.expr)]
    if count > MAX_NODES:
        raise InputError(f"{scope.caller}: the expression has {count} parts; at most {MAX_NODES} are allowed")
    if depth > MAX_DEPTH:
        raise InputError(
            f"{scope.caller}: the expression is nested {depth} levels deep; at most {MAX_DEPTH} are allowed"
        )


def _build(node: ast.expr, scope: _Scope) -> _Compiled:
    builder = _BUILDERS.get(type(node))
    return builder(node, scope) if builder else _refuse(node, node, scope)


def _refuse(node: ast.AST, shown_node: ast.expr, scope: _Scope) -> NoReturn:
    reason = _REFUSED.get(
        type(node), f"`{_source_of(shown_node)}` is not allowed here; wanted arithmetic, comparisons and calls"
    )
    raise InputError(f"{scope.caller}: {reason} (character {shown_node.col_offset + 1})")


def _source_of(node: ast.expr) -> str:
    text = ast.unparse(node)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _as_number(compiled: _Compiled) -> Evaluate:
    if not compiled.condition:
        return compiled.value
    return lambda points: compiled.value(points).to(torch.float64)


def _number(node: ast.expr, scope: _Scope) -> Evaluate:
    return _as_number(_build(node, scope))


def _condition(node: ast.expr, scope: _Scope) -> Evaluate:
    compiled = _build(node, scope)
    if not compiled.condition:
        raise InputError(f"{scope.caller}: wanted a comparison such as `x > 0`, got `{_source_of(node)}`")
    return compiled.value


def _apply(function: Callable[..., Tensor], *arguments: Evaluate) -> Evaluate:
    return lambda points: function(*(argument(points) for argument in arguments))


def _constant(node: ast.Constant, scope: _Scope) -> _Compiled:
    if not isinstance(node.value, int | float) or isinstance(node.value, bool):
        _refuse(node, node, scope)
    try:
        number = float(node.value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise InputError(f"{scope.caller}: the number at character {node.col_offset + 1} is too large for float64")
    value = torch.tensor(number, dtype=torch.float64)
    return _Compiled(lambda points: value, condition=False)


def _name(node: ast.Name, scope: _Scope) -> _Compiled:
    name = node.id
    if name in scope.inputs:
        return _Compiled(lambda points: points[name], condition=False)
    if name in CONSTANTS:
        value = torch.tensor(CONSTANTS[name], dtype=torch.float64)
        return _Compiled(lambda points: value, condition=False)
    if name not in FUNCTIONS:
        _unknown(name, node, scope)
    raise InputError(f"{scope.caller}: `{name}` is a function; write `{name}(...)`")


def _unknown(name: str, node: ast.expr, scope: _Scope) -> NoReturn:
    known = [*scope.inputs, *CONSTANTS, *FUNCTIONS]
    close = [OTHER_NAMES[name]] if name in OTHER_NAMES else difflib.get_close_matches(name.lower(), known, n=1)
    guess = f" (did you mean `{close[0]}`?)" if close else ""
    inputs = f"inputs {', '.join(scope.inputs)} (--domain names others)" if scope.inputs else "no inputs"
    raise InputError(
        f"{scope.caller}: unknown name `{name[:40]}` at character {node.col_offset + 1}{guess}; "
        f"known: {inputs}; constants {', '.join(CONSTANTS)}; functions {', '.join(FUNCTIONS)}"
    )


def _unary(node: ast.UnaryOp, scope: _Scope) -> _Compiled:
    if isinstance(node.op, ast.Not):
        return _Compiled(_apply(torch.logical_not, _condition(node.operand, scope)), condition=True)
    if isinstance(node.op, ast.Invert):
        _refuse(node.op, node, scope)
    operand = _number(node.operand, scope)
    return _Compiled(_apply(torch.neg, operand) if isinstance(node.op, ast.USub) else operand, condition=False)


def _binary(node: ast.BinOp, scope: _Scope) -> _Compiled:
    function = _BINARY.get(type(node.op))
    if function is None:
        _refuse(node.op, node, scope)
    return _Compiled(_apply(function, _number(node.left, scope), _number(node.right, scope)), condition=False)


def _compare(node: ast.Compare, scope: _Scope) -> _Compiled:
    sides = [_number(side, scope) for side in (node.left, *node.comparators)]
    pairs: list[Evaluate] = []
    for operation, left, right in zip(node.ops, sides, sides[1:], strict=False):
        function = _COMPARE.get(type(operation))
        if function is None:
            _refuse(operation, node, scope)
        pairs.append(_apply(function, left, right))
    return _Compiled(functools.partial(_reduce, torch.logical_and, pairs), condition=True)


def _boolean(node: ast.BoolOp, scope: _Scope) -> _Compiled:
    sides = [_condition(side, scope) for side in node.values]
    return _Compiled(functools.partial(_reduce, _BOOLEAN[type(node.op)], sides), condition=True)


def _reduce(function: Callable[[Tensor, Tensor], Tensor], sides: list[Evaluate], points: Points) -> Tensor:
    return functools.reduce(function, [side(points) for side in sides])


def _call(node: ast.Call, scope: _Scope) -> _Compiled:
    if not isinstance(node.func, ast.Name):
        _refuse(node.func, node, scope)
    name = node.func.id
    if name in scope.inputs or name in CONSTANTS:
        raise InputError(f"{scope.caller}: `{name}` is not a function; write a product with `*`: `{name}*(...)`")
    if name not in FUNCTIONS:
        _unknown(name, node.func, scope)
    function, arity = FUNCTIONS[name]
    if node.keywords or len(node.args) != arity:
        wanted = "1 argument" if arity == 1 else f"{arity} arguments"
        got = "named arguments" if node.keywords else len(node.args)
        raise InputError(f"{scope.caller}: `{name}` takes {wanted}, got {got}")
    arguments = [
        _condition(argument, scope) if name == "where" and index == 0 else _number(argument, scope)
        for index, argument in enumerate(node.args)
    ]
    return _Compiled(_apply(function, *arguments), condition=False)


_BUILDERS: dict[type, Callable[[Any, _Scope], _Compiled]] = {
    ast.Constant: _constant,
    ast.Name: _name,
    ast.UnaryOp: _unary,
    ast.BinOp: _binary,
    ast.Compare: _compare,
    ast.BoolOp: _boolean,
    ast.Call: _call,
}
