"""Copies of modules whose parameters are tensors that an inner loop replaces."""

import copy
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from .utils import get_func_params

__all__ = ["PatchedModule", "buffer_sync", "make_functional", "monkeypatch"]


class PatchedModule(nn.Module):
    """A module that is called with its newest parameters, `fast_params`, or with those of `params=`.

    Its buffers are copies of its own. Submodules are called by name: `fmodel.layer(x)` uses the newest parameters too.
    """

    def __init__(self, module: nn.Module) -> None:
        """Copy a module, without parameters yet."""
        super().__init__()
        own = copy.deepcopy(module)
        self.__dict__["_module"] = own  # not a submodule: its own parameters are not those of this module
        self.__dict__["_aliases"] = _aliases(own)
        self._fast_params: list[list[Tensor]] | None = None
        self._track = True
        self.training = module.training

    def forward(self, *args: Any, params: Sequence[Tensor] | None = None, **kwargs: Any) -> Any:
        """Call the module with these parameters, or with the newest.

        Raises:
            ValueError: there are no parameters yet.
        """
        return functional_call(self._module, self._named(params), args, kwargs)

    def _named(self, params: Sequence[Tensor] | None) -> dict[str, Tensor]:
        given = self.fast_params if params is None else list(params)
        if given is None:
            raise ValueError("the module has no parameters yet: pass params=, or make it by monkeypatch")
        return dict(zip(self._aliases, given, strict=True))

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.__dict__["_module"], name)
        return _Submodule(self, name) if isinstance(found, nn.Module) else found

    @property
    def fast_params(self) -> list[Tensor] | None:
        """The newest parameters."""
        return None if self._fast_params is None else self._fast_params[-1]

    @fast_params.setter
    def fast_params(self, value: Iterable[Tensor]) -> None:
        self.update_params(value)

    @property
    def init_fast_params(self) -> list[Tensor]:
        """The first parameters, with respect to which an outer loss is differentiated.

        Raises:
            Exception: the steps are not kept.
        """
        if not self._track or self._fast_params is None:
            raise Exception("the first parameters are not kept: set track_higher_grads")
        return self._fast_params[0]

    @property
    def track_higher_grads(self) -> bool:
        """Whether all steps are kept, so that the outer loss is differentiated through them."""
        return self._track

    @track_higher_grads.setter
    def track_higher_grads(self, value: bool) -> None:
        if not isinstance(value, bool):
            raise ValueError(f"track_higher_grads: wanted True or False, got {value!r}")
        self._track = value

    def update_params(self, params: Iterable[Tensor]) -> None:
        """Replace the newest parameters; if steps are tracked, all earlier ones are kept."""
        new = list(params)
        if self._fast_params is None or not self._track:
            self._fast_params = [new]
        else:
            self._fast_params.append(new)

    def parameters(self, recurse: bool = True, *, time: int = -1) -> Iterator[Tensor]:  # type: ignore[override]
        """Iterate over the parameters after step `time`: 0 are the first ones, -1 the newest."""
        return iter([] if self._fast_params is None else self._fast_params[time])

    def named_parameters(self, prefix: str = "", recurse: bool = True, *, time: int = -1) -> Any:  # type: ignore[override]
        """Iterate over names and parameters after step `time`."""
        start = f"{prefix}." if prefix else ""
        return ((start + name, leaf) for name, leaf in zip(self._aliases, self.parameters(time=time), strict=False))

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """Iterate over the buffers."""
        return self._module.buffers(recurse)

    def named_buffers(self, *args: Any, **kwargs: Any) -> Any:
        """Iterate over names and buffers."""
        return self._module.named_buffers(*args, **kwargs)

    def train(self, mode: bool = True) -> "PatchedModule":
        """Set the mode of the module."""
        self.training = mode
        self.__dict__["_module"].train(mode)
        return self


class _Submodule:
    """A submodule of a patched one, called with the newest parameters; its other attributes are the module's own."""

    def __init__(self, owner: PatchedModule, path: str) -> None:
        self._owner, self._path = owner, path

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        start = f"{self._path}."
        aliases = self._owner._aliases
        given = {
            alias.removeprefix(start): leaf
            for (name, leaf) in self._owner._named(None).items()
            for alias in aliases[name]
            if alias.startswith(start)
        }
        return functional_call(self._found(), given, args, kwargs)

    def _found(self) -> nn.Module:
        return self._owner.__dict__["_module"].get_submodule(self._path)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._found(), name)
        return _Submodule(self._owner, f"{self._path}.{name}") if isinstance(found, nn.Module) else found

    def __getitem__(self, index: int) -> Any:
        names = list(self._found()._modules)
        return getattr(self, names[index])

    def __iter__(self) -> Iterator[Any]:
        return iter([getattr(self, name) for name in self._found()._modules])

    def __len__(self) -> int:
        return len(self._found()._modules)


def _aliases(module: nn.Module) -> dict[str, list[str]]:
    """Return all names of each parameter, by its first one."""
    names: dict[int, list[str]] = {}
    for name, leaf in module.named_parameters(remove_duplicate=False):
        names.setdefault(id(leaf), []).append(name)
    return {found[0]: found for found in names.values()}


def make_functional(module: nn.Module, encapsulator: Any = None) -> PatchedModule:
    """Return a copy of a module that is called with `params=`.

    >>> fmodel = make_functional(nn.Linear(2, 1))
    >>> fmodel(torch.ones(3, 2), params=[torch.ones(1, 2), torch.zeros(1)]).shape
    torch.Size([3, 1])
    """
    made = PatchedModule(module)
    if encapsulator is not None:
        encapsulator(made, module)
    return made


def buffer_sync(module: nn.Module, fmodule: PatchedModule, device: torch.device | None = None) -> None:
    """Copy the buffers of a module into its patched copy.

    >>> norm = nn.BatchNorm1d(2)
    >>> copied = monkeypatch(norm)
    >>> _ = norm.running_mean.fill_(3.0)
    >>> buffer_sync(norm, copied)
    >>> copied.running_mean
    tensor([3., 3.])
    """
    for name, leaf in module.named_buffers():
        owner, _, last = name.rpartition(".")
        fmodule.__dict__["_module"].get_submodule(owner)._buffers[last] = (
            leaf.detach().clone().to(device or leaf.device)
        )


def monkeypatch(
    module: nn.Module,
    device: torch.device | None = None,
    copy_initial_weights: bool = True,
    track_higher_grads: bool = True,
) -> PatchedModule:
    """Return a copy of a module whose parameters an inner loop replaces.

    With `copy_initial_weights=False` the first parameters stay in the graph of the module's own, as MAML needs.

    >>> model = nn.Linear(2, 1)
    >>> fmodel = monkeypatch(model, copy_initial_weights=False)
    >>> fmodel(torch.ones(3, 2)).sum().backward()
    >>> model.bias.grad
    tensor([3.])
    """
    made = make_functional(module)
    made.track_higher_grads = track_higher_grads
    made.update_params(get_func_params(module, device, safe_copy=copy_initial_weights))
    buffer_sync(module, made, device)
    return made
