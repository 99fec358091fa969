"""Each entry of the door exists, can be called as the library calls it, and does what the library relies on.

Where a new version of torch breaks one, this says which, before anything else fails.
"""

import importlib
import inspect

import contracts_of_kernels
import contracts_of_processes
import contracts_of_tracing
import contracts_of_transforms
import pytest
from contracts import CALLS, CONTRACTS

from torchpure import _torch
from torchpure._torch import (
    FakeTensorMode,
    ProxyTorchDispatchMode,
    PythonKeyTracer,
)
from torchpure.transforms.engine import LightFakeMode, LightProxyMode

SLOW = ("inductor", "compiler_config")
assert (
    contracts_of_kernels and contracts_of_processes and contracts_of_tracing and contracts_of_transforms
)  # they fill the tables


def entries() -> dict[str, object]:
    """List what the door hands on: by name, or as `module.name` of the modules that keep their name."""
    found = {name: value for name, value in vars(_torch).items() if not name.startswith("_")}
    for name in ("functorch", "pytree", *SLOW):
        module = importlib.import_module(f"torchpure._torch.{name}")
        found.pop(name, None)
        found |= {f"{name}.{key}": value for key, value in vars(module).items() if not key.startswith("_")}
    return found


def readable(entry: object) -> inspect.Signature | None:
    if inspect.ismodule(entry) or (inspect.isclass(entry) and not entry.__module__.startswith("torch")):
        return None
    try:
        return inspect.signature(entry)
    except (TypeError, ValueError):
        return None


@pytest.mark.parametrize("holds", dict.fromkeys(CONTRACTS.values()), ids=lambda holds: holds.__name__)
def test_what_is_relied_on_holds(holds):
    holds()


@pytest.mark.parametrize("name", CALLS)
def test_it_takes_the_arguments_that_the_library_gives(name):
    args, kwargs = CALLS[name]
    signature = readable(entries()[name])
    if signature is None:
        pytest.skip("torch does not tell its signature: the contract calls it")
    signature.bind(*args, **kwargs)


def test_every_entry_has_a_contract():
    missing, left = sorted(entries().keys() - CONTRACTS.keys()), sorted(CONTRACTS.keys() - entries().keys())
    assert left == [], f"the door does not hand these on: remove them from their contracts: {left}"
    assert missing == [], (
        f"write a contract for {missing}: a function in tests/_torch/contracts_of_*.py that asserts what the library "
        'relies on, under `@relied_on("name")`'
    )


def test_every_function_in_python_has_a_call():
    functions = [name for name, entry in entries().items() if inspect.isfunction(entry)]
    missing = sorted(set(functions) - CALLS.keys())
    assert missing == [], f'write `called("name", …)` in tests/_torch, as the library calls them: {missing}'


def test_light_modes_have_the_attributes_of_torchs():
    light, full = LightFakeMode(), FakeTensorMode(allow_non_fake_inputs=True, static_shapes=True)
    for name, value in vars(full).items():
        found = getattr(light, name)
        assert type(found) is type(value), name
        assert found == value or not isinstance(value, bool), name
    light, full = LightProxyMode(PythonKeyTracer(), {}), ProxyTorchDispatchMode(PythonKeyTracer(), "fake")
    for name, value in vars(full).items():
        assert type(getattr(light, name)) is type(value), name
        assert getattr(light, name) == value or not isinstance(value, bool | str), name
