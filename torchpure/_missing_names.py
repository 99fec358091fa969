"""What to use instead of names of torch.func and JAX that this library does not have."""

from collections.abc import Iterable
from types import ModuleType

_REMEDIES = {
    "Array": "use torch.Tensor",
    "PRNGKey": "use tp.random.key(seed)",
    "ShapeDtypeStruct": "use tp.ShapeDtype",
    "block_until_ready": "results on the CPU are ready; on a GPU, use torch.cuda.synchronize()",
    "checkpoint": "use tp.remat",
    "checkpoint_name": "use tp.remat_name",
    "checkpoint_policies": "use tp.remat(fn, policy)",
    "combine_state_for_ensemble": "use tp.ensemble, or tp.stack of the parameters",
    "compile": "use tp.jit",
    "custom_gradient": "use tp.custom_vjp",
    "debug_unwrap": "use tp.debug, which shows values inside of transforms",
    "device_get": "use tensor.cpu()",
    "functional_call": "use net = tp.functional(module), then net(params, *inputs)",
    "functionalize": "use the function as it is: tp.jit and tp.make_graph take operations in place",
    "grad_and_value": "use tp.value_and_grad, which returns (value, grads)",
    "hvp": "use tp.jvp(tp.grad(fn), (x,), (v,))[1]",
    "in_axes": "use tp.vmap(fn, in_dims)",
    "jacobian": "use tp.jacrev or tp.jacfwd",
    "jnp": "use torch",
    "lax": "its functions are here: tp.scan, tp.cond, tp.switch, tp.while_loop, tp.fori_loop, tp.map, tp.psum",
    "Mesh": "use tp.make_mesh(shape, names)",
    "NamedSharding": "use tp.device_put(tree, mesh, specs)",
    "load": "use tp.restore(path, like)",
    "make_functional": "use net = tp.functional(module), then net(params, *inputs)",
    "make_functional_with_buffers": "use net = tp.functional(module), then net.apply(params, state, *inputs)",
    "make_fx": "use tp.make_graph(fn)(*args)",
    "make_jaxpr": "use tp.make_graph(fn)(*args)",
    "named_call": "use tp.named_scope",
    "nn": "use torch.nn, and tp.functional, which makes a function of a module",
    "numpy": "use torch",
    "out_axes": "use tp.vmap(fn, in_dims, out_dims)",
    "rearrange": "use torch.func.rearrange",
    "replace_all_batch_norm_modules_": "use net.apply(params, state, *inputs), which returns the new statistics",
    "stack_module_state": "use tp.ensemble, or tp.stack([net.params for net in nets])",
    "tree_util": "use tp.tree",
    "vhp": "use tp.vjp(tp.grad(fn), x)[1](v)",
}


def remedy(name: str, spaces: Iterable[ModuleType]) -> str | None:
    """Say what to use instead of a missing name; None if nothing is known.

    >>> remedy("grad_and_value", ())
    'use tp.value_and_grad, which returns (value, grads)'
    """
    if name in _REMEDIES:
        return _REMEDIES[name]
    for space in spaces:
        short = space.__name__.partition(".")[2]
        for public in (name, name.lower(), name.removeprefix(f"{short}_")):  # `Adam`, `tree_map`
            if public in getattr(space, "__all__", ()):
                return f"use tp.{short}.{public}"
    return None
