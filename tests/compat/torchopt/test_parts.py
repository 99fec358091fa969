"""Schedules, clipping, hooks, states of modules, implicit and estimated gradients, solvers, pictures."""

import pytest
import torch
from torch import nn

import torchpure.compat.torchopt as ours

theirs = pytest.importorskip("torchopt")
BOTH = (ours, theirs)
pytestmark = pytest.mark.filterwarnings("ignore:We've integrated functorch:FutureWarning")  # of torchopt


@pytest.mark.parametrize(
    "make",
    [
        lambda t: t.schedule.exponential_decay(1.0, 0.5, 2, 3, staircase=True, end_value=0.3),
        lambda t: t.schedule.exponential_decay(1.0, 1.5, transition_steps=4, end_value=3.0),
        lambda t: t.schedule.exponential_decay(1.0, 0.0),
        lambda t: t.schedule.polynomial_schedule(1.0, 0.1, 2, 7, 1),
        lambda t: t.schedule.linear_schedule(1.0, 0.1, 0),
        lambda t: t.schedule.linear_schedule(1.0, 0.1, 5, -2),
    ],
)
def test_schedules(make):
    for count in range(12):
        wanted, got, batched = make(theirs)(count), make(ours)(count), make(ours)(torch.tensor(count))
        assert got == pytest.approx(wanted) and float(batched) == pytest.approx(float(wanted))


@pytest.mark.parametrize("norm", [2.0, 1.0, float("inf")])
def test_clipping_and_chains(norm):
    results = []
    for t in BOTH:
        chain = t.chain(t.clip_grad_norm(1.0, norm), t.nan_to_num(0.5), t.sgd(0.1, momentum=0.9))
        grads = (torch.tensor([3.0, 4.0]), torch.tensor(2.0))
        results.append(chain.update(grads, chain.init(grads), params=grads, inplace=False)[0])
        assert chain == t.chain(*chain.transformations) and "ChainedGradientTransformation(" in repr(chain)
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("by", ["reference", "copy", "deepcopy"])
def test_states_are_extracted_and_recovered(by):
    results = []
    for t in BOTH:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
        optimizer, x = t.MetaSGD(net, 0.1, momentum=0.9), torch.eye(2) + 1
        before = t.extract_state_dict(net, by=by, detach_buffers=True), t.extract_state_dict(optimizer, by=by)
        optimizer.step(net(x).square().sum() + net[0].weight.square().sum())
        moved = net[0].weight.detach().clone()
        t.recover_state_dict(net, before[0])
        t.recover_state_dict(optimizer, before[1])
        clone = t.module_clone(net, by=by)
        t.stop_gradient(net)
        results.append((moved, net[0].weight.detach(), net[1].running_mean, clone[0].weight.detach()))
        assert (clone[0].weight is net[0].weight) is (by == "reference")
        with pytest.raises(RuntimeError, match="Unexpected class"):
            t.extract_state_dict(1)
    torch.testing.assert_close(*results)


def test_implicit_modules():
    results = []
    for t in BOTH:

        class Net(t.nn.ImplicitMetaGradientModule, linear_solve=t.linear_solve.solve_normal_cg(maxiter=20)):
            def __init__(self, meta):
                super().__init__()
                self.meta = meta
                self.inner = nn.Linear(2, 1, bias=False)
                nn.init.zeros_(self.inner.weight)

            def objective(self, x, y):
                return (self.inner(x) - y).square().mean() + self.meta.weight.square().sum() * (
                    self.inner.weight.square().sum()
                )

            def solve(self, x, y):
                optimizer = torch.optim.SGD(self.parameters(), lr=0.2)
                with torch.enable_grad():
                    for _ in range(200):
                        optimizer.zero_grad()
                        self.objective(x, y).backward(inputs=list(self.parameters()))
                        optimizer.step()
                return self

        meta = nn.Linear(1, 1, bias=False)
        nn.init.constant_(meta.weight, 0.5)
        x, y = torch.tensor([[1.0, 0.0], [0.5, 1.0], [1.0, 1.0]]), torch.tensor([[1.0], [0.0], [2.0]])
        net = Net(meta).solve(x, y)
        results.append(torch.autograd.grad(net.inner(x).sum(), tuple(meta.parameters())))
        assert [name for name, _ in net.named_parameters()] == ["inner.weight"]
        with pytest.raises(TypeError, match="optimality.. method or an objective"):
            type("Bad", (t.nn.ImplicitMetaGradientModule,), {"solve": lambda self: self})
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", ["naive", "antithetic"])
def test_zero_order_modules_draw_the_same_noise(method):
    results = []
    for t in BOTH:

        class Net(t.nn.ZeroOrderGradientModule, method=method, num_samples=5, sigma=0.1):
            def __init__(self):
                super().__init__()
                self.weight = nn.Parameter(torch.tensor([1.0, 2.0]))

            def forward(self, x):
                return (self.weight * x).square().sum()

            def sample(self, sample_shape=()):
                return torch.randn(sample_shape)

        torch.manual_seed(3)
        net = Net()
        net(torch.tensor([1.0, -1.0])).backward()
        results.append(net.weight.grad)
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["solve_cg", "solve_normal_cg", "solve_inv"])
def test_linear_solvers(name):
    matrix, b = torch.tensor([[4.0, 1.0], [1.0, 3.0]]), torch.tensor([1.0, 2.0])
    for t in BOTH:
        solve = getattr(t.linear_solve, name)(ridge=0.0)
        torch.testing.assert_close(solve(lambda x: matrix @ x, b), torch.linalg.solve(matrix, b), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(*(t.linalg.ns(matrix, b, 30, alpha=0.2) for t in BOTH))
    torch.testing.assert_close(*(t.linalg.ns_inv(matrix, 30, alpha=0.2) for t in BOTH))


def test_a_picture_has_the_nodes_of_torchopts():
    net = nn.Linear(2, 1)
    for t in BOTH:
        t.MetaSGD(net, 0.1)
    loss = net(torch.ones(1, 2)).sum()
    sources = [t.visual.make_dot(loss, params=dict(net.named_parameters()), show_attrs=True).source for t in BOTH]
    assert sorted(sources[0].splitlines()) == sorted(sources[1].splitlines())


def test_bad_arguments_raise_the_same_types():
    calls = [
        lambda t: t.adam(-1.0),
        lambda t: t.adam(betas=(1.0, 0.9)),
        lambda t: t.sgd(0.1, nesterov=True),
        lambda t: t.FuncOptimizer(1),
        lambda t: t.Optimizer([torch.ones(1)], 1),
        lambda t: t.MetaOptimizer(nn.Linear(1, 1), 1),
        lambda t: t.diff.zero_order(3),
        lambda t: t.diff.implicit.custom_root(lambda x: x, argnums=0),
        lambda t: t.linalg.cg(torch.ones(2, 3), torch.ones(2)),
        lambda t: t.chain(t.scale_by, 1),
        lambda t: t.sgd(0.1, weight_decay=0.1).update((torch.ones(1),), (), params=None),
        lambda t: t.clip_grad_norm(1.0, error_if_nonfinite=True).update((torch.tensor(float("nan")),), ()),
        lambda t: t.recover_state_dict(1, ()),
        lambda t: t.nn.MetaGradientModule().register_parameter("a.b", None),
        lambda t: t.nn.MetaGradientModule().register_parameter("a", torch.ones(1)),
    ]
    for call in calls:
        raised = []
        for t in BOTH:
            with pytest.raises(Exception) as error:
                call(t)
            raised.append(error.type)
        assert raised[0] is raised[1]
