"""The laws of transforms: each is a function that raises AssertionError if a transform breaks it.

A transform takes a function and returns a function. Every law takes a `TransformCase`: the transform, a function,
inputs, and a reference. The reference computes the transformed function in another way: in closed form, or by a loop.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from torchpure import tree
from torchpure.jit import jit
from torchpure.transforms import grad, jvp, vmap

from ._assert import assert_tensors_close, assert_trees_close, check_skip, rtol_of, tensors, weighted_sum

Function = Callable[..., Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class TransformCase:
    """A transform, a function, and a reference for the transformed function."""

    transform: Callable[[Any], Function]
    fn: Function
    inputs: tuple[Any, ...]
    reference: Function  # takes the same inputs
    bad: Sequence[tuple[Any, ...]] = ()  # inputs that the transformed function must refuse before it calls `fn`

    def apply(self) -> Function:
        """Return the transformed function."""
        return self.transform(self.fn)

    def floats(self) -> list[Tensor]:
        """List the floating point inputs, which the laws differentiate and batch over."""
        return [leaf for leaf in tensors(self.inputs) if leaf.is_floating_point()]

    def of_floats(self, function: Function) -> Function:
        """Return `function` as a function of these inputs only; the other inputs are fixed."""
        leaves, structure = tree.flatten(self.inputs)

        def call(*values: Tensor) -> Any:
            rest = iter(values)
            moves = [isinstance(leaf, Tensor) and leaf.is_floating_point() for leaf in leaves]
            given = [next(rest) if moving else leaf for moving, leaf in zip(moves, leaves, strict=True)]
            return function(*tree.unflatten(structure, given))

        return call


def check_transform(
    transform: Callable[[Any], Function],
    fn: Function,
    inputs: tuple[Any, ...],
    reference: Function,
    *,
    bad: Sequence[tuple[Any, ...]] = (),
    skip: Sequence[str] = (),
) -> None:
    """Check every law of a transform on one function and its inputs, except those whose names are in `skip`.

    `reference(*inputs)` computes the same values as `transform(fn)(*inputs)` in another way, and must be differentiable
    too. `bad` lists inputs that must raise before `fn` is called. Use float64 inputs: there the tolerances are small
    enough to find mistakes.

    Raises:
        AssertionError: the transform breaks a law.
        ValueError: `skip` names something else than a law.

    >>> def cube(x):
    ...     return x**3
    >>> check_transform(grad, cube, (torch.tensor(2.0).double(),), lambda x: 3 * x**2, bad=[(torch.tensor(2),)])
    """
    check_skip("check_transform", skip, TRANSFORM_LAWS)
    case = TransformCase(transform=transform, fn=fn, inputs=inputs, reference=reference, bad=bad)
    for name, law in TRANSFORM_LAWS.items():
        if name not in skip:
            law(case)


def inputs_are_unchanged(case: TransformCase) -> None:
    """The transformed function does not change its inputs, bit for bit, and two calls give the same result."""
    copies = tree.map(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf, case.inputs)
    made = case.apply()
    one = made(*copies)
    for path, old, new in zip(tree.paths(copies), tree.leaves(case.inputs), tree.leaves(copies), strict=True):
        changed = isinstance(old, Tensor) and not torch.equal(old.nan_to_num(), new.nan_to_num())
        assert not changed, f"the input at `{path}` was changed: {tree.describe(new)}"
    assert_tensors_close(made(*case.inputs), one, "called twice")


def result_is_the_references(case: TransformCase) -> None:
    """`transform(fn)(*inputs) == reference(*inputs)`, with the same structure, shapes and dtypes."""
    actual, expected = case.apply()(*case.inputs), case.reference(*case.inputs)
    rtol = max((rtol_of(leaf.dtype) for leaf in tensors(expected)), default=0.0)
    assert_trees_close(actual, expected, rtol=rtol, atol=rtol)


def name_and_signature_stay(case: TransformCase) -> None:
    """The transformed function has the name and the signature of the function."""
    made, name = case.apply(), getattr(case.fn, "__name__", None)
    found = getattr(made, "__name__", None)
    assert found == name, f"`__name__` became {found!r}, wanted {name!r}: wrap with functools.wraps(fn)"
    signature, wanted = inspect.signature(made), inspect.signature(case.fn)
    assert signature == wanted, f"the signature became {signature}, wanted {wanted}: wrap with functools.wraps(fn)"


def batched_equals_looped(case: TransformCase) -> None:
    """`vmap(transform(fn))` equals the reference for each member alone."""
    leaves = case.floats()
    if not leaves:
        return
    members = [[leaf * (1 + 0.05 * i) for leaf in leaves] for i in range(3)]
    columns = [torch.stack(column) for column in zip(*members, strict=True)]
    together = tensors(vmap(case.of_floats(case.apply()))(*columns))
    alone = case.of_floats(case.reference)
    for i, member in enumerate(members):
        assert_tensors_close([leaf[i] for leaf in together], alone(*member), f"member {i} of vmap")


def derivatives_are_the_references(case: TransformCase) -> None:
    """`grad` and `jvp` of the transformed function are those of the reference."""
    leaves = case.floats()
    if not leaves:
        return
    call, wanted = case.of_floats(case.apply()), case.of_floats(case.reference)
    places, inputs = tuple(range(len(leaves))), tuple(leaves)

    def gradient_of(fn: Callable[..., Any]) -> Any:
        return grad(lambda *values: weighted_sum(fn(*values)), places)(*inputs)

    gradient, expected = gradient_of(call), gradient_of(wanted)
    assert_tensors_close(gradient, expected, "grad")
    tangents, expected = (jvp(f, inputs, inputs)[1] for f in (call, wanted))
    assert_tensors_close(tangents, expected, "jvp")


def compiled_equals_eager(case: TransformCase) -> None:
    """`jit(transform(fn))` and `transform(jit(fn))` equal the reference."""
    expected = case.reference(*case.inputs)
    assert_tensors_close(jit(case.apply())(*case.inputs), expected, "jit of the transformed function")
    assert_tensors_close(case.transform(jit(case.fn))(*case.inputs), expected, "the transform of a jitted function")


def nests_with_itself(case: TransformCase) -> None:
    """`transform(transform(fn)) == transform(reference)`."""
    actual = case.transform(case.apply())(*case.inputs)
    assert_tensors_close(actual, case.transform(case.reference)(*case.inputs), "the transform applied twice")


def bad_arguments_raise_first(case: TransformCase) -> None:
    """The transform raises for a value that is no function; bad inputs raise before `fn` is called."""
    calls: list[None] = []

    @wraps(case.fn)
    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append(None)
        return case.fn(*args, **kwargs)

    assert _refuses(case.transform, None), "None was accepted in place of a function"
    made = case.transform(counted)
    for inputs in case.bad:
        refused = _refuses(made, *inputs)
        assert refused, f"bad inputs were accepted: {tree.describe(inputs)}"
        assert not calls, f"`fn` was called before bad inputs were refused: {tree.describe(inputs)}"


def _refuses(function: Function, *inputs: Any) -> bool:
    try:
        function(*inputs)
    except Exception:
        return True
    return False


TRANSFORM_LAWS: dict[str, Callable[[TransformCase], None]] = {
    law.__name__: law
    for law in (
        inputs_are_unchanged,
        result_is_the_references,
        name_and_signature_stay,
        batched_equals_looped,
        derivatives_are_the_references,
        compiled_equals_eager,
        nests_with_itself,
        bad_arguments_raise_first,
    )
}
