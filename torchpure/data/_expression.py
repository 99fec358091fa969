"""Expressions such as `2*sin(x + 2*pi)`: parsed, checked against an allowlist, and compiled to torch operations.

No text is evaluated as Python. Every number is a float64 tensor, so a power cannot grow to a huge Python integer. Each
part is compiled once and evaluated once, so time is linear in the size of the text.
"""

import ast
import difflib
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

import torch
from torch import Tensor

from torchpure.errors import InputError

from ._functions import CONSTANTS, FUNCTIONS, OTHER_NAMES
from ._syntax import Scope, chain, parse

Points = Mapping[str, Tensor]  # the values of each input, shape (n,)
Evaluate = Callable[[Points], Tensor]


class _Compiled(NamedTuple):
    value: Evaluate
    condition: bool  # True: the value is boolean, from a comparison


class _Step(NamedTuple):
    function: Callable[[Tensor, Tensor], Tensor]
    right: Evaluate


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
    scope = Scope(caller, tuple(inputs), source.strip())
    return _as_number(_build(parse(scope), scope))


def _build(node: ast.expr, scope: Scope) -> _Compiled:
    builder = _BUILDERS.get(type(node))
    return builder(node, scope) if builder else _refuse(node, node, scope)


def _refuse(node: ast.AST, shown_node: ast.expr, scope: Scope) -> NoReturn:
    reason = _REFUSED.get(
        type(node), f"`{_source_of(shown_node, scope)}` is not allowed here; wanted arithmetic, comparisons and calls"
    )
    raise InputError(f"{scope.caller}: {reason} (character {shown_node.col_offset + 1})")


def _source_of(node: ast.expr, scope: Scope) -> str:
    text = scope.source[node.col_offset : node.end_col_offset]
    return text if len(text) <= 40 else f"{text[:37]}..."


def _as_number(compiled: _Compiled) -> Evaluate:
    if not compiled.condition:
        return compiled.value
    return lambda points: compiled.value(points).to(torch.float64)


def _number(node: ast.expr, scope: Scope) -> Evaluate:
    return _as_number(_build(node, scope))


def _condition(node: ast.expr, scope: Scope) -> Evaluate:
    compiled = _build(node, scope)
    if not compiled.condition:
        raise InputError(f"{scope.caller}: wanted a comparison such as `x > 0`, got `{_source_of(node, scope)}`")
    return compiled.value


def _apply(function: Callable[..., Tensor], *arguments: Evaluate) -> Evaluate:
    return lambda points: function(*(argument(points) for argument in arguments))


def _constant(node: ast.Constant, scope: Scope) -> _Compiled:
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


def _name(node: ast.Name, scope: Scope) -> _Compiled:
    name = node.id
    if name in scope.inputs:
        return _Compiled(lambda points: points[name], condition=False)
    if name in CONSTANTS:
        value = torch.tensor(CONSTANTS[name], dtype=torch.float64)
        return _Compiled(lambda points: value, condition=False)
    if name not in FUNCTIONS:
        _unknown(name, node, scope)
    raise InputError(f"{scope.caller}: `{name}` is a function; write `{name}(...)`")


def _unknown(name: str, node: ast.expr, scope: Scope) -> NoReturn:
    known = [*scope.inputs, *CONSTANTS, *FUNCTIONS]
    close = [OTHER_NAMES[name]] if name in OTHER_NAMES else difflib.get_close_matches(name.lower(), known, n=1)
    guess = f" (did you mean `{close[0]}`?)" if close else ""
    inputs = f"inputs {', '.join(scope.inputs)} (--domain names others)" if scope.inputs else "no inputs"
    raise InputError(
        f"{scope.caller}: unknown name `{name[:40]}` at character {node.col_offset + 1}{guess}; "
        f"known: {inputs}; constants {', '.join(CONSTANTS)}; functions {', '.join(FUNCTIONS)}"
    )


def _unary(node: ast.UnaryOp, scope: Scope) -> _Compiled:
    if isinstance(node.op, ast.Not):
        return _Compiled(_apply(torch.logical_not, _condition(node.operand, scope)), condition=True)
    if isinstance(node.op, ast.Invert):
        _refuse(node.op, node, scope)
    operand = _number(node.operand, scope)
    return _Compiled(_apply(torch.neg, operand) if isinstance(node.op, ast.USub) else operand, condition=False)


def _binary(node: ast.BinOp, scope: Scope) -> _Compiled:
    *_, first = parts = chain(node)
    steps = [_Step(_binary_function(part, scope), _number(part.right, scope)) for part in reversed(parts)]
    return _Compiled(_fold(_number(first.left, scope), steps), condition=False)


def _binary_function(node: ast.BinOp, scope: Scope) -> Callable[[Tensor, Tensor], Tensor]:
    return _BINARY.get(type(node.op)) or _refuse(node.op, node, scope)


def _compare(node: ast.Compare, scope: Scope) -> _Compiled:
    first, *others = (_number(side, scope) for side in (node.left, *node.comparators))
    functions = [_COMPARE.get(type(operation)) or _refuse(operation, node, scope) for operation in node.ops]

    def value(points: Points) -> Tensor:
        left, result = first(points), None
        for function, other in zip(functions, others, strict=True):
            right = other(points)  # it is the left side of the next comparison
            holds = function(left, right)
            left, result = right, holds if result is None else torch.logical_and(result, holds)
        assert result is not None
        return result

    return _Compiled(value, condition=True)


def _boolean(node: ast.BoolOp, scope: Scope) -> _Compiled:
    first, *others = (_condition(side, scope) for side in node.values)
    return _Compiled(_fold(first, [_Step(_BOOLEAN[type(node.op)], other) for other in others]), condition=True)


def _fold(first: Evaluate, steps: list[_Step]) -> Evaluate:
    def value(points: Points) -> Tensor:
        result = first(points)
        for function, other in steps:
            result = function(result, other(points))
        return result

    return value


def _call(node: ast.Call, scope: Scope) -> _Compiled:
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


_BUILDERS: dict[type, Callable[[Any, Scope], _Compiled]] = {
    ast.Constant: _constant,
    ast.Name: _name,
    ast.UnaryOp: _unary,
    ast.BinOp: _binary,
    ast.Compare: _compare,
    ast.BoolOp: _boolean,
    ast.Call: _call,
}
