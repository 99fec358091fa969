"""Private attributes of torch's objects.

They do not pass through the door: an attribute belongs to an object, and a function that reads it would be a wrapper.
So each is listed here, with an object that has it, and the list is complete.
"""

import ast
from collections.abc import Callable
from copy import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.tensor import DTensor

import torchpure as tp
from torchpure import _torch

LIBRARY = Path(tp.__file__).parent
X = torch.ones(2)
MODULE = nn.Linear(1, 1)
OPERATOR = torch.ops.aten.add_.Tensor


def _node() -> Any:
    return (X.clone().requires_grad_() * 2).grad_fn


def _counts_changes() -> bool:
    own = torch.ones(2)
    before = own._version
    return own.add_(1)._version == before + 1


def _hooked() -> Any:
    leaf = X.clone().requires_grad_()
    leaf.register_hook(print)
    leaf.register_post_accumulate_grad_hook(print)
    return leaf


def _remakes_a_dtensor() -> bool:
    begun = not dist.is_initialized()
    mesh = tp.make_mesh((1,), ("data",))
    try:
        old, part = tp.device_put(torch.ones(4, 2), mesh, tp.P("data")), torch.full((4, 2), 3.0)
        new = DTensor(part, copy(old._spec), requires_grad=False)
        same = (new.placements, new.device_mesh, new.shape) == (old.placements, mesh, old.shape)
        return same and new.to_local().data_ptr() == part.data_ptr() and bool(((new + old).full_tensor() == 4).all())
    finally:
        if begun:
            dist.destroy_process_group()


ATTRIBUTES: dict[str, Callable[[], bool]] = {  # a name -> whether it is what the library takes it for
    "_backward_hooks": lambda: not X._backward_hooks and _hooked()._backward_hooks,
    "_base": lambda: X.view(-1)._base is X and X._base is None,
    "_buffers": lambda: type(MODULE._buffers) is dict,
    "_call_impl": lambda: callable(nn.Module._call_impl),
    "_cdata": lambda: (
        X.untyped_storage()._cdata == X.view(2).untyped_storage()._cdata != X.clone().untyped_storage()._cdata
    ),
    "_check_input_dim": lambda: nn.BatchNorm1d(2)._check_input_dim(torch.ones(3, 2)) is None,
    "_checkpoint_modes": lambda: callable(_torch.MakefxTracer._checkpoint_modes),
    "_construct_modes_with_fx_tracer": lambda: callable(_torch.MakefxTracer._construct_modes_with_fx_tracer),
    "_current_level": lambda: _torch.forward_ad._current_level == -1,
    "_flat_weights": lambda: len(nn.LSTM(1, 1)._flat_weights) == 4,
    "_is_view": lambda: X.view(-1)._is_view() and not X._is_view(),
    "_non_persistent_buffers_set": lambda: MODULE._non_persistent_buffers_set == set(),
    "_forward_hooks": lambda: not MODULE._forward_hooks,
    "_forward_pre_hooks": lambda: not MODULE._forward_pre_hooks,
    "_is_zerotensor": lambda: torch._efficientzerotensor(2)._is_zerotensor() and not X._is_zerotensor(),
    "_modules": lambda: list(nn.Sequential(MODULE)._modules) == ["0"],
    "_opname": lambda: OPERATOR._opname == "add_",
    "_parameters": lambda: list(MODULE._parameters) == ["weight", "bias"],
    "_post_accumulate_grad_hooks": lambda: not X._post_accumulate_grad_hooks and _hooked()._post_accumulate_grad_hooks,
    "_reset_parameters": lambda: callable(nn.MultiheadAttention(1, 1)._reset_parameters),
    "_restore_modes": lambda: callable(_torch.MakefxTracer._restore_modes),
    "_schema": lambda: OPERATOR._schema.is_mutable and OPERATOR._schema.arguments[0].is_write,
    "_sequence_nr": lambda: _node()._sequence_nr() <= _node()._sequence_nr(),
    "_spec": _remakes_a_dtensor,
    "_version": _counts_changes,
    "_wrapped_call_impl": lambda: callable(nn.Module._wrapped_call_impl),
}
MARKS = {"_boxed_call", "_dynamo_marked_constant"}  # attributes of functions that torch's compiler reads: tests/jit
PYTHONS = {"_asdict", "_exit", "_fields", "_getframe", "_mp_context", "_replace"}
OURS = {"_ctx"}  # set by object.__setattr__


def private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name != "_"


def own(tree: ast.AST) -> set[str]:
    """List the attributes that a file gives its own classes."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            for part in node.body:
                found |= {part.name} if isinstance(part, ast.FunctionDef) else set()
                found |= {part.target.id} if isinstance(part, ast.AnnAssign) else set()
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self":
            found.add(node.attr)
    return found


def read(tree: ast.AST) -> set[str]:
    """List the private attributes that a file reads off objects, and those that it asks for by their name."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and private(node.attr) and "aten" not in ast.unparse(node.value):
            found.add(node.attr)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {"getattr", "hasattr", "setattr", "attrgetter"}:
            names = [part.value for part in node.args if isinstance(part, ast.Constant) and isinstance(part.value, str)]
            found |= set(filter(private, names))
    return found


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_objects_of_torch_have_it(name):
    assert ATTRIBUTES[name]()


def test_every_private_attribute_is_listed():
    files = [path for path in LIBRARY.rglob("*.py") if LIBRARY / "_torch" not in path.parents]
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in files]
    known = set().union(*map(own, trees)) | ATTRIBUTES.keys() | MARKS | PYTHONS | OURS
    missing = sorted(set().union(*map(read, trees)) - known)
    assert missing == [], f"put {missing} into ATTRIBUTES, with what the library takes it for"
