"""A matrix without a factorization or an inverse makes its own member of a vmap NaN, and no other."""

import pytest
import torch
from torch.torch_version import TorchVersion

import torchpure as tp

pytestmark = pytest.mark.filterwarnings("ignore:There is a performance drop")
EYE, ONE = torch.eye(3, dtype=torch.float64), torch.ones(3, 1, dtype=torch.float64)
GOOD = (
    torch.diag(torch.tensor([2.0, 3.0, 4.0], dtype=torch.float64)) + 0.1,
    3 * EYE + torch.arange(9.0).reshape(3, 3) / 20,
)
NOT_FINITE, SINGULAR, NEGATIVE = EYE * float("nan"), 0 * EYE, -EYE
LA = torch.linalg


def first(results):
    return results if isinstance(results, torch.Tensor) else results[0]


FAILS = {  # name -> (operation, a matrix for which torch raises, for a whole batch)
    "cholesky": (lambda a: LA.cholesky(a), NEGATIVE),
    "cholesky, upper": (lambda a: LA.cholesky(a, upper=True), NEGATIVE),
    "torch.cholesky": (lambda a: torch.cholesky(a), NEGATIVE),
    "Tensor.cholesky": (lambda a: a.cholesky(), NOT_FINITE),
    "inv": (lambda a: LA.inv(a), SINGULAR),
    "torch.inverse": (lambda a: torch.inverse(a), SINGULAR),
    "Tensor.inverse": (lambda a: a.inverse(), SINGULAR),
    "tensorinv": (lambda a: LA.tensorinv(a, 1), SINGULAR),
    "matrix_power": (lambda a: LA.matrix_power(a, -2), SINGULAR),
    "solve": (lambda a: LA.solve(a, ONE), SINGULAR),
    "solve, left=False": (lambda a: LA.solve(a, ONE.mT, left=False), SINGULAR),
    "lu_factor": (lambda a: LA.lu_factor(a)[0], SINGULAR),
    "svd": (lambda a: LA.svd(a).S, NOT_FINITE),
    "svd, U": (lambda a: LA.svd(a, full_matrices=False).U.abs(), NOT_FINITE),
    "torch.svd": (lambda a: torch.svd(a).S, NOT_FINITE),
    "svdvals": (lambda a: LA.svdvals(A=a), NOT_FINITE),
    "eigh": (lambda a: LA.eigh(a).eigenvectors.abs(), NOT_FINITE),
    "eigvalsh": (lambda a: LA.eigvalsh(a), NOT_FINITE),
    "eig": (lambda a: LA.eig(a)[0].real.sum(), NOT_FINITE),
    "pinv": (lambda a: LA.pinv(a), NOT_FINITE),
    "lstsq": (lambda a: LA.lstsq(a, ONE).solution, NOT_FINITE),
    "cond": (lambda a: LA.cond(a), NOT_FINITE),
    "matrix_norm": (lambda a: LA.matrix_norm(a, "nuc"), NOT_FINITE),
    "MultivariateNormal": (
        lambda a: torch.distributions.MultivariateNormal(ONE[:, 0], a @ a.mT * a[0, 0], validate_args=False).log_prob(
            0 * ONE[:, 0]
        ),
        NEGATIVE,
    ),
}


if TorchVersion(torch.__version__) >= "2.14":  # they are removed, and only raise
    del FAILS["torch.cholesky"], FAILS["Tensor.cholesky"]


@pytest.mark.parametrize("name", FAILS)
def test_a_failing_member_is_nan_alone(name):
    f, bad = FAILS[name]
    members = torch.stack([GOOD[0], bad, GOOD[1]])
    with pytest.raises((RuntimeError, ValueError)):  # torch's error stays where there is one matrix
        f(bad)
    for fn in (f, tp.grad(lambda a: f(a).sum())):
        found = tp.vmap(fn)(members)
        assert found[1].isnan().all()
        torch.testing.assert_close(found[0::2], torch.stack([fn(a) for a in GOOD]))


def test_a_failing_member_of_a_batch_in_each_member():
    members = torch.stack([torch.stack(GOOD), torch.stack([GOOD[0], NEGATIVE])])
    found = tp.vmap(lambda a: LA.cholesky(a))(members)
    assert found[1, 1].isnan().all() and found.isnan().sum() == 9
    torch.testing.assert_close(found[0], LA.cholesky(torch.stack(GOOD)))


@pytest.mark.compile
@pytest.mark.parametrize("count", [3, 12])
def test_a_failing_member_of_a_compiled_vmap(count):
    def loss(scale):
        return LA.cholesky(scale * torch.eye(2)).diagonal().log().sum()

    scales = torch.linspace(1, 2, count)
    scales[1] = -1.0
    found = tp.jit(tp.vmap(tp.value_and_grad(loss)))(scales)
    wanted = torch.where(scales > 0, scales.log(), float("nan")), torch.where(scales > 0, 1 / scales, float("nan"))
    torch.testing.assert_close(found, wanted, equal_nan=True)


def test_law_a_sweep_has_the_members_of_solo_runs_also_where_others_diverge():
    def train(key, rate):
        def loss(scale):
            return LA.cholesky(scale * torch.eye(2, dtype=torch.float64)).diagonal().log().sum()

        def step(scale, _):
            value, slope = tp.value_and_grad(loss)(scale)
            return scale - rate * slope, value

        return tp.scan(step, torch.tensor(1.0, dtype=torch.float64), length=3)[1]

    found = tp.sweep(train, {"rate": [0.1, 5.0, -0.1]}, key=tp.random.key(0), jit=False).results
    alone = [train(None, torch.tensor(rate, dtype=torch.float64)) for rate in (0.1, -0.1)]
    torch.testing.assert_close(found[0::2], torch.stack(alone))
    assert found[1].isnan().tolist() == [False, True, True]


@pytest.mark.parametrize("name", ["galore", "soap", "muon", "kron"])
def test_an_optimizer_of_a_diverged_member_stops_no_other(name):
    options = {"galore": {"rank": 1}, "muon": {"preconditioning": "spectral"}, "kron": {"key": tp.random.key(0)}}
    opt, params = getattr(tp.optim, name)(0.1, **options.get(name, {})), torch.eye(2, dtype=torch.float64)

    def update(grads):
        state = opt.init(params)
        for _ in range(2):
            updates, state = opt.update(grads, state, params)
        return updates

    # In double precision: soap divides what rounding leaves beside the diagonal by its size, and in single precision that
    # is more than eps
    grads = torch.tensor([[[1.0, 2.0], [3.0, 5.0]], [[float("nan"), 0.0], [0.0, 1.0]]], dtype=torch.float64)
    both = tp.vmap(update)(grads)
    torch.testing.assert_close(both[0], update(grads[0]), rtol=1e-4, atol=1e-5)
    assert both[1].isnan().any() and update(grads[1]).isnan().any()


@pytest.mark.parametrize(
    "function",
    [
        lambda a: torch.linalg.matrix_norm(a, 2),
        lambda a: torch.linalg.matrix_norm(a, "nuc"),
        lambda a: torch.linalg.svdvals(a).sum(),
        lambda a: torch.linalg.eigvalsh(a + a.mT).exp().sum(),
        lambda a: torch.linalg.inv(a).sum(),
        torch.linalg.cond,
    ],
)
def test_all_derivatives_of_a_member_that_failed_are_nan(function):
    good = torch.tensor([[1.0, 2.0], [3.0, 5.0]], dtype=torch.float64)
    matrices, ones = torch.stack([good * float("nan"), good]), torch.ones_like(good)
    second = lambda f: lambda a: tp.jvp(lambda x: tp.jvp(f, (x,), (ones,))[1], (a,), (ones,))[1]  # noqa: E731
    for transform in (tp.hessian, second, lambda f: tp.jacrev(tp.grad(f))):
        failed, right = tp.vmap(transform(function))(matrices)
        assert failed.isnan().all() and right.isfinite().all()
        torch.testing.assert_close(right, transform(function)(good))
