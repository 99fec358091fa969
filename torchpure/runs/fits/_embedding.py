"""The first layer of a network with categories: an index becomes a learned vector."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from torchpure.data import Column

MAX_EMBEDDING = 32


class _Span(NamedTuple):
    start: int
    stop: int
    table: str | None  # the name of the embedding of one column; None: numbers that stay as they are


def embedding_width(categories: int) -> int:
    """Return the width of an embedding: the square root of the number of categories, rounded up, at most 32.

    >>> embedding_width(17), embedding_width(5000)
    (5, 32)
    """
    return min(MAX_EMBEDDING, math.ceil(math.sqrt(categories)))


class Embed(nn.Module):
    """Replace the columns of indices by rows of tables, (rows, features) -> (rows, wider features).

    Index 0, a category that training did not have, gives the mean of the table.
    """

    def __init__(self, columns: Sequence[Column], dtype: torch.dtype) -> None:
        super().__init__()
        self.spans: list[_Span] = []
        self.tables = nn.ModuleDict()
        start = 0
        for column in columns:
            name = f"column{len(self.tables)}" if column.kind == "embedding" else None
            if name is not None:
                count = len(column.categories)
                self.tables[name] = nn.Embedding(count, embedding_width(count), device="meta", dtype=dtype)
            self.spans.append(_Span(start, start + column.width, name))
            start += column.width

    @property
    def width(self) -> int:
        """Return the number of features that come out."""
        return sum(
            span.stop - span.start if span.table is None else self._table(span.table).embedding_dim
            for span in self.spans
        )

    @property
    def num_parameters(self) -> int:
        """Return the number of parameters."""
        return sum(value.numel() for value in self.parameters())

    def forward(self, x: Tensor) -> Tensor:
        """Look up the rows of the tables."""
        return torch.cat([self._part(span, x[:, span.start : span.stop]) for span in self.spans], dim=1)

    def _table(self, name: str) -> nn.Embedding:
        table = self.tables[name]
        assert isinstance(table, nn.Embedding)
        return table

    def _part(self, span: _Span, values: Tensor) -> Tensor:
        if span.table is None:
            return values
        weight = self._table(span.table).weight
        rows = torch.cat([weight.mean(0, keepdim=True), weight])
        return nn.functional.embedding(values[:, 0].to(torch.int64), rows)
