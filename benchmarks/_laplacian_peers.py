"""Laplacians in JAX, in the forms that people write: folx with and without sparsity, Hessians, jvp of grad."""

from collections.abc import Callable
from typing import Any

FOLX, SPARSE, HESSIAN, PUSHED = "JAX, folx", "JAX, folx, sparsity", "JAX, hessian", "JAX, jvp of grad"
FORMS = {
    FOLX: "jax.jit of vmap of folx.forward_laplacian",
    SPARSE: "the same, sparsity_threshold=6",
    HESSIAN: "jax.jit of vmap of the trace of jax.hessian",
    PUSHED: "jax.jit of vmap of vmap of jvp of grad along each coordinate",
}
Scalar = Callable[[Any, Any], Any]  # (params, point) -> scalar
Work = Callable[[], Any]


def jax_programs(one: Scalar, params: Any, xs: Any, differentiate: bool) -> dict[str, Work]:
    """Return a program for each form: the mean of the squared Laplacian, or its value and θ-gradient."""
    import folx  # pyrefly: ignore[missing-import] only `make bench` installs it
    import jax
    import jax.numpy as jnp

    def along(at: Any, fn: Any) -> Any:
        flat, shape = at.reshape(-1), at.shape
        slope = jax.grad(lambda z: fn(z.reshape(shape)))
        second = lambda v: jax.jvp(slope, (flat,), (v,))[1] @ v  # noqa: E731
        return jax.vmap(second)(jnp.eye(flat.size)).sum()

    def trace(at: Any, fn: Any) -> Any:
        return jnp.trace(jax.hessian(fn)(at).reshape(at.size, at.size))

    forms = {
        FOLX: lambda at, fn: folx.forward_laplacian(fn, sparsity_threshold=0)(at).laplacian,
        SPARSE: lambda at, fn: folx.forward_laplacian(fn, sparsity_threshold=6)(at).laplacian,
        HESSIAN: trace,
        PUSHED: along,
    }

    def program(form: Callable[[Any, Any], Any]) -> Work:
        def loss(params: Any) -> Any:
            return jnp.mean(jax.vmap(lambda at: form(at, lambda z: one(params, z)))(xs) ** 2)

        run = jax.jit(jax.value_and_grad(loss) if differentiate else loss)
        return lambda: jax.block_until_ready(run(params))

    return {name: program(form) for name, form in forms.items()}
