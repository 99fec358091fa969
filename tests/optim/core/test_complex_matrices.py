"""Complex leaves where the dimensions of a leaf matter: each part is a matrix of the leaf's own shape."""

import pytest
import torch

from torchpure import optim, random, testing, tree

G = torch.Generator().manual_seed(0)
PARAMS = {"w": torch.randn(3, 2, generator=G, dtype=torch.complex128), "b": torch.randn(4, generator=G)}
TRANSFORMATIONS = {
    "scale_by_muon": optim.scale_by_muon,
    "scale_by_muon, spectral": lambda: optim.scale_by_muon(preconditioning="spectral"),
    "scale_by_shape": optim.scale_by_shape,
    "scale_by_shape, rms": lambda: optim.scale_by_shape(consistent_rms=0.2),
    "scale_by_soap": lambda: optim.scale_by_soap(precondition_frequency=2),
    "scale_by_kron": lambda: optim.scale_by_kron(key=random.key(0)),
    "scale_by_galore": lambda: optim.scale_by_galore(rank=1, update_proj_gap=2),
    "scale_by_sm3": optim.scale_by_sm3,
    "scale_by_factored_rms": lambda: optim.scale_by_factored_rms(min_dim_size_to_factor=1),
    "scale_by_factored_rms, torch": lambda: optim.scale_by_factored_rms(form="torch"),
    "muon": lambda: optim.muon(0.1, matrices={"w": True, "b": False}),
    "soap": lambda: optim.soap(0.1),
    "galore": lambda: optim.galore(0.1, rank=1),
    "sm3": lambda: optim.sm3(0.1),
}


@pytest.mark.parametrize("name", TRANSFORMATIONS)
def test_law_a_complex_leaf_is_two_real_leaves(name):
    one, two = TRANSFORMATIONS[name](), optim.split_real_and_imaginary(TRANSFORMATIONS[name]())
    states = [one.init(PARAMS), two.init(PARAMS)]
    for number in range(4):
        grads = tree.map(lambda leaf, n=number: (n + 1) * leaf + leaf.flip(0), PARAMS)
        (found, states[0]), (wanted, states[1]) = (
            one.update(grads, states[0], PARAMS),
            two.update(grads, states[1], PARAMS),
        )
        testing.assert_trees_close(found, wanted, rtol=0.0)


def test_the_state_of_soap_has_a_basis_of_each_dimension():
    covariance = optim.scale_by_soap().init(PARAMS).covariance["w"]
    assert [tuple(part.shape) for part in covariance.real] == [(3, 3), (2, 2)]


def test_muon_gives_each_part_of_a_complex_matrix_orthogonal_columns():
    update = optim.scale_by_muon(ns_coeffs=(1.5, -0.5, 0.0), ns_steps=40).update
    u = update(PARAMS["w"], optim.scale_by_muon().init(PARAMS["w"]), None)[0]
    for part in (u.real, u.imag):
        torch.testing.assert_close(part.mT @ part, torch.eye(2, dtype=torch.float64))


def test_adaptive_grad_clip_takes_the_norm_of_complex_entries():
    clip, w = optim.adaptive_grad_clip(0.1), PARAMS["w"]
    rows = clip.update({"w": 30 * w, "b": PARAMS["b"]}, optim.EmptyState(), PARAMS)[0]["w"]
    torch.testing.assert_close(rows.abs().square().sum(1).sqrt(), 0.1 * w.abs().square().sum(1).sqrt())
    vector = torch.tensor([3 + 4j, 0])  # a vector is one unit
    torch.testing.assert_close(clip.update(100 * vector, optim.EmptyState(), vector)[0], 0.1 * vector)
