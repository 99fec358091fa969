"""Compiled programs, `fit` and the command line: results that were wrong once, or calls that never ended."""

import threading
import time
import zipfile

import pytest
import torch
from torch.testing import assert_close

import torchpure as tp
from torchpure.cli import main
from torchpure.data._expression import compile_expression

pytestmark = pytest.mark.faults


def test_expression_in_exponential_time():
    source = "x"
    for _ in range(20):
        source = f"0<({source})<2"
    start = time.process_time()
    assert compile_expression(source, ["x"])({"x": torch.ones(1)}).tolist() == [1.0]
    assert time.process_time() - start < 1


X, Y = torch.linspace(-1, 1, 24).reshape(8, 3), torch.ones(8, 1)
NET = torch.nn.Linear(3, 1)
TARGETS = r"^fit: a module needs data \(inputs …, target\), got only a float32 tensor of shape \(8, 3\): pass a tuple"
WRONG = {
    "one tensor": (X, tp.optim.sgd(0.1), TARGETS),
    "no targets": ((X,), tp.optim.sgd(0.1), TARGETS),
    "a factory": (
        (X, Y),
        tp.optim.adam,
        r"^fit: wanted an optimizer of tp.optim, got the function adam: call it first",
    ),
    "an optimizer of torch": (
        (X, Y),
        torch.optim.SGD(NET.parameters(), lr=0.1),
        r"^fit: wanted .*, got torch.optim.SGD: use the optimizer of tp.optim",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_fit_wrong_arguments(name):
    data, optimizer, message = WRONG[name]
    with pytest.raises(TypeError, match=message):
        tp.fit(NET, data, optimizer=optimizer, steps=1)


def test_fit_takes_arrays():
    options = {"optimizer": tp.optim.sgd(0.1), "steps": 2}
    found, wanted = (tp.fit(NET, data, **options) for data in ((X.numpy(), Y.numpy()), (X, Y)))
    assert_close(found.params, wanted.params)


@pytest.mark.compile
def test_gpt2_in_jit():
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(vocab_size=17, n_positions=8, n_embd=8, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0)
    net, key = tp.functional(GPT2LMHeadModel(config)), tp.random.key(0)
    words = torch.arange(16).reshape(2, 8) % 17
    loss = lambda params, x: net.apply(params, net.state, input_ids=x, labels=x, key=key)[0].loss  # noqa: E731
    assert_close(tp.jit(tp.grad(loss))(net.params, words), tp.grad(loss)(net.params, words), rtol=1e-4, atol=1e-5)


def test_npz_with_junk(tmp_path, capsys):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as file:
        for name in ("x.npy", "y.npy"):
            file.writestr(name, b"junk")
    code = main(["fit", str(tmp_path / "a.npz"), "--target", "y", "--out", str(tmp_path / "run")])
    error = capsys.readouterr().err
    assert code == 2 and error.count("\n") == 1 and "array `x` is no array" in error


@pytest.mark.compile
def test_silent_differences_in_scan():
    flags, places, large = torch.tensor([True, False, True]), torch.tensor([0, 0, 1]), torch.tensor([1e20, 2e20, 3e20])
    rows = {
        "index_add": (lambda c: c.index_add(0, places, c, alpha=-1), flags, torch.tensor([True, True, True])),
        "std": (lambda c: c.std(), large, torch.tensor(1e20)),
    }
    for f, start, wanted in rows.values():
        looped = tp.jit(lambda x, f=f: tp.scan(lambda c, _: (c, f(c)), x, length=1)[1])
        assert_close(looped(start)[0], wanted)
        assert_close(looped(start)[0], f(start))


@pytest.mark.compile
def test_threads_compile_at_once():
    def body(k):
        return lambda x: tp.scan(lambda c, _: (torch.sin(c * k) + c.cumsum(0), None), x, length=2)[0]

    count, found = 4, {}
    compiled, barrier, x = [tp.jit(body(k)) for k in range(count)], threading.Barrier(count), torch.arange(3.0)

    def run(k):
        barrier.wait()
        found[k] = compiled[k](x)

    threads = [threading.Thread(target=run, args=(k,)) for k in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert_close(found, {k: body(k)(x) for k in found})
    assert len(found) == count


@pytest.mark.compile
def test_while_loop_with_a_bad_index():
    numbers = torch.arange(3)
    search = lambda xs, i: tp.while_loop(lambda i: xs[i] != 9, lambda i: i + 1, i)  # noqa: E731
    for run in (search, tp.jit(search)):
        with pytest.raises(IndexError, match="out of"):
            run(numbers, torch.tensor(1))


def _filled(x):
    filled = torch.tensor([1.0, 2.0, 3.0])
    filled[0] = x[0]
    return filled.exp_() * 2


def _through_a_view(x):
    whole = HELD + 0
    whole[:2].add_(x[:2])
    return whole.neg_().exp_()


HELD = torch.tensor([1.0, 2.0, 3.0])
WRITES = {  # constants into which an argument is written, and which are changed again without one
    "add_, sigmoid_": lambda x: (HELD * 1).add_(x).sigmoid_(),
    "exp_ before and after": lambda x: (HELD + 0).exp_().add_(x).mul_(2).neg_(),
    "an entry": _filled,
    "a view": _through_a_view,
    "gru_cell": lambda x: torch.gru_cell(x[None], *GRU)[0],
}
GRU = [HELD[None], torch.linspace(-1, 1, 27).reshape(9, 3), torch.linspace(1, -1, 27).reshape(9, 3)]


@pytest.mark.parametrize("name", WRITES)
def test_constants_that_a_program_changes(name):
    f, x = WRITES[name], torch.tensor([0.5, 0.25, 2.0])
    for run in (f, tp.jacrev(f)):
        program = tp.make_graph(run)(x)
        for at in (x, 2 * x):
            assert_close(program(at), run(at))


def test_programs_that_ended_in_errors_of_torch():
    x = torch.tensor([[3.0, 4.0], [1.0, -2.0]])
    functions = {
        "a power in place": lambda x: x.clone().pow_(3).sum(),
        "norm of order 3": lambda x: x.norm(p=3),
        "a constant without memory, indexed": lambda x: torch.pdist(torch.stack([x[0], x[0].detach() + 1])).sum(),
        "a new tensor in remat": tp.remat(lambda x: torch.tensor([x[0, 0], x[0, 1] ** 2]).sum()),
    }
    for name, f in functions.items():
        for run in (tp.grad(f), tp.hessian(f)):
            assert_close(tp.make_graph(run)(x)(x), run(x), msg=lambda text, at=name: f"{at}: {text}")
