"""All methods to compute random words give the same bits."""

import pytest
import torch
from daily import daily
from safetensors.torch import load, save
from torch.fx.experimental.proxy_tensor import make_fx

import torchpure as tp
from torchpure import random
from torchpure.random import _compiled, _words
from torchpure.random._philox import WORD, philox
from torchpure.testing import assert_trees_close_to_rounding

KEY = random.key(2**40 + 5)
KEYS = random.split(KEY, 6)


def _reference(key, num):
    """Draw with torch's own operations."""
    block = torch.arange((num + 3) // 4)
    zero = torch.zeros_like(block)
    return torch.cat(philox((block & WORD, block >> 32, zero, zero), key))[:num]


@pytest.mark.parametrize("num", [0, 1, 3, 4, 7, 127, 128, 129, 4095, 4097, 200_001])
def test_python_numpy_and_torch_give_the_same_words(num):
    expected = _reference(KEY, num)
    assert torch.equal(_words.words(KEY, num), expected)
    assert torch.equal(_words.unit_float32(KEY, num), (expected >> 8).float() * 2.0**-24)
    if num:
        together = tp.vmap(lambda key: _words.words(key, num))(KEYS[:3])
        assert all(torch.equal(together[i], _words.words(KEYS[i], num)) for i in range(3))


def test_counters_beyond_one_word():
    low, high = torch.tensor([5, WORD]), torch.tensor([3, 7])
    expected = torch.stack(philox((low, high, low * 0, low * 0 + 1), KEY))
    assert torch.equal(_words.encrypt(KEY, low, high, 1), expected)


DRAWS = {
    "uniform": lambda key: random.uniform(key, (3, 50)),
    "uniform in float64": lambda key: random.uniform(key, (5,), low=-1.0, dtype=torch.float64),
    "normal": lambda key: random.normal(key, (2, 3)),
    "exponential": lambda key: random.exponential(key, (4,)),
    "bernoulli": lambda key: random.bernoulli(key, 0.3, (5,)),
    "randint": lambda key: random.randint(key, (5,), 0, 100),
    "permutation": lambda key: random.permutation(key, 7),
    "categorical": lambda key: random.categorical(key, torch.zeros(2, 4)),
    "multinomial": lambda key: random.multinomial(key, torch.ones(5), 3),
    "gamma": lambda key: random.gamma(key, torch.tensor([0.5, 3.0])),
    "poisson": lambda key: random.poisson(key, torch.tensor([0.5, 30.0])),
    "split": lambda key: random.split(key, 3),
    "fold_in": lambda key: random.fold_in(key, 5),
    "fold_in a tensor": lambda key: random.fold_in(key, torch.tensor(5)),
    "all of them": lambda key: random.normal(random.fold_in(random.split(key)[1], 2), (3,)),
}


@pytest.mark.parametrize("name", DRAWS)
def test_law_vmap_of_a_draw_equals_the_draw(name):
    draw = DRAWS[name]
    together = tp.vmap(draw)(KEYS)
    twice = tp.vmap(tp.vmap(draw))(KEYS.reshape(2, 3, 2))
    for i, key in enumerate(KEYS):
        assert torch.equal(together[i], draw(key))
        assert torch.equal(twice[i // 3, i % 3], draw(key))


@pytest.mark.parametrize("name", daily(DRAWS, 2))
def test_a_trace_gives_the_same_bits(name):
    draw = DRAWS[name]
    graph = make_fx(draw)(KEY)
    batched = make_fx(tp.vmap(draw), tracing_mode="fake")(KEYS)
    for i, key in enumerate(KEYS):
        assert torch.equal(graph(key), draw(key))
        assert torch.equal(batched(KEYS)[i], draw(key))


def test_fold_in_of_batched_keys_and_batched_data():
    keys, numbers = KEYS.reshape(2, 3, 2), torch.arange(4)
    both = tp.vmap(lambda key: tp.vmap(lambda n: random.fold_in(key, n))(numbers))(KEYS)
    turned = tp.vmap(lambda n: tp.vmap(lambda key: random.fold_in(key, n))(KEYS))(numbers)
    inner = tp.vmap(lambda keys, n: tp.vmap(lambda key: random.fold_in(key, n))(keys))(keys, numbers[:2])
    for i, key in enumerate(KEYS):
        for n in range(4):
            assert torch.equal(both[i, n], random.fold_in(key, n)) and torch.equal(turned[n, i], both[i, n])
    assert torch.equal(inner[1, 2], random.fold_in(keys[1, 2], 1))


def test_draws_inside_grad_and_jvp():
    def loss(x, key):
        return (x * random.normal(key, (3,), dtype=torch.float64)).sum()

    x = torch.ones(3, dtype=torch.float64)
    expected = random.normal(KEY, (3,), dtype=torch.float64)
    assert torch.equal(tp.grad(loss)(x, KEY), expected)
    assert_trees_close_to_rounding(tp.jvp(lambda x: loss(x, KEY), (x,), (x,))[1], expected.sum())
    together = tp.vmap(tp.grad(loss), (None, 0))(x, KEYS)
    assert all(torch.equal(together[i], random.normal(key, (3,), dtype=torch.float64)) for i, key in enumerate(KEYS))
    both = tp.grad(lambda x: tp.grad(loss)(x, KEY).sum() * x.sum())(x)
    assert_trees_close_to_rounding(both, expected.sum().expand(3))


@pytest.mark.compile
def test_compiled_draws_have_the_same_bits():
    @torch.compile(fullgraph=True, backend="aot_eager")
    def draw(key):
        first, second = random.split(key)
        return random.uniform(first, (5,)), random.randint(random.fold_in(second, 3), (4,), 0, 10)

    first, second = random.split(KEY)
    assert torch.equal(draw(KEY)[0], random.uniform(first, (5,)))
    assert torch.equal(draw(KEY)[1], random.randint(random.fold_in(second, 3), (4,), 0, 10))


@pytest.mark.proof
@pytest.mark.compile
def test_draws_compiled_to_cpp_have_the_same_bits():
    """Signed overflow is undefined in C++, so the cipher must not overflow."""

    @torch.compile(fullgraph=True)
    def draw(key, number):
        return (
            random.fold_in(key, -5),
            random.bits(random.fold_in(key, number), 9),
            random.randint(key, (5,), -3, 2**60),
        )

    number = torch.tensor(-7)
    expected = (
        random.fold_in(KEY, -5),
        random.bits(random.fold_in(KEY, number), 9),
        random.randint(KEY, (5,), -3, 2**60),
    )
    assert all(torch.equal(one, two) for one, two in zip(draw(KEY, number), expected, strict=True))


@pytest.mark.compile
@pytest.mark.parametrize("blocks", [1, 7, 1000])
def test_the_compiled_sampler_gives_the_same_bits(blocks, monkeypatch):
    sampler = _compiled.CompiledSampler()
    assert sampler(KEY, blocks) is None  # numpy draws until many numbers were drawn
    monkeypatch.setattr(_compiled, "MIN_WORDS", 0)
    expected = (_reference(KEY, 4 * blocks) >> 8).float() * 2.0**-24
    assert torch.equal(sampler(KEY, blocks).reshape(-1), expected)
    assert torch.equal(sampler(-KEY, blocks).reshape(-1), (_reference(-KEY, 4 * blocks) >> 8).float() * 2.0**-24)


@pytest.mark.compile
@pytest.mark.parametrize("compiler", ["no-such-compiler", "false", "true"])
def test_without_a_compiler_numpy_draws_the_same_bits(compiler, compiler_of_environment, monkeypatch, tmp_path):
    compiler_of_environment(compiler)
    monkeypatch.setenv("TORCHPURE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(_compiled, "MIN_WORDS", 0)
    monkeypatch.setattr(_words, "compiled_sampler", _compiled.CompiledSampler())
    drawn = random.uniform(KEY, (2 * _words._LARGE,))
    assert torch.equal(drawn, (_reference(KEY, 2 * _words._LARGE) >> 8).float() * 2.0**-24)


def test_keys_keep_dtype_and_shape():
    (loaded,) = load(save({"key": KEYS})).values()
    assert torch.equal(loaded, KEYS)
    assert torch.equal(random.bits(tp.unstack(tp.stack(list(loaded)))[4], 3), random.bits(KEYS[4], 3))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("num", [5, 5000])
def test_a_device_gives_the_same_bits(num):
    assert torch.equal(random.bits(KEY.cuda(), num).cpu(), random.bits(KEY, num))
    assert torch.equal(random.uniform(KEY.cuda(), (num,)).cpu(), random.uniform(KEY, (num,)))
