"""Law: `shard_map(f, mesh, P("i"), P("i"))` on processes is `vmap(f, axis_name="i")` in one, in any stack."""

import pytest
from daily import daily, proof
from parallel_cases import COMPILED, FUNCTIONS, STACKS, over_members, run_stacks
from torch.testing import assert_close

pytestmark = pytest.mark.dist
FEW = ["", "grad(map)", "map(grad)"]


def check(pool, case, function, stacks):
    wanted = run_stacks(over_members, function, stacks, len(pool.processes))
    for result in pool.results(case, function, list(stacks)):
        for stack in stacks:
            assert_close(result[stack], wanted[stack], rtol=1e-12, atol=1e-13, msg=lambda text, s=stack: f"{s}: {text}")


@pytest.mark.parametrize("function", FUNCTIONS)
def test_law_processes_are_members_of_a_vmap(pool, function):
    check(pool, "stacked", function, FEW)


@pytest.mark.parametrize("function", daily(FUNCTIONS, 5))
def test_law_processes_are_members_of_a_vmap_in_all_stacks(pool, function):
    check(pool, "stacked", function, STACKS)


def test_law_a_repeated_collective_gives_the_same(pool):
    assert [list(map(all, found)) for found in pool.results("repeated")] == [[True] * 2] * len(pool.processes)


@pytest.mark.parametrize("function", ["psum", "ring", "tree"])
def test_law_pmap_is_vmap(pool, function):
    check(pool, "pmapped", function, ["", "grad(map)", "map(grad)", "jvp(map)", "vmap(map)"])


@pytest.mark.compile
@pytest.mark.parametrize("function", [proof("psum"), "scan"])
def test_programs_keep_collectives(pool, function):
    check(pool, "stacked", function, COMPILED)
