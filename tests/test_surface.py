"""The public names of `import torchpure as tp`, and the rules of their signatures."""

import inspect
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import torchpure as tp

SURFACE = {
    "Functional", "Graph", "ShapeDtype", "all_gather", "all_to_all", "associative_scan", "axis_index", "axis_size", "check", "checkpoints", "cond", "custom_jvp",
    "custom_vjp", "custom_vmap", "debug", "ensemble", "errors", "eval_shape", "fit", "fori_loop", "functional", "grad",
    "hessian", "jit", "jacfwd", "jacrev", "jvp", "linear_transpose", "linearize", "make_functional_fwd", "make_graph", "map", "merge",
    "model", "named_scope", "optim", "partition", "pmax", "pmean", "pmin", "ppermute", "psum", "psum_scatter", "pure", "random", "ravel_pytree", "remat",
    "remat_name", "restore", "save", "scan", "show_versions", "stack", "stop_gradient", "sweep", "switch", "train", "transforms", "tree", "unstack", "value_and_grad", "vjp",
    "vmap", "where", "while_loop", "operators", "advection", "bilaplacian", "curl", "directional", "divergence", "hessian_diagonal", "jacobian_diagonal", "jet", "laplacian", "partial", "partials", "strain", "custom_fixed_point", "custom_root", "estimators", "implicit",
}  # fmt: skip


def test_the_public_names_are_those_listed_here():
    assert {name for name in vars(tp) if not name.startswith("_")} - {
        "cli",
        "compat",
        "data",
        "parallel",
        "runs",
        "testing",
    } == SURFACE


def test_the_build_reads_the_version_from_the_package():
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
    assert project["project"]["dynamic"] == ["version"]
    assert project["tool"]["hatch"]["version"]["path"] == "torchpure/__init__.py"
    assert tp.__version__.count(".") == 2


def test_testing_is_imported_when_it_is_first_asked_for():
    lines = [
        "import sys, torchpure as tp",
        "assert 'torchpure.testing' not in sys.modules and 'testing' in dir(tp)",
        "tp.testing.check_optimizer",
        "assert tp.testing is sys.modules['torchpure.testing']",
    ]
    subprocess.run([sys.executable, "-c", "\n".join(lines)], check=True, timeout=120)
    with pytest.raises(AttributeError, match="module 'torchpure' has no attribute 'optimizers'"):
        _ = tp.optimizers


def test_what_reads_runs_is_imported_when_it_is_first_asked_for():
    lines = [
        "import sys, torchpure as tp",
        "assert 'torchpure.runs' not in sys.modules and {'load_run', 'report', 'runs'} <= {*dir(tp)}",
        "assert tp.load_run is tp.runs.load_run and tp.report is tp.runs.report",
    ]
    subprocess.run([sys.executable, "-c", "\n".join(lines)], check=True, timeout=120)


def test_argument_order_follows_the_rules():
    for make in (tp.optim.sgd, tp.optim.adam, tp.optim.adamw):
        optimizer = make(0.1)
        assert list(inspect.signature(optimizer.init).parameters) == ["params"]
        for method in (optimizer.update, optimizer.step):
            assert list(inspect.signature(method).parameters) == ["grads", "state", "params", "extra"]
        assert list(inspect.signature(optimizer.rule).parameters) == ["grads", "state", "params"]
        first, *rest = inspect.signature(make).parameters.values()
        assert first.name == "learning_rate" and all(parameter.kind is parameter.KEYWORD_ONLY for parameter in rest)


def test_every_public_function_has_a_docstring_with_an_example_or_a_law():
    undocumented = [
        f"{space.__name__}.{name}"
        for space in (tp, tp.tree, tp.random, tp.optim, tp.train, tp.transforms, tp.checkpoints, tp.operators)
        for name, value in vars(space).items()
        if inspect.isfunction(value) and not name.startswith("_") and not inspect.getdoc(value)
    ]
    assert undocumented == []
