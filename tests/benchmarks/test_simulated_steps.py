"""The step of a transformer on paper: memory adds up, overlap stays between its bounds, and placements are consistent."""

from itertools import product

import pytest
import torch
from torch import nn

from benchmarks import simulator as on
from benchmarks.simulator import Link, Placement, Spread, Work, _step

MODEL = on.Transformer("small", layers=4, width=64, vocabulary=1001, sequence=128)
GPU = on.Gpu(flops=1e12, peak_flops=2e12, memory=1e9, memory_per_second=1e12)
CLUSTER = on.Cluster(GPU, 8, Link(1e-6, 1e-11), Link(1e-5, 1e-10))
FREE = CLUSTER._replace(inside=Link(0, 0), between=Link(0, 0))
PLACEMENTS = [
    Placement(data, tensor, zero, remat)
    for data, tensor, zero, remat in product((1, 2, 16, 64), (1, 2, 8), (0, 1, 2, 3), (False, True))
]


def test_parameters_are_those_of_a_module():
    block = nn.TransformerEncoderLayer(MODEL.width, 4, 4 * MODEL.width, bias=False)
    matrices = sum(leaf.numel() for name, leaf in block.named_parameters() if "norm" not in name and "bias" not in name)
    assert on.layer_parameters(MODEL) == matrices
    assert on.parameters(MODEL) == 4 * matrices + 1001 * 64


def test_operations_of_matrices_are_counted_as_torch_counts_them():
    from torch.utils.flop_counter import FlopCounterMode

    width, tokens = MODEL.width, torch.ones(MODEL.sequence, MODEL.width)
    with FlopCounterMode(display=False) as counter:
        for rows, columns in [(width, 3 * width), (width, width), (width, 4 * width)]:
            tokens[:, :1].expand(-1, rows) @ torch.ones(rows, columns)
        torch.ones(MODEL.sequence, 4 * width) @ torch.ones(4 * width, width)
        torch.ones(MODEL.sequence, width) @ torch.ones(width, MODEL.sequence)
        torch.ones(MODEL.sequence, MODEL.sequence) @ torch.ones(MODEL.sequence, width)
    future = 2 * MODEL.sequence**2 * width  # the half of both products that a causal kernel leaves out
    assert on.layer_flops(MODEL) == counter.get_total_flops() - future


@pytest.mark.parametrize("parts", [1, 2, 3, 7, 64])
def test_law_shards_sum_to_the_whole(parts):
    for count in (0, 1, 63, 64, 1000):
        shards = [on.shard_bytes(count, parts, part) for part in range(parts)]
        assert sum(shards) == count and max(shards) - min(shards) <= 1


@pytest.mark.parametrize("data, tensor", [*product((1, 2, 3, 16, 64), (1, 2, 3, 8))])
def test_law_zero_3_holds_the_whole_once(data, tensor):
    states = [on.state_bytes(MODEL, Placement(data, tensor, zero=3), rank) for rank in range(data * tensor)]
    assert sum(states) == on.state_bytes(MODEL, Placement(1), 0) == 16 * on.parameters(MODEL)


@pytest.mark.parametrize("data, tensor", [(1, 1), (4, 1), (16, 2), (64, 8)])
def test_law_each_level_of_zero_holds_no_more_than_the_one_before(data, tensor):
    held = [on.state_bytes(MODEL, Placement(data, tensor, zero), 0) for zero in range(4)]
    assert held == sorted(held, reverse=True)
    assert len({*held}) == (4 if data > 1 else 1)


def test_memory_falls_with_remat_and_with_tensor_parallelism():
    assert on.memory(MODEL, Placement(1, remat=True)) < on.memory(MODEL, Placement(1))
    assert on.memory(MODEL, Placement(1, tensor=8)) < on.memory(MODEL, Placement(1, tensor=2))


# --- streams ---

WORKS = [Work("a", 2.0), Work("b", 3.0, (0,)), Work("a", 1.0), Work("a", 1.0, (1,)), Work("b", 0.5)]


def test_streams_run_in_order_and_wait_for_each_other():
    assert on.run_streams(WORKS) == [2.0, 5.0, 3.0, 6.0, 5.5]


def test_law_streams_take_at_least_the_longest_and_at_most_the_sum():
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        lengths = torch.rand(20, generator=generator).tolist()
        picks = torch.randint(0, 3, (20,), generator=generator).tolist()
        works = [
            Work("abc"[pick], length, (n // 2,) if n > 2 else ())
            for n, (length, pick) in enumerate(zip(lengths, picks, strict=True))
        ]
        total = max(on.run_streams(works))
        of_each = [sum(work.seconds for work in works if work.stream == name) for name in "abc"]
        assert max(of_each) - 1e-12 <= total <= sum(of_each) + 1e-12


def test_a_stream_cannot_wait_for_what_comes_later():
    with pytest.raises(ValueError, match=r"work 0 waits for \[1\], which must come before it"):
        on.run_streams([Work("a", 1.0, (1,)), Work("a", 1.0)])


# --- steps ---


@pytest.mark.parametrize("placement", PLACEMENTS, ids=str)
def test_law_a_step_lies_between_perfect_overlap_and_none(placement):
    made = on.step(MODEL, placement, CLUSTER, batch=64)
    free = on.step(MODEL, placement, FREE, batch=64)
    assert made.exposed >= -1e-12 and made.seconds >= free.seconds - 1e-12
    assert free.exposed == pytest.approx(0.0, abs=1e-12) and free.tensor == 0.0
    sequences = 64 // placement.data
    passes = 4 if placement.remat else 3
    flops = sequences * MODEL.layers * (passes * on.layer_flops(MODEL)) + 3 * sequences * 2 * 1001 * 64 * 128
    assert free.compute == pytest.approx(flops / placement.tensor / GPU.flops)
    assert 0 < made.utilisation <= GPU.flops / GPU.peak_flops


@pytest.mark.parametrize("placement", PLACEMENTS, ids=str)
def test_law_from_the_third_sequence_on_each_adds_the_same_time(placement):
    for cluster in (CLUSTER, CLUSTER._replace(between=Link(1e-4, 1e-8)), CLUSTER._replace(inside=Link(1e-4, 1e-8))):
        parts = _step.parts_of(MODEL, placement, cluster)
        works = [work for number in range(9) for work in _step._sequence(MODEL, placement, parts, number == 8)]
        whole = max(on.run_streams(_step._numbered(works)))
        assert _step._both_passes(MODEL, placement, parts, 9) == pytest.approx(whole, rel=1e-12)


@pytest.mark.parametrize("zero", [0, 1, 2, 3])
def test_on_one_gpu_all_levels_are_the_same(zero):
    one = on.step(MODEL, Placement(1, zero=zero), CLUSTER, batch=4)
    assert one.seconds == pytest.approx(on.step(MODEL, Placement(1), CLUSTER, batch=4).seconds)
    assert one.exposed == pytest.approx(0.0, abs=1e-12)


def test_zero_2_and_3_exchange_the_gradients_of_each_sequence():
    """With a network that is slower than the products, what is exchanged is what counts."""
    slow = CLUSTER._replace(between=Link(0, 1e-7))
    times = {zero: on.step(MODEL, Placement(16, zero=zero), slow, batch=64).seconds for zero in range(4)}
    assert times[1] == pytest.approx(times[0], rel=0.3) and times[0] < times[2] < times[3]


def test_law_only_the_last_layer_of_a_slow_backward_pass_is_exposed():
    """Products take far longer than sums: all sums but that of the last layer run beside them."""
    slow = CLUSTER._replace(gpu=GPU._replace(flops=1e8))
    placement = Placement(16)
    exchange = on.all_reduce_seconds(2 * on.layer_parameters(MODEL), Spread(8, 2), slow)
    assert on.step(MODEL, placement, slow, batch=64).exposed == pytest.approx(exchange)


@pytest.mark.parametrize("placement, batch", [(Placement(3), 64), (Placement(2, tensor=3), 64)])
def test_a_batch_that_does_not_divide_is_refused(placement, batch):
    with pytest.raises(ValueError, match="step: "):
        on.step(MODEL, placement, CLUSTER, batch)


def test_what_breaks():
    tiny = CLUSTER._replace(gpu=GPU._replace(memory=1e3))
    assert on.what_breaks(MODEL, Placement(128), CLUSTER, 64) == "batch"
    assert on.what_breaks(MODEL, Placement(8), tiny, 64) == "memory"
    assert on.what_breaks(MODEL, Placement(8), CLUSTER, 64) == ""


# --- data parallel steps of this library, and failures ---


def test_a_data_parallel_step_is_products_and_one_sum():
    link = Link(1e-5, 1e-9)
    one = on.data_parallel_seconds(1e-3, 1e-5, 1000, 1e6, 1, 2, link, 1e-4)
    two = on.data_parallel_seconds(1e-3, 1e-5, 1000, 1e6, 2, 2, link, 1e-4)
    four = on.data_parallel_seconds(1e-3, 1e-5, 1000, 1e6, 4, 2, link, 1e-4)
    assert one == pytest.approx(1.1e-2)
    assert two == pytest.approx(6e-3 + 1e-4 + on.seconds(on.OURS["psum"](1e6, 2), link))
    assert four == pytest.approx(2 * 3.5e-3 + 1e-4 + on.seconds(on.OURS["psum"](1e6, 4), link))


def test_law_no_interval_loses_less_than_the_chosen_one():
    between = on.hours_between_failures(50_000, 1024)
    best = on.checkpoint_interval(0.02, between)
    losses = [on.lost_share(0.02, 0.1, between, best * factor) for factor in (0.5, 0.9, 1.0, 1.1, 2.0)]
    assert min(losses) == losses[2]
