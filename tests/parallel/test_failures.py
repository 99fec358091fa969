"""What goes wrong on one process is an error on every process, which names rank and cause, and none hangs."""

import re

import pytest
import torch
from parallel_cases import W, X

pytestmark = pytest.mark.dist
LAST = "(the last rank)"  # in a pattern
AGREE = {  # a failure -> what every process raises
    "shape": rf"MeshError: psum of .* over axis 'data': the processes disagree.*rank {LAST} runs psum of float64\[1, 4\]",
    "dtype": f"MeshError: psum of .*: the processes disagree.*rank {LAST} runs psum of float32",
    "kind": f"MeshError: .*disagree.*rank 0 runs psum of .*rank {LAST} runs all_gather of",
    "large": "MeshError: psum of float64.*: the processes disagree",
    "shape after many": rf"MeshError: psum of .*: the processes disagree.*rank {LAST} runs psum of float64\[1, 4\]",
    "large after many": "MeshError: psum of float64.*: the processes disagree",
    "one more": f"MeshError: .*disagree.*rank 0 runs end of shard_map of .*rank {LAST} runs psum",
    "a branch": f"MeshError: .*disagree.*rank 0 runs end of shard_map of .*rank {LAST} runs psum",
    "function": f"MeshError: .*disagree.*rank 0 runs shard_map of `sin`.*rank {LAST} runs shard_map of `cos`",
    "seed": f"MeshError: .*argument 0 differs between processes.*along axis 'data': rank {LAST} has other values than rank 0",
    "seed of a tree": f"MeshError: .*the tensor at `x` differs between processes.*rank {LAST} has other values than rank 0",
    "result": "MeshError: end of shard_map .*: the result differs between processes.*combine it with psum or pmean",
    "size": r"TransformError: make_mesh: the mesh \(data=3, model=5\) does not fit the . processes of the program",
    "axis": r"TransformError: psum: there is no axis 'model' here \(axes: 'data'\)",
    "axis of members": r"TransformError: psum: there is no axis 'data' here",
    "split by the axis of members": r"TransformError: vmap: spmd_axis_name='data' splits the members, and P\('data'\) of shard_map",
    "writes": "ImpureError: shard_map: .*changes",
    "pmap": "TransformError: pmap: `sin` has 7 members, and the program has . processes",
}
ONE_FAILS = {  # a failure of the last process -> what it raises, and what the others raise
    "raises": ("ValueError: this data file", f"MeshError: .*rank {LAST}: ValueError: this data file is damaged"),
    "raises after many": ("ValueError: this data file", f"MeshError: .*rank {LAST}: ValueError: this data file"),
    "raises at the end": ("ValueError: this data file", f"MeshError: .*rank {LAST}: ValueError: this data file"),
    "specs": (
        "TransformError: .*too few dimensions",
        f"MeshError: .*rank {LAST}: TransformError: shard_map: P.'data'.*",
    ),
}


def raised(pool, answers, patterns):
    for (kind, text), pattern in zip(answers, patterns, strict=True):
        assert kind == "raised", (kind, text)
        assert re.search(pattern.replace(LAST, str(len(pool.processes) - 1)), text), text


def works_again(pool):
    for found in pool.results("replicated"):
        torch.testing.assert_close(found["outside"], 2 * X.T @ (X @ W) / 16, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", AGREE)
def test_every_process_raises_the_same(pool, name):
    raised(pool, pool.run("fails", name), [AGREE[name]] * len(pool.processes))
    works_again(pool)


@pytest.mark.parametrize("name", ONE_FAILS)
def test_the_others_hear_of_a_process_that_fails(pool, name):
    own, of_others = ONE_FAILS[name]
    raised(pool, pool.run("fails", name), [of_others] * (len(pool.processes) - 1) + [own])
    works_again(pool)


@pytest.mark.compile
@pytest.mark.parametrize("name", ["in a program", "program"])
def test_programs_that_disagree(pool, name):
    raised(pool, pool.run("fails", name), ["MeshError: psum of .* the processes disagree"] * len(pool.processes))
    works_again(pool)


@pytest.mark.compile
def test_the_others_hear_of_a_process_that_fails_while_it_traces(pool):
    others = f"MeshError: psum of .*rank {LAST}: ValueError: this data file is damaged"
    answers = pool.run("fails", "raises in a program")
    raised(pool, answers, [others] * (len(pool.processes) - 1) + ["ValueError: this data file"])
    works_again(pool)


def test_a_process_that_ends(own_pool):
    *others, (kind, _) = own_pool.run("fails", "dies")
    assert kind == "ended"
    raised(own_pool, others, ["MeshError: psum of .* rank.* 2 did not come in time: it has ended"] * 2)


def test_a_process_that_comes_too_late(own_pool):
    answers = own_pool.run("fails", "late")
    raised(own_pool, answers[:2], ["MeshError: psum of .* rank.* 2 did not come in time"] * 2)
    raised(own_pool, answers[2:], ["MeshError: psum of .* failed on rank 2"])
