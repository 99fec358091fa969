"""What is relied on of torch's unnamed operations, of its modules, and of its compiler."""

from collections import OrderedDict, defaultdict

import torch
from contracts import called, relied_on
from torch import Tensor, nn
from torch.nn import functional as F

from torchpure._torch import (
    BatchNorm,
    assert_async,
    calculate_fan_in_and_fan_out,
    foreach_add,
    foreach_clone,
    foreach_lerp,
    foreach_mul,
    foreach_norm,
    foreach_sub,
    fused_adam_,
    fused_adamw_,
    fused_sgd_,
    get_enum,
    jit_internal,
    mse_loss,
    native_batch_norm_legit,
    nested_tensor_from_mask_left_aligned,
    pytree,
    rrelu_with_noise,
    rrelu_with_noise_,
    sample_dirichlet,
    standard_gamma,
    standard_gamma_grad,
    storage_use_count,
    tensor,
    weight_norm,
)

X = torch.tensor([1.0, 2.0, 3.0])
called("calculate_fan_in_and_fan_out", "tensor")
called("get_enum", "mean")
called("inductor.compile_fx", "module", ["tensor"], inner_compile="function", config_patches={}, decompositions={})
called("inductor.compile_fx_inner", "module", ["tensor"])
called("inductor.ShapeEnv")
called("inductor.select_decomp_table")
called("pytree.register_pytree_node", "class", "flatten", "unflatten")


@relied_on("foreach_add", "foreach_sub", "foreach_mul", "foreach_lerp", "foreach_norm", "foreach_clone")
def many_tensors_are_one_call():
    many, ones = [X, X.double()], [torch.ones(3), torch.ones(3).double()]
    found = {
        "add": (foreach_add(many, ones), lambda x, one: x + one),
        "add alpha": (foreach_add(many, ones, alpha=0.5), lambda x, one: x + 0.5 * one),
        "sub": (foreach_sub(many, ones), lambda x, one: x - one),
        "mul": (foreach_mul(many, 2.0), lambda x, one: x * 2),
        "lerp": (foreach_lerp(many, ones, 0.25), lambda x, one: torch.lerp(x, one, 0.25)),
        "norm": (foreach_norm(many), lambda x, one: torch.linalg.vector_norm(x)),
        "clone": (foreach_clone(many), lambda x, one: x),
    }
    for values, formula in found.values():
        for value, x, one in zip(values, many, ones, strict=True):
            torch.testing.assert_close(value, formula(x, one))
    assert foreach_clone(many)[0].data_ptr() != X.data_ptr()


def _one_step(make, fused, *states: Tensor, **options) -> None:
    """Compare a fused step, in place, with that of `torch.optim`."""
    p, theirs = X.clone(), nn.Parameter(X.clone())
    theirs.grad = torch.ones(3)
    make([theirs]).step()
    fused([p], [torch.ones(3)], *states, **options)
    torch.testing.assert_close(p, theirs.detach())


@relied_on("fused_adam_", "fused_adamw_")
def adam_is_one_call():
    for fused, make, decay in ((fused_adam_, torch.optim.Adam, 0.0), (fused_adamw_, torch.optim.AdamW, 0.1)):
        options = {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": decay}
        states = ([torch.zeros(3)], [torch.zeros(3)], [], [torch.tensor(1.0)])
        make_own = lambda params, make=make, decay=decay: make(params, lr=0.1, weight_decay=decay)  # noqa: E731
        _one_step(make_own, fused, *states, lr=0.1, amsgrad=False, maximize=False, **options)


@relied_on("fused_sgd_")
def sgd_is_one_call():
    options = {"weight_decay": 0.0, "momentum": 0.5, "lr": 0.1, "dampening": 0.0, "nesterov": True}
    make = lambda params: torch.optim.SGD(params, lr=0.1, momentum=0.5, nesterov=True)  # noqa: E731
    _one_step(make, fused_sgd_, [torch.zeros(3)], maximize=False, is_first_step=False, **options)


@relied_on("assert_async")
def a_check_is_an_operation():
    assert_async(torch.tensor(True), "fine")
    try:
        assert_async(torch.tensor(False), "these words")
    except RuntimeError as error:
        assert "these words" in str(error)
    else:
        raise AssertionError("the check does not raise")


@relied_on("mse_loss", "get_enum")
def a_loss_takes_the_number_of_its_reduction():
    for reduction in ("mean", "sum", "none"):
        torch.testing.assert_close(mse_loss(X, X + 2, get_enum(reduction)), F.mse_loss(X, X + 2, reduction=reduction))


@relied_on("native_batch_norm_legit")
def batch_norm_takes_statistics():
    rows = torch.arange(6.0).reshape(3, 2)
    ours = native_batch_norm_legit(rows, None, None, torch.zeros(2), torch.ones(2), True, 0.1, 1e-5)
    torch.testing.assert_close(ours[0], F.batch_norm(rows, None, None, training=True))


@relied_on("weight_norm")
def weights_are_normalised():
    v = torch.arange(1.0, 7.0).reshape(2, 3)
    torch.testing.assert_close(weight_norm(v, torch.ones(2, 1), 0), v / v.norm(dim=1, keepdim=True))


@relied_on("standard_gamma", "standard_gamma_grad", "sample_dirichlet", "rrelu_with_noise", "rrelu_with_noise_")
def draws_have_these_names():
    generator = torch.Generator().manual_seed(0)
    drawn = standard_gamma(X, generator=generator)
    assert drawn.shape == X.shape and (standard_gamma_grad(X, drawn) > 0).all()
    torch.testing.assert_close(sample_dirichlet(X, generator=generator).sum(), torch.tensor(1.0))
    for draw in (rrelu_with_noise, rrelu_with_noise_):
        out = draw(-X, torch.zeros(3), 0.5, 0.5, True, generator)
        torch.testing.assert_close(out, -X / 2)


@relied_on("storage_use_count")
def uses_of_memory_are_counted():
    """One tensor has two uses of its storage while it is asked for; a view adds one."""
    own = X.clone()
    assert storage_use_count(own.untyped_storage()._cdata) == 2
    view = own[1:]
    assert storage_use_count(view.untyped_storage()._cdata) > 2


@relied_on("BatchNorm", "calculate_fan_in_and_fan_out")
def layers_have_these_parts():
    assert issubclass(nn.BatchNorm1d, BatchNorm) and nn.BatchNorm1d.forward is BatchNorm.forward
    assert nn.BatchNorm1d(2)._check_input_dim(torch.ones(3, 2)) is None
    assert calculate_fan_in_and_fan_out(torch.ones(4, 3, 2)) == (6, 8)


@relied_on("nested_tensor_from_mask_left_aligned")
def encoders_ask_whether_a_mask_is_left_aligned():
    """An encoder takes its padded path if the answer is no."""
    mask = torch.tensor([[True, True, False]])
    assert nested_tensor_from_mask_left_aligned(torch.ones(1, 3, 2), mask)
    assert not nested_tensor_from_mask_left_aligned(torch.ones(1, 3, 2), ~mask)
    assert nn.TransformerEncoder(nn.TransformerEncoderLayer(2, 2, batch_first=True), 1).use_nested_tensor


@relied_on("tensor", "jit_internal")
def functions_of_torchs_python_live_there():
    assert Tensor.norm.__globals__["__name__"] == tensor.__name__
    assert F.max_pool2d.__globals__["__name__"] == jit_internal.__name__


@relied_on("pytree.SUPPORTED_NODES", "pytree.register_pytree_node")
def trees_are_taken_apart():
    class Pair:
        def __init__(self, one, two):
            self.one, self.two = one, two

    pytree.register_pytree_node(Pair, lambda pair: ([pair.one, pair.two], None), lambda leaves, _: Pair(*leaves))
    node = pytree.SUPPORTED_NODES[Pair]
    children, context = node.flatten_fn(Pair(1, 2))
    assert (children, context) == ([1, 2], None) and node.unflatten_fn(children, context).two == 2
    keys = {}
    for filled in (OrderedDict(b=1, a=2), defaultdict(None, b=1, a=2)):
        children, keys[type(filled)] = pytree.SUPPORTED_NODES[type(filled)].flatten_fn(filled)
        assert children == [1, 2]  # insertion order
    assert keys == {OrderedDict: ["b", "a"], defaultdict: [None, ["b", "a"]]}


@relied_on("pytree.GetAttrKey", "pytree.MappingKey", "pytree.SequenceKey")
def keys_of_nodes_say_what_they_name():
    kept = pytree.SUPPORTED_NODES[OrderedDict].flatten_with_keys_fn(OrderedDict(b=1))
    assert kept == ([(pytree.MappingKey("b"), 1)], ["b"])
    assert (pytree.MappingKey("b").key, pytree.SequenceKey(3).idx, pytree.GetAttrKey("x").name) == ("b", 3, "x")


@relied_on("compiler_config.functorch_config", "compiler_config.inductor_config")
def settings_of_the_compiler_have_a_hash():
    from torchpure._torch.compiler_config import functorch_config, inductor_config

    assert functorch_config.get_hash().hex()
    before = inductor_config.get_hash().hex()
    with inductor_config.patch({"epilogue_fusion": not inductor_config.epilogue_fusion}):
        assert inductor_config.get_hash().hex() != before
    names = ("fx_graph_cache", "fx_graph_remote_cache", "cpp.cxx", "reorder_for_locality")
    assert set(names) <= set(inductor_config.get_config_copy())


@relied_on("inductor.select_decomp_table")
def the_compiler_decomposes_by_a_table():
    from torchpure._torch import inductor

    table = inductor.select_decomp_table()
    assert torch.ops.aten.floor_divide.default in table and torch.ops.aten.std.correction in table


@relied_on("inductor.OutputType", "inductor.ShapeEnv", "inductor.compile_fx", "inductor.compile_fx_inner")
def the_compiler_says_what_it_made():
    """Checked without compiling: tests/jit does that."""
    from torchpure._torch import inductor

    kinds = inductor.OutputType
    assert len({kinds.non_alias, kinds.unsafe_view_alias, kinds.is_input, kinds.alias_of_input}) == 4
    assert inductor.ShapeEnv() is not None and callable(inductor.compile_fx) and callable(inductor.compile_fx_inner)
