"""Optimizers whose steps can be differentiated, made from those of torch.optim."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from torchpure import optim, tree

from ._updates import MAKERS, Make
from .patch import PatchedModule

Override = Mapping[str, Sequence[Any]]
GradCallback = Callable[[list[Tensor]], list[Tensor]]


class DifferentiableOptimizer:
    """Takes steps like those of a torch optimizer, on tensors that stay in the graph.

    It begins with the options and the state of that optimizer, such as momentum. Each parameter has a state of its own:
    one without a gradient keeps its value and its state.
    """

    make: Make | None = None  # of a subclass: options -> a pure optimizer

    def __init__(
        self,
        other: torch.optim.Optimizer,
        reference_params: Iterable[Tensor],
        fmodel: PatchedModule | None = None,
        device: torch.device | None = None,
        override: Override | None = None,
        grad_callback: GradCallback | None = None,
        track_higher_grads: bool = True,
        **kwargs: Any,
    ) -> None:
        """Read the options and the state of a torch optimizer.

        Raises:
            ValueError: a parameter of the optimizer is none of the reference parameters, or the class is unknown.
        """
        self._fmodel, self._grad_callback, self._track = fmodel, grad_callback, track_higher_grads
        self._make = type(self).make or _maker(type(other))
        places = {id(leaf): place for place, leaf in enumerate(reference_params)}
        self._groups = [dict(group, params=_places(group["params"], places)) for group in other.param_groups]
        self._override = dict(override or {})
        self._states = {
            place: self._start(group, leaf, other, device)
            for group, theirs in zip(self._groups, other.param_groups, strict=True)
            for place, leaf in zip(group["params"], theirs["params"], strict=True)
        }

    def step(
        self,
        loss: Tensor,
        params: Iterable[Tensor] | None = None,
        override: Override | None = None,
        grad_callback: GradCallback | None = None,
        **kwargs: Any,
    ) -> list[Tensor]:
        """Return the parameters after one step that lessens the loss, and give them to the patched module.

        `override` replaces options for this step: a list with one value, or one for each group of parameters.

        Raises:
            ValueError: there are no parameters, or `override` has an unknown option or another length.
        """
        old = self._current(params)
        wanted = [leaf for leaf in old if leaf.requires_grad]
        slopes = torch.autograd.grad(loss, wanted, create_graph=self._track, allow_unused=True)
        remaining = iter(slopes)
        grads = [next(remaining) if leaf.requires_grad else None for leaf in old]
        callback = grad_callback or self._grad_callback
        if callback is not None:
            grads = callback(grads)  # pyrefly: ignore[bad-argument-type] as in higher, None stands for no gradient
        new = list(old)
        for number, group in enumerate(self._groups):
            made = self._make(self._options(number, override))
            for place in group["params"]:
                if grads[place] is not None:
                    new[place] = self._one_step(made, place, old[place], grads[place])
        if self._fmodel is not None:
            self._fmodel.update_params(new)
        return new

    def _one_step(self, made: optim.Optimizer[Any], place: int, old: Tensor, grad: Any) -> Tensor:
        [new], self._states[place] = made.step([grad], self._states[place], [old])
        if self._track:
            return new
        self._states[place] = _detached(self._states[place])
        return new.detach().requires_grad_()

    def _current(self, params: Iterable[Tensor] | None) -> list[Tensor]:
        if params is None and self._fmodel is not None:
            params = self._fmodel.fast_params
        if params is None:
            raise ValueError("step: wanted params=, or an fmodel that has parameters")
        return list(params)

    def _options(self, number: int, override: Override | None) -> dict[str, Any]:
        group = self._groups[number]
        for name, values in {**self._override, **(override or {})}.items():
            if name not in group:
                raise ValueError(f"override: {name!r} is none of the options {', '.join(map(repr, group))}")
            if len(values) not in {1, len(self._groups)}:
                wanted = f"one value, or one for each of {len(self._groups)} groups"
                raise ValueError(f"override: {name!r}: wanted {wanted}, got {len(values)}")
            group = {**group, name: values[number if len(values) > 1 else 0]}
        return group

    def _start(self, group: dict[str, Any], leaf: Tensor, other: torch.optim.Optimizer, device: Any) -> Any:
        options = {**group, **{name: values[0] for name, values in self._override.items()}}
        state = self._make(options).init([leaf.detach().to(device) if device is not None else leaf.detach()])
        theirs = other.state.get(leaf)
        if not theirs:
            return state
        return optim.from_torch({"state": {0: theirs}, "param_groups": [{"params": [0]}]}, state)


def _places(leaves: Iterable[Tensor], places: Mapping[int, int]) -> list[int]:
    found = [places.get(id(leaf)) for leaf in leaves]
    if None in found:
        raise ValueError("a parameter of the optimizer is none of the reference parameters")
    return [place for place in found if place is not None]


def _detached(state: Any) -> Any:
    return tree.map(lambda leaf: leaf.detach() if isinstance(leaf, Tensor) else leaf, state)


def _maker(kind: type[torch.optim.Optimizer]) -> Make:
    if kind not in MAKERS:
        known = ", ".join(sorted(one.__name__ for one in MAKERS))
        raise ValueError(f"{kind.__name__} has no differentiable form; there are {known}; add one by register_optim")
    return MAKERS[kind]


def _subclass(kind: type[torch.optim.Optimizer]) -> type[DifferentiableOptimizer]:
    doc = f"The differentiable form of `torch.optim.{kind.__name__}`."
    members = {"make": staticmethod(MAKERS[kind]), "__doc__": doc, "__module__": __name__}
    return type(f"Differentiable{kind.__name__}", (DifferentiableOptimizer,), members)


_FORMS: dict[type[torch.optim.Optimizer], type[DifferentiableOptimizer]] = {kind: _subclass(kind) for kind in MAKERS}
DifferentiableSGD = _FORMS[torch.optim.SGD]
DifferentiableAdam = _FORMS[torch.optim.Adam]
DifferentiableAdamW = _FORMS[torch.optim.AdamW]
DifferentiableAdadelta = _FORMS[torch.optim.Adadelta]
DifferentiableAdagrad = _FORMS[torch.optim.Adagrad]
DifferentiableAdamax = _FORMS[torch.optim.Adamax]
DifferentiableASGD = _FORMS[torch.optim.ASGD]
DifferentiableRMSprop = _FORMS[torch.optim.RMSprop]
DifferentiableRprop = _FORMS[torch.optim.Rprop]


def get_diff_optim(
    opt: torch.optim.Optimizer,
    reference_params: Iterable[Tensor],
    fmodel: PatchedModule | None = None,
    device: torch.device | None = None,
    override: Override | None = None,
    track_higher_grads: bool = True,
    **kwargs: Any,
) -> DifferentiableOptimizer:
    """Return the differentiable form of a torch optimizer, with its options and its state.

    Raises:
        ValueError: the class of the optimizer has no differentiable form.

    >>> weight = torch.nn.Parameter(torch.tensor([2.0]))
    >>> diffopt = get_diff_optim(torch.optim.SGD([weight], 0.25), [weight])
    >>> diffopt.step(weight.square().sum(), params=[weight])
    [tensor([1.], grad_fn=<AddBackward0>)]
    """
    form = _FORMS.get(type(opt))
    if form is None:
        _maker(type(opt))  # raises
        raise AssertionError("a class with a maker has a form")
    return form(
        opt, reference_params, fmodel, device, override=override, track_higher_grads=track_higher_grads, **kwargs
    )


def create_diff_optim(
    opt_type: type[torch.optim.Optimizer],
    opt_kwargs: dict[str, Any] | None = None,
    params: list[Tensor] | None = None,
    fmodel: PatchedModule | None = None,
    device: torch.device | None = None,
    override: Override | None = None,
    track_higher_grads: bool = True,
    **kwargs: Any,
) -> DifferentiableOptimizer:
    """Return a differentiable optimizer of a class of torch.optim, for parameters or a patched module.

    Raises:
        ValueError: there are neither parameters nor a patched module, or the class has no differentiable form.

    >>> weight = torch.ones(1, requires_grad=True)
    >>> create_diff_optim(torch.optim.SGD, {"lr": 0.5}, [weight]).step((3 * weight).sum(), [weight])[0].item()
    -0.5
    """
    if params is None:
        if fmodel is None or fmodel.fast_params is None:
            raise ValueError("create_diff_optim: wanted params=, or an fmodel that has parameters")
        params = fmodel.fast_params
    own = [leaf.detach().clone().requires_grad_() for leaf in params]
    made = opt_type(own, **(opt_kwargs or {}))  # pyrefly: ignore[unexpected-keyword] options of a class
    return get_diff_optim(made, own, fmodel, device, override=override, track_higher_grads=track_higher_grads, **kwargs)


def register_optim(optim_type: type[torch.optim.Optimizer], diff_optim_type: type[DifferentiableOptimizer]) -> None:
    """Let `get_diff_optim` use this class for optimizers of that class.

    >>> class Mine(torch.optim.SGD): ...
    >>> register_optim(Mine, DifferentiableSGD)
    >>> weight = torch.nn.Parameter(torch.ones(1))
    >>> type(get_diff_optim(Mine([weight], 0.1), [weight])).__name__
    'DifferentiableSGD'
    """
    _FORMS[optim_type] = diff_optim_type


def get_trainable_opt_params(opt: torch.optim.Optimizer, device: torch.device | None = None) -> dict[str, list[Any]]:
    """Return the numbers of an optimizer as tensors that require grad, for `override`.

    >>> get_trainable_opt_params(torch.optim.SGD([torch.ones(1, requires_grad=True)], 0.5))["lr"]
    [tensor(0.5000, requires_grad=True)]
    """
    found: dict[str, list[Any]] = {}
    for name in opt.param_groups[0]:
        values = [group[name] for group in opt.param_groups]
        if name != "params" and all(_is_numbers(value) for value in values):
            found[name] = [_as_trainable(value, device) for value in values]
    return found


def _is_numbers(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return all(map(_is_numbers, value))
    return isinstance(value, float | int | Tensor) and not isinstance(value, bool)


def _as_trainable(value: Any, device: torch.device | None) -> Any:
    if isinstance(value, tuple | list):
        return tuple(_as_trainable(part, device) for part in value)
    return torch.as_tensor(float(value), device=device).requires_grad_()


def apply_trainable_opt_params(opt: torch.optim.Optimizer, override: Override) -> None:
    """Write the numbers of `override` into an optimizer.

    Raises:
        ValueError: a list has another length than the groups of parameters.

    >>> opt = torch.optim.SGD([torch.ones(1, requires_grad=True)], 0.5)
    >>> apply_trainable_opt_params(opt, {"lr": [torch.tensor(0.25)]})
    >>> opt.param_groups[0]["lr"]
    0.25
    """
    for name, values in override.items():
        if len(values) not in {1, len(opt.param_groups)}:
            raise ValueError(f"{name!r}: wanted {len(opt.param_groups)} values, got {len(values)}")
        for number, group in enumerate(opt.param_groups):
            group[name] = _as_numbers(values[number if len(values) > 1 else 0])


def _as_numbers(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return tuple(map(_as_numbers, value))
    return value.item() if isinstance(value, Tensor) else value
