"""Modules that tell their own parameters from those that they were given: the meta-parameters."""

from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from torchpure.compat.torchopt import pytree


class MetaInputsContainer(NamedTuple):
    """What a module was given when it was made."""

    meta_parameters: set[Tensor]
    meta_modules: set[nn.Module]


_PLACES = ("_parameters", "_buffers", "_modules", "_meta_parameters", "_meta_modules")


class MetaGradientModule(nn.Module):
    """A module whose tensors and modules from the arguments of its constructor are meta-parameters and meta-modules.

    They are no part of `parameters()` and `modules()`, but of `meta_parameters()` and `meta_modules()`. A tensor
    counts if it requires grad, a module if it is in training mode.
    """

    _meta_inputs: MetaInputsContainer
    _meta_parameters: dict[str, Any]
    _meta_modules: dict[str, Any]

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """Note the tensors and modules among the arguments."""
        instance = super().__new__(cls)
        leaves = pytree.tree_leaves((args, kwargs))
        tensors = {leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.requires_grad}
        modules = {leaf for leaf in leaves if isinstance(leaf, nn.Module) and leaf.training}
        for module in tuple(modules):
            tensors.update(module.parameters())
            modules.update(module.modules())
        instance.__dict__["_meta_inputs"] = MetaInputsContainer(tensors, modules)
        instance.__dict__["_meta_parameters"] = OrderedDict()
        instance.__dict__["_meta_modules"] = OrderedDict()
        return instance

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Accept all arguments: `__new__` has looked at them."""
        super().__init__()

    def __getattr__(self, name: str) -> Any:
        for place in _PLACES:
            if name in self.__dict__.get(place, ()):
                return self.__dict__[place][name]
        raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")

    def __delattr__(self, name: str) -> None:
        for place in _PLACES:
            if name in self.__dict__.get(place, ()):
                del self.__dict__[place][name]
                self._non_persistent_buffers_set.discard(name)
                return
        object.__delattr__(self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, Tensor) and value.requires_grad:
            self._require("_parameters", "parameters")
            self._forget(name)
            meta = value in self._meta_inputs.meta_parameters
            (self.register_meta_parameter if meta else self.register_parameter)(name, value)
        elif isinstance(value, nn.Module):
            self._require("_modules", "module")
            self._forget(name)
            meta = value in self._meta_inputs.meta_modules
            (self._meta_modules if meta else self._modules)[name] = value
        else:
            self._assign(name, value)

    def _require(self, place: str, kind: str) -> None:
        if place not in self.__dict__:
            raise AttributeError(f"cannot assign {kind} before Module.__init__() call")

    def _forget(self, name: str) -> None:
        """Remove what has this name, so that another kind of thing can have it."""
        self.__dict__.pop(name, None)
        for place in _PLACES:
            self.__dict__[place].pop(name, None)
        self._non_persistent_buffers_set.discard(name)

    def _assign(self, name: str, value: Any) -> None:
        """Set a plain attribute; over a tensor or a module only None, over a buffer a tensor too."""
        kinds = {"_parameters": "parameter", "_meta_parameters": "meta-parameter", "_modules": "child module"}
        for place, kind in kinds.items():
            if name in self.__dict__.get(place, ()):
                if value is not None:
                    wanted = "torch.nn.Module" if place == "_modules" else "torch.Tensor"
                    raise TypeError(
                        f"cannot assign '{torch.typename(value)}' as {kind} '{name}' ({wanted} or None expected)"
                    )
                self.__dict__[place][name] = None
                return
        if name not in self.__dict__.get("_buffers", ()):
            object.__setattr__(self, name, value)
            return
        if value is not None and not isinstance(value, Tensor):
            raise TypeError(
                f"cannot assign '{torch.typename(value)}' as buffer '{name}' (torch.Tensor or None expected)"
            )
        self._buffers[name] = value

    def _check_name(self, name: Any, place: str, kind: str) -> None:
        if not isinstance(name, str):
            raise TypeError(f"{kind} name should be a string. Got {torch.typename(name)}")
        if "." in name:
            raise KeyError(f"{kind} name can't contain '.', got: '{name}'")
        if name == "":
            raise KeyError(f"{kind} name can't be empty string ''")
        if hasattr(self, name) and name not in self.__dict__[place]:
            raise KeyError(f"attribute '{name}' already exists")

    def _check_tensor(self, name: str, param: Any, kind: str) -> None:
        if param is None:
            return
        if not isinstance(param, Tensor):
            raise TypeError(
                f"cannot assign '{torch.typename(param)}' object to {kind} '{name}' (torch.Tensor or None required)"
            )
        if not param.requires_grad:
            raise ValueError(f"cannot assign Tensor that `requires_grad=False` to {kind} '{name}'")

    def register_parameter(self, name: str, param: Any) -> None:
        """Add a parameter: any tensor that requires grad, and is no meta-parameter.

        Raises:
            ValueError: it is one, or requires no grad.
        """
        self._require("_parameters", "parameter")
        self._check_name(name, "_parameters", "parameter")
        self._check_tensor(name, param, "parameter")
        if param is not None and param in self._meta_inputs.meta_parameters:
            raise ValueError(
                f"cannot assign Tensor that is a meta-parameter to parameter '{name}'. Use "
                f"self.register_meta_parameter() "
                "instead."
            )
        self._parameters[name] = param

    def register_meta_parameter(self, name: str, param: Any) -> None:
        """Add a meta-parameter: any tensor that requires grad."""
        self._check_name(name, "_meta_parameters", "meta-parameter")
        self._check_tensor(name, param, "meta-parameter")
        self._meta_parameters[name] = param

    def add_module(self, name: str, module: nn.Module | None) -> None:
        """Add a submodule that is no meta-module.

        Raises:
            TypeError: it is no module.
            ValueError: it is a meta-module.
        """
        if module is not None and not isinstance(module, nn.Module):
            raise TypeError(f"{torch.typename(module)} is not a Module subclass")
        self._check_name(name, "_modules", "module")
        if module is not None and module in self._meta_inputs.meta_modules:
            raise ValueError(
                f"cannot add module that is a meta-module to module '{name}'. Use self.add_meta_module() instead."
            )
        self._modules[name] = module

    def register_module(self, name: str, module: nn.Module | None) -> None:
        """Add a submodule: `add_module`."""
        self.add_module(name, module)

    def add_meta_module(self, name: str, meta_module: nn.Module | None) -> None:
        """Add a meta-module.

        Raises:
            TypeError: it is no module.
        """
        if meta_module is not None and not isinstance(meta_module, nn.Module):
            raise TypeError(f"{torch.typename(meta_module)} is not a Module subclass")
        self._check_name(name, "_meta_modules", "meta-module")
        self._meta_modules[name] = meta_module

    def register_meta_module(self, name: str, meta_module: nn.Module | None) -> None:
        """Add a meta-module: `add_meta_module`."""
        self.add_meta_module(name, meta_module)

    def meta_parameters(self, recurse: bool = True) -> Iterator[Tensor]:
        """Iterate over the meta-parameters, those of meta-modules too."""
        return (param for _, param in self.named_meta_parameters(recurse=recurse))

    def named_meta_parameters(self, prefix: str = "", recurse: bool = True) -> Iterator[tuple[str, Tensor]]:
        """Iterate over (name, meta-parameter), each once."""
        seen: set[Tensor] = set()
        for name, param in self._meta_parameters.items():
            if param is not None and param not in seen:
                seen.add(param)
                yield prefix + name, param
        for name, module in self._meta_modules.items():
            if module is not None:
                yield from module.named_parameters(prefix + name, recurse)

    def meta_children(self) -> Iterator[nn.Module]:
        """Iterate over the meta-modules that this module holds itself."""
        return (module for _, module in self.named_meta_children())

    def named_meta_children(self) -> Iterator[tuple[str, nn.Module]]:
        """Iterate over (name, meta-module), each once."""
        seen: set[nn.Module] = set()
        for name, module in self._meta_modules.items():
            if module is not None and module not in seen:
                seen.add(module)
                yield name, module

    def meta_modules(self) -> Iterator[nn.Module]:
        """Iterate over the meta-modules and their submodules."""
        return (module for _, module in self.named_meta_modules())

    def named_meta_modules(
        self, memo: set[nn.Module] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Module]]:
        """Iterate over (name, module) of the meta-modules and their submodules."""
        seen = set() if memo is None else memo
        if self in seen:
            return
        if remove_duplicate:
            seen.add(self)
        for name, module in self._meta_modules.items():
            if module is not None:
                yield from module.named_modules(seen, f"{prefix}.{name}" if prefix else name, remove_duplicate)
