"""The costs of collectives on paper are those of their messages, and constants are found again."""

import pytest

from benchmarks import simulator as on
from benchmarks.simulator import Cost, Link

LINK = Link(3e-6, 2e-9, 5e-10)
RANKS = (1, 2, 3, 4, 7, 8, 16, 33)
PARTS = {  # collective -> closed form of tensors of so many bytes, and blocks of a tensor
    "reduce_scatter": (on.reduce_scatter, lambda ranks: ranks),
    "all_gather": (lambda size, ranks: on.all_gather(size / ranks, ranks), lambda ranks: ranks),
    "ring_all_reduce": (on.ring_all_reduce, lambda ranks: ranks),
    "tree_all_reduce": (on.tree_all_reduce, lambda ranks: ranks),
    "broadcast": (on.broadcast, lambda ranks: ranks),
    "all_to_all": (on.all_to_all, lambda ranks: ranks),
}


def start(name, ranks):
    """What each process has at first."""
    if name == "all_gather":
        return [{rank: frozenset({rank})} for rank in range(ranks)]
    if name == "broadcast":
        return [{block: frozenset({0}) for block in range(ranks)}] + [{} for _ in range(ranks - 1)]
    if name == "all_to_all":
        return [{rank * ranks + other: frozenset({rank}) for other in range(ranks)} for rank in range(ranks)]
    return [{block: frozenset({rank}) for block in range(ranks)} for rank in range(ranks)]


def wanted(name, ranks, rank):
    """What a process must have at the end."""
    everyone = frozenset(range(ranks))
    return {
        "reduce_scatter": {rank: everyone},
        "all_gather": {block: frozenset({block}) for block in range(ranks)},
        "broadcast": {block: frozenset({0}) for block in range(ranks)},
        "all_to_all": {other * ranks + rank: frozenset({other}) for other in range(ranks)},
    }.get(name, dict.fromkeys(range(ranks), everyone))


@pytest.mark.parametrize("ranks", RANKS)
@pytest.mark.parametrize("name", PARTS)
def test_messages_bring_what_the_collective_promises(name, ranks):
    ended = on.deliver(on.SCHEDULES[name](ranks), start(name, ranks))
    for rank, holding in enumerate(ended):
        promised = wanted(name, ranks, rank)
        assert {block: holding[block] for block in promised} == promised


@pytest.mark.parametrize("ranks", RANKS)
@pytest.mark.parametrize("name", PARTS)
def test_law_a_closed_form_is_the_time_of_its_messages(name, ranks):
    form, blocks = PARTS[name]
    size = 3.0 * 2**20
    ended = on.finish(on.SCHEDULES[name](ranks), size / blocks(ranks), LINK, [0.0] * ranks)
    assert max(ended) == pytest.approx(on.seconds(form(size, ranks), LINK), rel=1e-12)


@pytest.mark.parametrize("name", PARTS)
def test_a_late_process_delays_a_collective_by_no_more_than_its_delay(name):
    rounds = on.SCHEDULES[name](8)
    together = max(on.finish(rounds, 2**17, LINK, [0.0] * 8))
    late = max(on.finish(rounds, 2**17, LINK, [0.0] * 3 + [0.01] + [0.0] * 4))
    assert together < late <= together + 0.01 + 1e-12


@pytest.mark.parametrize("cost", [*(form for form, _ in PARTS.values()), *on.OURS.values(), *on.TORCHS.values()])
def test_law_costs_grow_with_the_size(cost):
    for ranks in RANKS:
        times = [on.seconds(cost(2.0**power, ranks), LINK) for power in range(4, 31)]
        assert times == sorted(times)


def test_law_a_ring_costs_its_two_halves():
    for ranks in RANKS:
        halves = on.together(on.reduce_scatter(1e6, ranks), on.all_gather(1e6 / ranks, ranks))
        assert on.ring_all_reduce(1e6, ranks) == halves


def test_a_tree_wins_for_small_tensors_and_a_ring_for_large_ones():
    small, large = ([on.seconds(f(s, 64), LINK) for f in (on.tree_all_reduce, on.ring_all_reduce)] for s in (1e3, 1e9))
    assert small[0] < small[1] and large[0] > large[1]


WRONG = {  # rounds -> message
    "sends block 1, which it has not": [[on.Message(0, 1, (1,), adds=True)]],
    r"the parts of \[0\] come to process 1 twice": [[on.Message(0, 1, (0,), adds=True)]] * 2,
}


@pytest.mark.parametrize("message", WRONG)
def test_a_wrong_schedule_is_found(message):
    with pytest.raises(ValueError, match=message):
        on.deliver(WRONG[message], [{0: frozenset({0})}, {0: frozenset({1})}])


# --- two levels ---

FAST, SLOW = Link(1e-6, 1e-12), Link(1e-5, 1e-11)
GPU = on.Gpu(flops=1e14, peak_flops=2e14, memory=8e10, memory_per_second=3e12)
CLUSTER = on.Cluster(GPU, 8, FAST, SLOW)


@pytest.mark.parametrize("form", [on.all_reduce_seconds, on.all_gather_seconds, on.reduce_scatter_seconds])
def test_one_node_and_nodes_of_one_gpu_are_plain_rings(form):
    plain = {
        on.all_reduce_seconds: on.ring_all_reduce,
        on.all_gather_seconds: lambda size, ranks: on.all_gather(size / ranks, ranks),
        on.reduce_scatter_seconds: on.reduce_scatter,
    }[form]
    for spread, link in ((on.Spread(8, 1), FAST), (on.Spread(1, 16), SLOW)):
        assert form(1e9, spread, CLUSTER) == pytest.approx(on.seconds(plain(1e9, spread.ranks), link), rel=1e-12)


def test_law_slow_links_carry_the_part_of_one_gpu():
    only_slow = CLUSTER._replace(inside=Link(0, 0))
    got = on.reduce_scatter_seconds(8e9, on.Spread(8, 4), only_slow)
    assert got == pytest.approx(on.seconds(on.reduce_scatter(1e9, 4), SLOW), rel=1e-12)


# --- the fit ---


def test_constants_of_exact_measurements_are_found_again():
    costs = [form(2.0**power, 4) for form in on.TORCHS.values() for power in (8, 14, 20)]
    rows = [[*cost, 1.0] for cost in costs]
    values = [on.seconds(cost, LINK) + 7e-5 for cost in costs]
    assert on.fit_nonnegative(rows, values) == pytest.approx([*LINK, 7e-5], rel=1e-6)


def test_no_constant_is_negative():
    assert on.fit_nonnegative([[1.0, 1.0], [1.0, 2.0], [1.0, 3.0]], [3.0, 2.0, 1.0])[1] == 0.0
    assert on.fit_nonnegative([[0.0, 2.0], [0.0, 4.0]], [1.0, 2.0]) == pytest.approx([0.0, 0.5])


@pytest.mark.parametrize("rows, values", [([[1.0, 2.0]], [1.0]), ([[1.0]], [0.0]), ([], []), ([[1.0]], [1.0, 2.0])])
def test_a_fit_refuses_what_it_cannot_fit(rows, values):
    with pytest.raises(ValueError, match="fit_nonnegative: wanted at least as many rows as constants"):
        on.fit_nonnegative(rows, values)


def test_the_sizes_of_a_round_are_those_of_the_library():
    from torchpure.parallel.messages import _rounds

    ours = (on.HEADER, on.MAX_ROOM, on.ROOM_OF_GROUP)
    assert ours == (_rounds._HEADER, _rounds._MAX_ROOM, _rounds._ROOM_OF_GROUP)
    assert on.agreement(4) == Cost(3, 3 * (256 + 4096)) and on.agreement(1024) == Cost(1023, 1023 * (256 + 64))
