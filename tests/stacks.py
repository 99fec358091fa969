"""Stacks of transforms, each applied to a scalar function of a vector of length two."""

import torch

import torchpure as tp

D = torch.float64
U = torch.tensor([0.3, 0.7], dtype=D)
V = torch.tensor([1.0, -2.0], dtype=D)
XS = torch.stack([U, V, U * V])


def total(f):
    return lambda xs: tp.vmap(f)(xs).sum()


def along(f, v=V):
    return lambda x: tp.jvp(f, (x,), (v,))[1]


STACKS = {
    "value": lambda f: f(U),
    "grad": lambda f: tp.grad(f)(U),
    "value and grad": lambda f: tp.value_and_grad(f)(U)[0],
    "jvp": lambda f: along(f)(U),
    "vjp": lambda f: tp.vjp(f, U)[1](U[0])[0],
    "linearize": lambda f: tp.linearize(f, U)[1](V),
    "vmap": lambda f: tp.vmap(f)(XS),
    "vmap, last": lambda f: tp.vmap(f, in_dims=1)(XS.T),
    "vmap, chunks": lambda f: tp.vmap(f, chunk_size=2)(XS),
    "jacfwd": lambda f: tp.jacfwd(f)(U),
    "jacrev": lambda f: tp.jacrev(f)(U),
    "vmap grad": lambda f: tp.vmap(tp.grad(f))(XS),
    "grad vmap": lambda f: tp.grad(total(f))(XS),
    "vmap jvp": lambda f: tp.vmap(along(f))(XS),
    "jvp vmap": lambda f: tp.jvp(tp.vmap(f), (XS,), (XS,))[1],
    "vmap vmap": lambda f: tp.vmap(tp.vmap(f))(XS[None]),
    "hessian": lambda f: tp.hessian(f)(U),
    "grad grad": lambda f: tp.grad(lambda x: tp.grad(f)(x)[0])(U),
    "jvp jvp": lambda f: along(along(f))(U),
    "jvp grad": lambda f: along(tp.grad(f))(U),
    "grad jvp": lambda f: tp.grad(along(f))(U),
    "jacfwd jacfwd": lambda f: tp.jacfwd(tp.jacfwd(f))(U),
    "jacrev jacrev": lambda f: tp.jacrev(tp.jacrev(f))(U),
    "vmap hessian": lambda f: tp.vmap(tp.hessian(f))(XS),
    "hessian vmap": lambda f: tp.hessian(total(f))(XS),
    "vmap grad grad": lambda f: tp.vmap(tp.grad(lambda x: tp.grad(f)(x)[1]))(XS),
    "grad vmap grad": lambda f: tp.grad(lambda xs: tp.vmap(tp.grad(f))(xs).prod())(XS),
    "vmap jvp jvp": lambda f: tp.vmap(along(along(f)))(XS),
    "grad linearize": lambda f: tp.grad(lambda x: tp.linearize(f, x)[1](x))(U),
    "vmap linearize": lambda f: tp.vmap(lambda x: tp.linearize(f, x)[1](V))(XS),
    "grad grad grad": lambda f: tp.grad(lambda x: tp.grad(lambda y: tp.grad(f)(y)[0])(x)[1])(U),
    "jvp jvp jvp": lambda f: along(along(along(f)))(U),
    "graph of vmap grad": lambda f: tp.make_graph(tp.vmap(tp.grad(f)))(XS)(XS),
    "graph of vmap hessian": lambda f: tp.make_graph(tp.vmap(tp.hessian(f)))(XS)(XS),
    "autograd": lambda f: torch.autograd.grad(f(u := U.clone().requires_grad_()), u)[0],
    "autograd twice": lambda f: torch.autograd.functional.hessian(f, U),
}
