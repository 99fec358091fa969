"""Law: `shard_map(f, mesh, P("i"), P("i"))` on processes is `vmap(f, axis_name="i")` in one, in any stack."""

import pytest
from parallel_cases import COMPILED, FUNCTIONS, STACKS, over_members, run_stacks
from pool import Pool
from torch.testing import assert_close

pytestmark = pytest.mark.dist


@pytest.fixture(scope="module", params=[2, 4])
def pool(request, tmp_path_factory):
    pool = Pool(request.param, tmp_path_factory.mktemp("processes"))
    yield pool
    pool.close()


def check(pool, case, function, stacks):
    wanted = run_stacks(over_members, function, stacks, len(pool.processes))
    for result in pool.results(case, function, list(stacks)):
        for stack in stacks:
            assert_close(result[stack], wanted[stack], rtol=1e-12, atol=1e-13, msg=lambda text, s=stack: f"{s}: {text}")


@pytest.mark.parametrize("function", FUNCTIONS)
def test_law_processes_are_members_of_a_vmap(pool, function):
    check(pool, "stacked", function, STACKS)


@pytest.mark.parametrize("function", ["psum", "ring", "tree"])
def test_law_pmap_is_vmap(pool, function):
    check(pool, "pmapped", function, ["", "grad(map)", "map(grad)", "jvp(map)", "vmap(map)"])
