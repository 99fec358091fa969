"""Tables of other libraries and DataLoaders as the data of a fit."""

import pyarrow as pa
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

import torchpure as tp

SGD = tp.optim.sgd(0.1)
TABLE = pa.table(
    {"a": [1.0, 2.0, 3.0], "b": [True, False, True], "n": [1, 2, 3], "y": [2.0, 4.0, 6.0], "t": ["u", "v", "w"]}
)
X = torch.tensor([[1.0, 1.0], [2.0, 0.0], [3.0, 1.0]])
Y = torch.tensor([[2.0], [4.0], [6.0]])


class Stream:
    """A table that has the Arrow C stream interface and nothing else."""

    def __init__(self, table):
        self.table = table

    def __arrow_c_stream__(self, requested_schema=None):
        return self.table.__arrow_c_stream__(requested_schema)


def net():
    module = nn.Linear(2, 1)
    with torch.no_grad():
        module.weight.fill_(0.5)
        module.bias.zero_()
    return module


def history(data, **options):
    return tp.fit(net(), data, optimizer=SGD, steps=5, **options).history


@pytest.mark.parametrize("wrap", [Stream, lambda table: table, lambda table: table.to_reader()])
def test_a_table_is_its_columns(wrap):
    assert torch.equal(history(wrap(TABLE), columns=["a", "b", "y"]), history((X, Y)))


def test_without_names_all_columns_count_in_order():
    assert torch.equal(history(TABLE.select(["a", "b", "y"])), history((X, Y)))


def test_minibatches_of_a_table():
    options = {"batch_size": 2, "key": tp.random.key(0)}
    assert torch.equal(history(Stream(TABLE), columns=["a", "b", "y"], **options), history((X, Y), **options))


def test_a_loss_function_gets_a_dict():
    seen = {}

    def loss(params, batch):
        seen.update(batch)
        return ((params * batch["a"] - batch["y"]) ** 2).mean()

    result = tp.fit(loss, Stream(TABLE), columns=["a", "n", "y"], params=torch.tensor(0.0), optimizer=SGD, steps=50)
    assert float(result.params) == pytest.approx(2.0, abs=1e-3)
    assert {name: (value.dtype, value.shape) for name, value in seen.items()} == {
        "a": (torch.float32, (3,)),
        "n": (torch.int64, (3,)),
        "y": (torch.float32, (3,)),
    }


@pytest.mark.parametrize(
    ("data", "columns", "error", "message"),
    [
        (
            TABLE,
            ["a", "yy"],
            ValueError,
            r"fit: the table has no column 'yy' .did you mean 'y'..; it has a, b, n, y, t",
        ),
        (TABLE, ["t", "y"], TypeError, "fit: column 't' holds string: wanted numbers; torchpure.data.fit_columns"),
        (TABLE, "a", TypeError, "fit: columns must be a list of names, got 'a'"),
        (TABLE, ["y"], TypeError, "fit: a module needs data"),
        ((X, Y), ["a"], TypeError, "fit: columns= is for tables with __arrow_c_stream__, got data of type tuple"),
        (pa.table({"a": [1.0, None], "y": [1.0, 2.0]}), None, ValueError, "fit: column 'a' has no value in row 1"),
    ],
)
def test_refused(data, columns, error, message):
    with pytest.raises(error, match=message):
        tp.fit(net(), data, columns=columns, optimizer=SGD, steps=1)


class Rows(Dataset):
    def __init__(self, broken=None):
        self.broken = broken

    def __len__(self):
        return 12

    def __getitem__(self, row):
        if row == self.broken:
            raise ValueError(f"row {row} is broken")
        return torch.tensor([float(row), 1.0]) / 12, torch.tensor([2.0 * row]) / 12


def loader(workers, seed=0, **options):
    order = torch.Generator().manual_seed(seed)
    return DataLoader(Rows(**options), batch_size=4, shuffle=True, generator=order, num_workers=workers)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_data_loader_gives_the_order_of_its_generator(workers):
    """The batches are those of plain loops over the loader, epoch after epoch."""
    plain = loader(workers)
    batches = [*plain, *plain]
    losses = history(loader(workers))
    assert torch.equal(losses, history(batches))
    assert torch.equal(losses, history(loader(workers)))
    assert not torch.equal(losses, history(loader(workers, seed=1)))


def test_an_error_of_a_worker_is_shown():
    with pytest.raises(ValueError, match="row 7 is broken"):
        history(loader(1, broken=7))
