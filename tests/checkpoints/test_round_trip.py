"""What is saved comes back, bit by bit."""

import json
import math
from collections import OrderedDict, defaultdict, deque
from dataclasses import dataclass
from typing import NamedTuple

import pytest
import torch
from safetensors import safe_open

import torchpure as tp
from torchpure import checkpoints
from torchpure.errors import InputError, TransformError


class Moments(NamedTuple):
    mean: object
    count: object


@dataclass
class Interval:
    low: object
    high: object


tp.tree.register_dataclass(Interval)

DTYPES = [
    torch.bool, torch.uint8, torch.int8, torch.uint16, torch.int16, torch.uint32, torch.int32, torch.uint64, torch.int64,
    torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.float8_e4m3fn, torch.float8_e5m2,
    torch.float8_e4m3fnuz, torch.float8_e5m2fnuz, torch.float8_e8m0fnu, torch.float4_e2m1fn_x2,
    torch.complex32, torch.complex64, torch.complex128,
]  # fmt: skip


def _same(a, b):
    """Return whether two leaves have the same type and bits."""
    if isinstance(a, torch.Tensor):
        same = type(b) is torch.Tensor and (a.dtype, a.shape) == (b.dtype, b.shape)
        return same and checkpoints._tensor_file.data_of(a) == checkpoints._tensor_file.data_of(b)
    return type(a) is type(b) and (a == b or (a != a and b != b))


def assert_same(a, b):
    assert tp.tree.structure(a) == tp.tree.structure(b)
    pairs = list(zip(tp.tree.leaves(a), tp.tree.leaves(b), strict=True))
    assert all(_same(x, y) for x, y in pairs), [(x, y) for x, y in pairs if not _same(x, y)]


@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (0,), (2, 0, 3)], ids=str)
def test_every_dtype_comes_back_bit_by_bit(tmp_path, dtype, shape):
    size = math.prod(shape) * dtype.itemsize
    words = torch.arange(7, 7 + size, dtype=torch.int64).mul(37).to(torch.uint8)
    value = words.view(dtype).reshape(shape) if dtype is not torch.bool else (words % 2 == 1).reshape(shape)
    checkpoints.save(tmp_path / "c", {"x": value})
    for like in (None, {"x": value}, {"x": torch.empty(shape, dtype=dtype, device="meta")}):
        assert_same(checkpoints.restore(tmp_path / "c", like), {"x": value})


base = torch.arange(24.0).reshape(4, 6)
LAYOUTS = {
    "transposed": base.t(),
    "strided": base[::2, ::3],
    "expanded": torch.ones(1).expand(3, 4),
    "conjugate": torch.complex(base, -base).conj(),
    "negative": torch.complex(base, -base).conj().imag,
    "channels last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
    "parameter": torch.nn.Parameter(base.clone()),
    "nonleaf": (base.clone().requires_grad_() * 2),
    "key": tp.random.key(3),
    "nan": torch.tensor([math.nan, -0.0, math.inf]),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_comes_back_as_a_plain_tensor(tmp_path, name):
    value = LAYOUTS[name]
    tp.save(tmp_path / "c", value)
    found = tp.restore(tmp_path / "c", like=value)
    assert _same(value.detach().resolve_neg().clone(), found)
    assert type(found) is torch.Tensor and not found.requires_grad and found.is_contiguous()


VALUES = [
    True, False, 0, -5, 1 << 62, -(1 << 63), 1 << 200, -(1 << 70), 0.1, -0.0, 5e-324, math.inf, -math.inf, math.nan, 1e308, 3 + 4j,
    complex(math.inf, -0.0), "", "text", "ü\n\0\ud800", torch.float32, torch.bfloat16, torch.device("cpu"), torch.device("cuda:1"),
    torch.Size([]), torch.Size([2, 3]),
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_every_value_comes_back(tmp_path, value):
    tp.save(tmp_path / "c", [value, None])
    for like in (None, [value, None]):
        found = tp.restore(tmp_path / "c", like)
        assert _same(found[0], value) and found[1] is None
        assert not isinstance(value, float) or math.copysign(1, found[0]) == math.copysign(1, value) or value != value


TREES = {
    "empty": {},
    "none": None,
    "nested": {"a": [1, (2.0, {"b": torch.ones(2)})], "empty": [(), {}, []], "none": None},
    "keys": {"": 1, ".": 2, 3: 4, -1: 5, "ü ~": torch.ones(1), "\n": torch.ones(1), "__metadata__": torch.ones(1)},
    "same path": {"a.b": torch.zeros(2), "a": {"b": torch.ones(2)}, "a.b~1": torch.ones(3)},
    "numbers and words": {1: torch.zeros(1), "1": torch.ones(1)},
    "tied": {"a": base, "b": base, "c": base[0]},
}


@pytest.mark.parametrize("name", TREES)
def test_plain_trees_come_back_with_and_without_like(tmp_path, name):
    value = TREES[name]
    checkpoints.save(tmp_path / "c", value)
    assert_same(checkpoints.restore(tmp_path / "c"), value)
    assert_same(checkpoints.restore(tmp_path / "c", like=value), value)


def test_classes_come_back_with_like_and_are_dicts_without(tmp_path):
    value = {
        "state": Moments(torch.ones(2), Interval(1, 2.0)),
        "ordered": OrderedDict(b=1, a=2),
        "default": defaultdict(list, {"x": 3}),
        "deque": deque([1, torch.zeros(2)]),
    }
    tp.save(tmp_path / "c", value)
    assert_same(tp.restore(tmp_path / "c", like=value), value)
    plain = {
        "state": {"mean": torch.ones(2), "count": {"low": 1, "high": 2.0}},
        "ordered": {"b": 1, "a": 2},
        "default": {"x": 3},
        "deque": {0: 1, 1: torch.zeros(2)},
    }
    assert_same(tp.restore(tmp_path / "c"), plain)


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd", "lion"])
def test_optimizer_states_come_back(tmp_path, name):
    optimizer = getattr(tp.optim, name)(0.1)
    params = {"w": torch.randn(3, 2, dtype=torch.float64), "b": torch.randn(2)}
    params, state = optimizer.step(params, optimizer.init(params), params)
    tp.save(tmp_path / "c", (params, state))
    assert_same(tp.restore(tmp_path / "c", like=(params, optimizer.init(params))), (params, state))


def test_restored_tensors_have_memory_of_their_own(tmp_path):
    tp.save(tmp_path / "c", {"a": base, "b": base})
    found = tp.restore(tmp_path / "c")
    found["a"].zero_()
    assert torch.equal(found["b"], base)
    assert found["a"].untyped_storage().nbytes() == base.numel() * 4


def test_the_files_are_safetensors(tmp_path):
    value = {
        "w": torch.randn(3, 4).bfloat16(),
        "z": torch.complex(base, base),
        "e": torch.zeros(0),
        "flag": torch.tensor(True),
    }
    checkpoints.save(tmp_path / "c", value)
    with safe_open(tmp_path / "c" / "arrays-00000.safetensors", framework="pt") as file:
        assert set(file.keys()) == set(value)
        assert torch.equal(file.get_tensor("w"), value["w"])
        assert torch.equal(torch.view_as_complex(file.get_tensor("z")), value["z"])


def test_large_trees_are_split_into_files(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints._plan, "_LEAST_FILE", 4096)
    value = {f"w{i}": torch.full((300,), i) for i in range(10)} | {"huge": torch.arange(5000), "n": 3}
    checkpoints.save(tmp_path / "c", value)
    assert len(list((tmp_path / "c").glob("arrays-*.safetensors"))) > 3
    assert_same(checkpoints.restore(tmp_path / "c"), value)
    part = checkpoints.restore(tmp_path / "c", like=tp.tree.map(lambda x: x * 0, value), only="w[37]")
    assert [int(part[f"w{i}"][0]) for i in range(10)] == [0, 0, 0, 3, 0, 0, 0, 7, 0, 0]


def test_the_manifest_is_json_without_classes_to_import(tmp_path):
    tp.save(tmp_path / "c", {"m": Moments(torch.ones(2), 1)}, metadata={"data": ["digits", 1.5, None]})
    fields = json.loads((tmp_path / "c" / "manifest.json").read_text())
    assert fields["schema"] == 2 and fields["metadata"] == {"data": ["digits", 1.5, None]}
    assert fields["tree"]["children"][0]["class"] == "Moments"
    assert fields["versions"]["torch"] == str(torch.__version__)


REFUSED = {
    "bytes": (b"x", "leaf `a.0` is a bytes; wanted a tensor"),
    "numpy": (torch.ones(2).numpy(), "numpy.ndarray .use torch.from_numpy"),
    "float subclass": (torch.ones(2).double().numpy()[0], "numpy.float64"),
    "function": (len, "builtin_function_or_method"),
    "class": (Interval, "leaf `a.0` is a type"),
    "module": (torch.nn.Linear(1, 1), "torch.nn.modules.linear.Linear"),
    "meta": (torch.ones(2, device="meta"), "is a meta tensor"),
    "sparse": (torch.ones(2, 2).to_sparse(), "is a sparse_coo tensor"),
    "bits": (torch.empty(2, dtype=torch.bits8), "tensor of torch.bits8; wanted a strided"),
    "set": ({1, 2}, "leaf `a.0` is a set"),
    "key": ({(1, 2): 3}, r"key \(1, 2\) at `a.0`: wanted a string or an integer"),
    "bool key": ({True: 3}, "key True at"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_stored_is_refused_with_its_path(tmp_path, name):
    value, message = REFUSED[name]
    with pytest.raises(InputError, match=f"save: .*{message}"):
        tp.save(tmp_path / "c", {"a": [value]})
    assert list(tmp_path.iterdir()) == []


def test_a_deep_or_endless_tree_is_refused(tmp_path):
    endless = []
    endless.append(endless)
    with pytest.raises(InputError, match="the tree is deeper than 64"):
        tp.save(tmp_path / "c", endless)


@pytest.mark.parametrize("metadata", [[1], {"a": math.nan}, {"a": torch.ones(1)}, {"a": {1, 2}}], ids=repr)
def test_metadata_must_be_json(tmp_path, metadata):
    with pytest.raises(InputError, match="save: metadata: wanted"):
        tp.save(tmp_path / "c", {}, metadata=metadata)


def test_traced_tensors_are_refused(tmp_path):
    caught = []

    def keep(x):
        caught.append(x)
        tp.save(tmp_path / "c", x)
        return x

    with pytest.raises(TransformError, match="save: called inside a transform"):
        tp.vmap(keep)(torch.ones(2))
    with pytest.raises(TransformError, match="save: called inside a transform"):
        tp.jit(keep)(torch.ones(2))
    for transformed in (tp.grad(lambda x: keep(x).sum()), tp.hessian(lambda x: keep(x).sum()), tp.pure(keep)):
        with pytest.raises(TransformError, match="save: called inside a transform"):
            transformed(torch.ones(2))
    with pytest.raises(TransformError, match="save: leaf `a` is a traced tensor"):
        tp.save(tmp_path / "c", {"a": caught[0]})
    with pytest.raises(TransformError, match="restore: called inside a transform"):
        tp.vmap(lambda x: tp.restore(tmp_path / "c"))(torch.ones(2))
    assert list(tmp_path.iterdir()) == []


def test_a_description_is_short(tmp_path):
    value = {f"layer{i}\n": torch.ones(2, 3) for i in range(100)} | {"step": 3}
    tp.save(tmp_path / "c", value, metadata={"text": "x" * 1000})
    found = checkpoints.describe(tmp_path / "c")
    assert len(repr(found).splitlines()) <= 12 and len(repr(found)) < 1200
    assert "100 tensors, 2.4 kB, in 1 files; 1 other leaves" in repr(found)
    assert found.leaves[-1] == ("step", "int", None) and found.num_bytes == 2400


def test_a_callback_of_fit_may_save(tmp_path):
    net = tp.functional(torch.nn.Linear(2, 1))
    data = (torch.randn(8, 2), torch.randn(8, 1))
    save = lambda progress: tp.save(tmp_path / str(progress.step), (progress.params, progress.opt_state))  # noqa: E731
    result = tp.fit(net, data, optimizer=tp.optim.adam(1e-2), steps=4, every=2, callback=save)
    assert_same(tp.restore(tmp_path / "4", like=(result.params, result.opt_state)), (result.params, result.opt_state))


def test_defaults_of_torch_do_not_matter(tmp_path):
    tp.save(tmp_path / "c", {"w": base})
    with torch.device("meta"):
        tp.save(tmp_path / "d", {"w": base})
        found = [tp.restore(tmp_path / name) for name in "cd"]
    assert all(_same(tree["w"], base) for tree in found)
