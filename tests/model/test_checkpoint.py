"""Modules that checkpoint their own parts, by torch.utils.checkpoint or by `remat`: right, and with less memory."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint, checkpoint_sequential, create_selective_checkpoint_contexts

import torchpure as tp
from torchpure._torch import functorch
from torchpure.errors import TransformError

KEY = tp.random.key(3)
X = torch.linspace(-1, 1, 12).reshape(4, 3)


def _selective():
    return create_selective_checkpoint_contexts([torch.ops.aten.addmm.default])


RUNS = {  # a name -> how a block is run
    "plain": lambda block, x: block(x),
    "reentrant": lambda block, x: checkpoint(block, x, use_reentrant=True),
    "not reentrant": lambda block, x: checkpoint(block, x, use_reentrant=False),
    "keyword": lambda block, x: checkpoint(lambda *, x: block(x), x=x, use_reentrant=False),
    "selective": lambda block, x: checkpoint(block, x, use_reentrant=False, context_fn=_selective),
    "nested": lambda block, x: checkpoint(partial(checkpoint, block, use_reentrant=False), x, use_reentrant=False),
    "sequential": lambda block, x: checkpoint_sequential(
        [nn.Identity(), block, nn.Identity()], 2, x, use_reentrant=False
    ),
    "remat": lambda block, x: tp.remat(block)(x),
    "scan": lambda block, x: tp.scan(lambda c, _: (block(c), None), x, length=1)[0],
    "scan with remat": lambda block, x: tp.scan(lambda c, _: (block(c), None), x, length=1, remat=1)[0],
    "cond": lambda block, x: tp.cond(x.sum() < 100, block, torch.sin, x),
}


class Net(nn.Module):
    def __init__(self, run, *extra):
        super().__init__()
        self.run = run
        self.first = nn.Linear(3, 3)
        self.block = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), *extra, nn.Linear(3, 3))

    def forward(self, x):
        return RUNS[self.run](self.block, RUNS[self.run](self.block, self.first(x).tanh())).tanh()


def _net(run, *extra):
    torch.manual_seed(0)
    net = tp.functional(Net(run, *extra))
    return net, tp.tree.map(lambda leaf: leaf * 1.7 + 0.1, net.params)  # not the values that the module had


def _loss(net):
    return lambda p: net(p, X).square().sum()


def _one(p):
    return tp.tree.map(lambda leaf: leaf[None], p)


TRANSFORMS = {
    "grad": lambda f, p: tp.grad(f)(p),
    "vjp": lambda f, p: tp.vjp(f, p)[1](torch.ones(()))[0],
    "jacrev": lambda f, p: tp.jacrev(f)(p),
    "jvp": lambda f, p: tp.jvp(f, (p,), (p,))[1],
    "vmap(grad)": lambda f, p: tp.vmap(tp.grad(f))(_one(p)),
    "grad(vmap)": lambda f, p: tp.grad(lambda q: tp.vmap(f)(q).sum())(_one(p)),
    "grad(grad)": lambda f, p: tp.grad(lambda p: sum(leaf.square().sum() for leaf in tp.grad(f)(p).values()))(p),
    "hessian": lambda f, p: tp.hessian(lambda b: f({**p, "first.bias": b}))(p["first.bias"]),
    "scan": lambda f, p: tp.scan(
        lambda p, _: (tp.tree.map(lambda a, b: a - 0.01 * b, p, tp.grad(f)(p)), f(p)), p, length=2
    ),
    "backward": lambda f, p: _backward(f, p),
    "part": lambda f, p: _part(f, p),
    "jit(grad)": lambda f, p: tp.jit(tp.grad(f))(p),
}
COMPILED = {"jit(grad)"}


def _backward(f, p):
    leaves = tp.tree.map(lambda leaf: leaf.clone().requires_grad_(), p)
    f(leaves).backward()
    return {name: leaf.grad for name, leaf in leaves.items()}


def _part(f, p):
    head, body = tp.partition(p, "first.*")
    return tp.grad(lambda head: f(tp.merge(head, body)))(head)


def _close(got, want):
    tp.tree.map(lambda a, b: torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5), got, want)


CASES = [
    pytest.param(run, name, marks=[pytest.mark.compile] if name in COMPILED else [])
    for run in RUNS
    for name in TRANSFORMS
    if run != "plain" and (name not in COMPILED or run in {"not reentrant", "scan"})
]


@pytest.mark.filterwarnings("ignore:torch.utils.checkpoint")
@pytest.mark.parametrize(("run", "name"), CASES)
def test_a_checkpointed_block_has_the_derivatives_of_the_plain_one(run, name):
    net, p = _net(run)
    plain, _ = _net("plain")
    _close(TRANSFORMS[name](_loss(net), p), TRANSFORMS[name](_loss(plain), p))


DRAWING = {
    "grad": lambda f: tp.grad(f),
    "vmap(grad)": lambda f: lambda p: tp.vmap(tp.grad(f))(_one(p)),
    "members": lambda f: lambda p: tp.vmap(tp.grad(f), in_dims=(None, 0))(p, tp.random.split(KEY, 3)),
    "vjp": lambda f: lambda p: tp.vjp(f, p)[1](torch.ones(()))[0],
    "grad(grad)": lambda f: tp.grad(lambda p: sum(leaf.square().sum() for leaf in tp.grad(f)(p).values())),
}


@pytest.mark.filterwarnings("ignore:torch.utils.checkpoint")
@pytest.mark.parametrize("name", DRAWING)
@pytest.mark.parametrize("run", [run for run in RUNS if run != "plain"])
def test_a_checkpointed_block_draws_the_same_mask_again(run, name):
    net, p = _net(run, nn.Dropout(0.5))
    plain, _ = _net("plain", nn.Dropout(0.5))

    def loss(net):
        def drawn(p, key=KEY):
            out = net.apply(p, {}, X, key=key)[0]
            return (out + net.apply(p, {}, X, key=tp.random.split(key)[0])[0]).square().sum()

        return drawn

    _close(DRAWING[name](loss(net))(p), DRAWING[name](loss(plain))(p))


def test_remat_of_a_loss_with_a_key_draws_the_same_mask_again():
    net, p = _net("plain", nn.Dropout(0.5))

    def loss(p):
        return net.apply(p, {}, X, key=KEY)[0].square().sum()

    _close(tp.grad(tp.remat(loss))(p), tp.grad(loss)(p))


NORMED = {
    "grad": lambda f: tp.grad(f, has_aux=True),
    "vmap(grad)": lambda f: lambda p: tp.vmap(tp.grad(f, has_aux=True))(_one(p)),
    "vjp": lambda f: lambda p: (tp.vjp(f, p, has_aux=True)[1](torch.ones(())), tp.vjp(f, p, has_aux=True)[2]),
}


@pytest.mark.filterwarnings("ignore:torch.utils.checkpoint")
@pytest.mark.parametrize("name", NORMED)
@pytest.mark.parametrize("run", ["reentrant", "not reentrant", "nested", "sequential", "remat"])
def test_a_checkpointed_batch_norm_updates_its_buffers_once(run, name):
    net, p = _net(run, nn.BatchNorm1d(3))
    plain, _ = _net("plain", nn.BatchNorm1d(3))

    def loss(net):
        def normed(p):
            out, state = net.apply(p, net.state, X)
            return out.square().sum(), state

        return normed

    got, want = NORMED[name](loss(net))(p), NORMED[name](loss(plain))(p)
    _close(got, want)
    assert got[1]["block.2.num_batches_tracked"].max() == 2


ALIVE: list[StorageWeakRef] = []


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x):
        for _ in range(4):
            x = self.layer(x).tanh()
            ALIVE.append(StorageWeakRef(_memory(x)))
        return x


def _memory(x):
    while functorch.is_functorch_wrapped_tensor(x):
        x = functorch.get_unwrapped(x)
    return x.untyped_storage()


class Deep(nn.Module):
    def __init__(self, reentrant):
        super().__init__()
        self.reentrant = reentrant
        self.blocks = nn.ModuleList(Block() for _ in range(3))

    def forward(self, x):
        for block in self.blocks:
            x = block(x) if self.reentrant is None else checkpoint(block, x, use_reentrant=self.reentrant)
        return x


@pytest.mark.parametrize("name", ["grad", "vmap(grad)", "vjp", "backward"])
@pytest.mark.parametrize(("reentrant", "most"), [(None, 12), (False, 2), (True, 2)])
def test_a_checkpointed_block_keeps_its_inputs_only(reentrant, most, name):
    net = tp.functional(Deep(reentrant))
    kept = []

    def loss(p):
        ALIVE.clear()
        out = net(p, torch.ones(2, 8)).sum()
        kept.append(sum(not one.expired() for one in ALIVE))
        return out

    TRANSFORMS[name](loss, net.params)
    assert max(kept) == most
    ALIVE.clear()


def test_a_copy_goes_back_to_the_pool_when_no_part_of_its_call_can_run_again():
    net, p = _net("not reentrant")
    pool = net.call.args[0]
    leaves = tp.tree.map(lambda leaf: leaf.clone().requires_grad_(), p)
    value = net(leaves, X).sum()
    assert not pool._free
    net(p, X)  # while the first copy is on loan
    assert len(pool._free) == 1
    del value
    assert len(pool._free) == 2


def test_contexts_of_the_user_are_refused():
    from contextlib import nullcontext

    def loss(x):
        return checkpoint(torch.sin, x, use_reentrant=False, context_fn=lambda: (nullcontext(), nullcontext())).sum()

    with pytest.raises(
        TransformError, match=r"checkpoint of `sin`: this library cannot enter the contexts of its context_fn"
    ):
        tp.grad(loss)(X)


def test_outside_of_transforms_checkpoint_is_torchs_own():
    x = X.clone().requires_grad_()
    states = []

    def draws(x):
        states.append(torch.get_rng_state().sum())
        return F.dropout(x).square()

    checkpoint(draws, x, use_reentrant=False).sum().backward()
    assert len(states) == 2 and states[0] == states[1]  # `preserve_rng_state`


@pytest.mark.parametrize("name", ["vmap(grad)", "vjp", "jvp", "hessian"])
def test_a_hook_that_asks_for_a_gradient_changes_nothing(name):
    torch.manual_seed(0)
    module = Net("not reentrant")
    plain = tp.functional(module)
    module.first.register_forward_hook(lambda _, __, out: out.requires_grad_(True))
    p = tp.tree.map(lambda leaf: leaf * 1.7 + 0.1, plain.params)
    _close(TRANSFORMS[name](_loss(tp.functional(module)), p), TRANSFORMS[name](_loss(plain), p))
