"""What a user of torch.func or JAX expects: the same calls work, or the error says what to write instead."""

import inspect
import re

import pytest
import torch

import torchpure as tp
from torchpure import _missing_names
from torchpure.errors import ParameterError, StructureError, TransformError

X = torch.tensor([1.0, 2.0, -0.5])
XS = torch.arange(6.0).reshape(2, 3)
BOTH = ("grad", "hessian", "jacfwd", "jacrev", "jvp", "linearize", "vjp", "vmap")


def drop(x):
    return torch.nn.functional.dropout(x, 0.5)


FAULTS = {  # a call of either library; ours must raise what a user of torch.func catches
    "not a scalar": lambda lib: lib.grad(torch.sin)(X),
    "argnums twice": lambda lib: lib.grad(lambda x, y: x.sum(), argnums=(0, 0))(X, X),
    "argnums too large": lambda lib: lib.grad(torch.sum, argnums=1)(X),
    "no aux": lambda lib: lib.grad(torch.sum, has_aux=True)(X),
    "aux of three": lambda lib: lib.vjp(lambda x: (x, x, x), X, has_aux=True),
    "primals no tuple": lambda lib: lib.jvp(torch.sin, X, (X,)),
    "tangents of another shape": lambda lib: lib.jvp(torch.sin, (X,), (X[:2],)),
    "tangents of another structure": lambda lib: lib.jvp(lambda p: p["a"], ({"a": X},), ({"b": X},)),
    "tangents of another number": lambda lib: lib.jvp(torch.sin, (X,), (X, X)),
    "a number as a result": lambda lib: lib.jvp(lambda x: 3.0, (X,), (X,)),
    "independent, strict": lambda lib: lib.jvp(lambda x: X * 2, (X,), (X,), strict=True),
    "cotangent of another structure": lambda lib: lib.vjp(lambda x: (x, x), X)[1](X),
    "Jacobian of a number": lambda lib: lib.jacrev(lambda x: 3.0)(X),
    "chunk of none": lambda lib: lib.jacrev(torch.sin, chunk_size=0)(X),
    "members of none": lambda lib: lib.vmap(torch.sin, chunk_size=0)(X),
    "sizes differ": lambda lib: lib.vmap(torch.mul)(X, X[:2]),
    "no inputs": lambda lib: lib.vmap(lambda: X)(),
    "no tensors": lambda lib: lib.vmap(lambda x: x)(1.0),
    "too many in_dims": lambda lib: lib.vmap(torch.sin, in_dims=(0, 0))(X),
    "in_dims out of range": lambda lib: lib.vmap(torch.sin, in_dims=1)(X),
    "in_dims of text": lambda lib: lib.vmap(torch.sin, in_dims="0")(X),
    "out_dims of another structure": lambda lib: lib.vmap(lambda x: (x, x), out_dims=(0, 0, 0))(X),
    "out_dims of text": lambda lib: lib.vmap(torch.sin, out_dims="0")(X),
    "result is a number": lambda lib: lib.vmap(lambda x: 3)(X),
    "mapped result for all": lambda lib: lib.vmap(torch.sin, out_dims=None)(X),
    "item": lambda lib: lib.vmap(lambda x: x.item() * x)(X),
    "branch": lambda lib: lib.vmap(lambda x: x if x > 0 else -x)(X),
    "writes a shared tensor": lambda lib: lib.vmap(lambda x, y: x.add_(y), in_dims=(None, 0))(torch.zeros(3), XS),
    "dynamic shape": lambda lib: lib.vmap(torch.nonzero)(XS),
    "draws": lambda lib: lib.vmap(drop)(XS),
    "draws in a Jacobian": lambda lib: lib.jacfwd(drop)(X),
    "mutates a captured tensor": lambda lib: lib.grad(lambda x: torch.zeros(3).add_(CAPTURED.mul_(x)).sum())(X),
}
CAPTURED = torch.ones(3)


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_raises_the_type_that_torch_func_raises(name):
    with pytest.raises((ValueError, RuntimeError)) as theirs:
        FAULTS[name](torch.func)
    with pytest.raises(type(theirs.value)) as ours:
        FAULTS[name](tp)
    assert isinstance(ours.value, tp.errors.TorchpureError) and "\n" not in str(ours.value)


def test_errors_of_structure_and_of_transforms_are_value_errors_and_runtime_errors():
    for kind in (StructureError, ParameterError, TransformError):
        assert issubclass(kind, ValueError) and issubclass(kind, RuntimeError)


@pytest.mark.parametrize("name", BOTH)
def test_each_parameter_of_torch_func_exists_or_has_a_hint(name):
    ours, theirs = (inspect.signature(getattr(lib, name)).parameters for lib in (tp, torch.func))
    for word in set(theirs) - set(ours):
        if word.startswith("_"):
            continue
        with pytest.raises(TypeError, match=f"^{name}: there is no argument `{word}`: .") as caught:
            getattr(tp, name)(torch.sin, **{word: None})
        assert "\n" not in str(caught.value)


HINTS = {
    "vmap in_axes": (lambda: tp.vmap(torch.sin, in_axes=0), "write in_dims"),
    "vmap out_axes": (lambda: tp.vmap(torch.sin, out_axes=0), "write out_dims"),
    "vmap randomness": (lambda: tp.vmap(torch.sin, randomness="same"), r"random.split\(key, n\).*in_dims=None"),
    "jacfwd randomness": (lambda: tp.jacfwd(torch.sin, randomness="same"), "leave it out.*a key that is an argument"),
    "grad holomorphic": (lambda: tp.grad(torch.sin, holomorphic=True), "use jvp, vjp or torch.view_as_real"),
    "value_and_grad fun": (lambda: tp.value_and_grad(fun=torch.sin), "pass the function by position"),
    "jit static_argnums": (lambda: tp.jit(torch.sin, static_argnums=0), "write static"),
    "jit donate_argnums": (lambda: tp.jit(torch.sin, donate_argnums=0), "write donate"),
    "jit fullgraph": (lambda: tp.jit(torch.sin, fullgraph=True), "leave it out"),
    "remat prevent_cse": (lambda: tp.remat(torch.sin, prevent_cse=False), "leave it out"),
}


@pytest.mark.parametrize("name", HINTS)
def test_a_keyword_of_another_library_is_answered(name):
    call, message = HINTS[name]
    function, word = name.split()
    with pytest.raises(TypeError, match=f"^{function}: there is no argument `{word}`: .*{message}"):
        call()


def test_an_unknown_keyword_is_pythons_error_and_signatures_stay():
    with pytest.raises(TypeError, match=r"vmap\(\) got an unexpected keyword argument 'dims'"):
        tp.vmap(torch.sin, dims=0)
    assert list(inspect.signature(tp.grad).parameters) == ["fn", "argnums", "has_aux"]


REMEDIES = {
    "grad_and_value": "use tp.value_and_grad, which returns (value, grads)",
    "functional_call": "use net = tp.functional(module), then net(params, *inputs)",
    "stack_module_state": "use tp.ensemble, or tp.stack([net.params for net in nets])",
    "make_fx": "use tp.make_graph(fn)(*args)",
    "make_jaxpr": "use tp.make_graph(fn)(*args)",
    "checkpoint": "use tp.remat",
    "lax": "its functions are here: tp.scan, tp.cond, tp.switch, tp.while_loop, tp.fori_loop, tp.map, tp.psum",
    "tree_map": "use tp.tree.map",
    "split": "use tp.random.split",
    "Adam": "use tp.optim.adam",
    "apply_updates": "use tp.optim.apply_updates",
}


@pytest.mark.parametrize("name", REMEDIES)
def test_a_missing_name_says_what_to_use(name):
    with pytest.raises(AttributeError) as caught:
        getattr(tp, name)
    assert str(caught.value) == f"module 'torchpure' has no attribute '{name}': {REMEDIES[name]}"
    assert not hasattr(tp, name) and name not in dir(tp)


def test_each_name_of_torch_func_exists_or_has_a_remedy():
    for name in set(torch.func.__all__) - set(tp.__all__):
        with pytest.raises(AttributeError, match=f"has no attribute '{name}': use "):
            getattr(tp, name)


def test_each_remedy_names_what_exists():
    paths = re.findall(r"\btp\.[a-z_.]+[a-z]", " ".join(_missing_names._REMEDIES.values()))
    missing = []
    for path in paths:
        value = tp
        for part in path.split(".")[1:]:
            value = getattr(value, part, None)
        missing += [path] if value is None else []
    assert paths and not missing


def test_the_remedies_compute_what_the_names_compute():
    theirs = torch.func.grad_and_value(lambda x: (x**3).sum())(X)
    torch.testing.assert_close(tp.value_and_grad(lambda x: (x**3).sum())(X), theirs[::-1])
    hvp = torch.autograd.functional.hvp(lambda x: (x**3).sum(), X, XS[1])[1]
    torch.testing.assert_close(tp.jvp(tp.grad(lambda x: (x**3).sum()), (X,), (XS[1],))[1], hvp)
    torch.testing.assert_close(tp.vjp(tp.grad(lambda x: (x**3).sum()), X)[1](XS[1])[0], hvp)
    modules = [torch.nn.Linear(3, 2) for _ in range(4)]
    stacked = tp.stack([tp.functional(module).params for module in modules])
    torch.testing.assert_close(stacked, dict(torch.func.stack_module_state(modules)[0]))


def test_strict_names_the_result_that_does_not_depend_on_the_primals():
    assert torch.equal(tp.jvp(lambda x: {"a": x * 0}, (X,), (X,), strict=True)[1]["a"], 0 * X)
    with pytest.raises(TransformError, match="jvp: the result of `f` .* at `b` does not depend on the primals"):

        def f(x):
            return {"a": x, "b": X + 1}

        tp.jvp(f, (X,), (X,), strict=True)
    with pytest.raises(TransformError, match="does not depend"):  # it depends on the outer primals alone
        tp.jvp(lambda y: tp.jvp(lambda x: y * 2, (X,), (X,), strict=True)[1], (X,), (X,))
    assert torch.equal(tp.jvp(lambda x: X + 1, (X,), (X,))[1], 0 * X)


DRAWS = {
    "vmap": (lambda: tp.vmap(drop)(XS), r"vmap: `drop` .* Give each member a key: vmap\(fn\)\(random.split\(key, n\)"),
    "jacfwd": (lambda: tp.jacfwd(drop)(X), r"Give it a key as the last argument: jacfwd\(fn\)\(x, key\)"),
    "hessian": (lambda: tp.hessian(lambda x: drop(x**2).sum())(X), r"as the last argument: hessian\(fn\)\(x, key\)"),
    "grad in jacfwd": (lambda: tp.jacfwd(tp.grad(lambda x: drop(x**2).sum()))(X), "Give it a key as an argument"),
}


@pytest.mark.parametrize("name", DRAWS)
def test_the_remedy_for_a_draw_fits_the_transform(name):
    call, message = DRAWS[name]
    with pytest.raises(TransformError, match=message):
        call()


def test_the_remedies_for_draws_work():
    def noisy(x, key):
        return (x * tp.random.normal(key, x.shape)) ** 2

    key = tp.random.key(0)
    noise = tp.random.normal(key, X.shape)
    torch.testing.assert_close(tp.jacfwd(noisy)(X, key), torch.diag(2 * X * noise**2))
    torch.testing.assert_close(tp.hessian(lambda x, key: noisy(x, key).sum())(X, key), torch.diag(2 * noise**2))
    members = tp.vmap(noisy)(XS, tp.random.split(key, 2))
    torch.testing.assert_close(members[1], noisy(XS[1], tp.random.split(key, 2)[1]))
