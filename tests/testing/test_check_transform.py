"""Every transform of the table against every law of transforms, and wrong transforms against the law that they break."""

import inspect
from functools import wraps

import pytest
import torch
from cases_functions import FUNCTIONS, SKIPPED, X, product

import torchpure as tp
from torchpure import testing

CUSTOM = {"custom_jvp", "custom_vjp", "custom_vmap"}  # classes, whose instances are the transformed functions


@pytest.mark.parametrize(
    ("law", "name"),
    [(law, name) for law in testing.TRANSFORM_LAWS for name in FUNCTIONS if law not in SKIPPED.get(name, ())],
)
def test_law(law, name):
    testing.TRANSFORM_LAWS[law](FUNCTIONS[name])


def test_every_transform_has_a_case():
    """A transform takes `fn` first, and returns a function with its arguments."""
    found = CUSTOM | {
        name
        for name, value in [*vars(tp.transforms).items(), ("jit", tp.jit)]
        if inspect.isfunction(value)
        and next(iter(inspect.signature(value).parameters), "") == "fn"
        and str(inspect.signature(value).return_annotation).startswith(
            ("collections.abc.Callable[~P", "torchpure.jit._jit.Jitted")
        )
    }
    assert {"grad", "vmap", "jit"} <= found
    missing = found - {key.split(",")[0] for key in FUNCTIONS}
    assert not missing, (
        f"transforms without a case: {sorted(missing)}. Every transform has a case: add a line "
        '`"name": TransformCase(transform=tp.name, fn=…, inputs=…, reference=…),` to FUNCTIONS in '
        "tests/cases_functions.py; see docs/adding.md"
    )


def identity(fn):
    @wraps(fn)
    def wrapped(*args):
        return fn(*args)

    return wrapped


def mutating(fn):
    @wraps(fn)
    def wrapped(x):
        out = fn(x)
        x.mul_(2)
        return out

    return wrapped


def counting(fn):
    """Depend on how often it was called."""
    calls = []

    @wraps(fn)
    def wrapped(x):
        calls.append(None)
        return fn(x) * len(calls)

    return wrapped


def wrong(fn):
    @wraps(fn)
    def wrapped(x):
        return fn(x) * 1.001

    return wrapped


def nameless(fn):
    return lambda x: fn(x)


def forgets_its_signature(fn):
    def wrapped(*args):
        return fn(*args)

    wrapped.__name__ = fn.__name__
    return wrapped


def wrong_under_vmap(fn):
    made = tp.custom_vmap(fn)
    made.def_vmap(lambda size, batched, x: (fn(x) + (x - x[:1]), True))  # members depend on the first
    return made


def wrong_derivative(fn):
    made = tp.custom_jvp(fn)
    made.defjvp(lambda primals, tangents: (fn(*primals), 2 * tp.jvp(fn, primals, tangents)[1]))
    return made


def wrong_when_traced(fn):
    @wraps(fn)
    def wrapped(x):
        return fn(x) * (1 if type(x) is torch.Tensor else 2)  # a tracer's tensors have a type of their own

    return wrapped


def doubles_when_nested(fn):
    """Leave a mark on what it returns, and do something else where it finds that mark."""

    @wraps(fn)
    def wrapped(x):
        return fn(x) * (2 if hasattr(fn, "marked") else 1)

    wrapped.marked = True
    return wrapped


def lazy(fn):
    """Check its argument too late."""

    @wraps(fn)
    def wrapped(x):
        out = fn(x)
        if x.ndim != 1:
            raise ValueError("lazy: wanted a vector")
        return out

    return wrapped


BROKEN = {
    "mutates": (mutating, "inputs_are_unchanged", "the input at `0` was changed: a float64 tensor"),
    "counts its calls": (counting, "inputs_are_unchanged", "called twice: "),
    "is wrong": (wrong, "result_is_the_references", "Tensor-likes are not close"),
    "loses the name": (nameless, "name_and_signature_stay", "`__name__` became '<lambda>', wanted 'product'"),
    "loses the signature": (forgets_its_signature, "name_and_signature_stay", r"the signature became \(\*args\)"),
    "is wrong under vmap": (wrong_under_vmap, "batched_equals_looped", "member 1 of vmap: "),
    "has a wrong derivative": (wrong_derivative, "derivatives_are_the_references", "^grad: "),
    "is wrong when traced": (wrong_when_traced, "compiled_equals_eager", "jit of the transformed function: "),
    "does not nest": (doubles_when_nested, "nests_with_itself", "the transform applied twice: "),
    "takes what is no function": (identity, "bad_arguments_raise_first", "None was accepted in place of a function"),
    "checks too late": (lazy, "bad_arguments_raise_first", "`fn` was called before bad inputs were refused"),
    "does not check": (wrong, "bad_arguments_raise_first", "bad inputs were accepted"),
}


def _refusing_none(transform):
    def checked(fn):
        if not callable(fn):
            raise TypeError("wanted a function")
        return transform(fn)

    return checked


@pytest.mark.parametrize("name", BROKEN)
def test_a_wrong_transform_is_caught(name):
    transform, law, message = BROKEN[name]
    transform = transform if "no function" in name else _refusing_none(transform)
    bad = [(X[None],)] if law == "bad_arguments_raise_first" else []
    case = testing.TransformCase(
        transform=transform, fn=product, inputs=(X,), reference=lambda x: x * x * x.cos(), bad=bad
    )
    with pytest.raises(AssertionError, match=message):
        testing.TRANSFORM_LAWS[law](case)
    with pytest.raises(AssertionError):
        testing.check_transform(transform, product, (X,), case.reference, bad=bad)


def test_laws_can_be_skipped_by_name():
    transform = _refusing_none(nameless)
    testing.check_transform(transform, product, (X,), product, skip=["name_and_signature_stay"])
