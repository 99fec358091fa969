"""Checkpoints to damage, and the manifests of damaged ones."""

import json
from typing import NamedTuple

import torch

from torchpure import checkpoints
from torchpure.checkpoints import _manifest


class State(NamedTuple):
    mean: object
    count: object


TREE = {
    "w": torch.arange(12.0).reshape(3, 4),
    "state": [State(torch.ones(2, dtype=torch.bfloat16), 3), None, (1.5, "text")],
    "flags": torch.tensor([True, False]),
    "dtype": torch.float32,
    "large": 1 << 80,
    "size": torch.Size([2]),
}


def write(path, tree=None):
    """Save the tree above in a new folder."""
    checkpoints.save(path, TREE if tree is None else tree, metadata={"step": 3})
    return path


def fields_of(path):
    """Return the fields of a manifest without its checksum."""
    fields = json.loads((path / "manifest.json").read_text())
    del fields["checksum"]
    return fields


def signed(fields):
    """Return a manifest with these fields and the checksum that belongs to it."""
    return _manifest.sign(json.dumps(fields).encode()[:-1])


def rewrite(path, **changed):
    """Change fields of a manifest, with the checksum that belongs to them."""
    (path / "manifest.json").write_bytes(signed({**fields_of(path), **changed}))
