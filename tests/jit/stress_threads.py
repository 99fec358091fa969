"""A process that compiles from many threads while others work; run by test_threads.py. Prints "right" at its end."""

import asyncio
import multiprocessing
import os
import queue
import sys
import threading

import torch
from torch import nn

import torchpure as tp

X = torch.linspace(0.1, 1.0, 5)


def functions(offset):
    """Eight functions with other programs; `offset` is a constant in each."""
    module = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 1)).requires_grad_(False)
    net = tp.functional(module)
    return [
        lambda x: tp.scan(lambda c, _: (torch.sin(c) + c.cumsum(0) * offset, c.sum()), x, length=3)[0],
        lambda x: tp.grad(lambda y: (y**3).sum() * offset)(x),
        lambda x: tp.vmap(lambda y: torch.cos(y) * offset)(x),
        lambda x: tp.jvp(lambda y: y.exp() * offset, (x,), (x,))[1],
        lambda x: tp.while_loop(lambda y: y.sum() < 50 + offset, lambda y: y * 1.5, x),
        lambda x: net(net.params, x) * offset,
        lambda x: tp.hessian(lambda y: (y**4).sum() * offset)(x),
        lambda x: module(x) + offset,
    ]


def eager(stop, errors):
    """Transforms that are not compiled, meanwhile."""
    module = nn.Linear(5, 1)
    net = tp.functional(module)
    while not stop.is_set():
        try:
            slope = tp.grad(lambda p: net(p, X).sum())(net.params)["weight"]
            torch.testing.assert_close(slope, X[None])
            torch.testing.assert_close(tp.jvp(torch.sin, (X,), (X,))[1], X.cos() * X)
            torch.testing.assert_close(tp.vmap(tp.grad(torch.sin))(X), X.cos())
            torch.testing.assert_close(module(X), net(net.params, X))
            assert tp.eval_shape(module, X).shape == (1,)
        except BaseException as error:
            errors.append(error)
            raise


def child(results):
    """What a forked process does: it compiles too, although a thread of its parent may have held the lock."""
    results.put(float(tp.jit(lambda x: (x * 7).sum())(X)))


def fork(errors):
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    process = context.Process(target=child, args=(results,))
    process.start()
    try:
        if abs(results.get(timeout=60) - 7 * float(X.sum())) > 1e-5:
            errors.append(AssertionError("a forked process computes something else"))
    except queue.Empty:
        process.kill()
        errors.append(AssertionError("a forked process has computed nothing within a minute"))
    process.join()


def main(rounds):
    torch.set_num_threads(1)
    errors, stop = [], threading.Event()
    others = [threading.Thread(target=eager, args=(stop, errors)) for _ in range(2)]
    for thread in others:
        thread.start()
    for number in range(rounds):
        fs = functions(1.0 + number % 2)
        compiled = [tp.jit(f) for f in fs]
        barrier = threading.Barrier(8)

        def work(first, fs=fs, compiled=compiled, barrier=barrier):
            barrier.wait()
            for step in range(8):
                at = (first + step) % 8
                try:
                    torch.testing.assert_close(compiled[at](X), fs[at](X))
                except BaseException as error:
                    errors.append(error)
                    raise

        threads = [threading.Thread(target=work, args=(first,)) for first in range(8)]
        for thread in threads:
            thread.start()
        if number == 0 and hasattr(os, "fork"):
            fork(errors)
        for thread in threads:
            thread.join()
    stop.set()
    for thread in others:
        thread.join()
    asyncio.run(in_a_loop())
    print(errors or "right")


async def in_a_loop():
    """Coroutines and the threads of asyncio."""
    compiled = tp.jit(lambda x: x.sin() * 3)
    values = await asyncio.gather(*(asyncio.to_thread(compiled, X) for _ in range(4)))
    for value in [*values, compiled(X)]:
        torch.testing.assert_close(value, X.sin() * 3)


if __name__ == "__main__":
    main(int(sys.argv[1]))
