"""The manifest of a checkpoint: what its files hold, in JSON with a checksum of itself.

The checksum is the last field, and covers every byte before it. It stands in this place in every schema, so that damage
is found before the schema is read.
"""

import hashlib
import json
import re
from typing import Any, NamedTuple

from ._dtypes import STORED, num_bytes
from ._migrations import migrate
from ._structure import LEAF, Node, check_node, dotted, iterate
from ._values import decode, encode, kind_of
from .sharded import Box, check_cover

MANIFEST = "manifest.json"
MAX_BYTES = 32 << 20  # of a manifest, and of the header of a file
FORMAT = "torchpure checkpoint"
_FILE = re.compile(r"arrays-[0-9]{5,9}\.safetensors", re.ASCII)
_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)
_END = re.compile(rb',\n"checksum": "sha256:([0-9a-f]{64})"\n\}\n')
_END_LENGTH = len(',\n"checksum": "sha256:"\n}\n') + 64


class FileRecord(NamedTuple):
    """A file of tensors."""

    name: str
    size: int  # bytes
    sha256: str  # for other programs, and for checkpoints without the next
    blake3: str | None  # that a restore checks: as strong, and three times as fast


class TensorRecord(NamedTuple):
    """A leaf that is a tensor."""

    path: str
    file: int  # index in the list of files
    name: str  # in the file
    dtype: str
    shape: tuple[int, ...]


class ValueRecord(NamedTuple):
    """A leaf that is not a tensor."""

    path: str
    value: Any


class ShardRecord(NamedTuple):
    """A part of a tensor that several processes have written."""

    file: int  # index in the list of files
    name: str  # in the file
    offset: tuple[int, ...]  # of its first element
    shape: tuple[int, ...]


class ShardedRecord(NamedTuple):
    """A leaf that is a tensor in parts, which cover it; they lie in one file or in several."""

    path: str
    dtype: str
    shape: tuple[int, ...]
    shards: tuple[ShardRecord, ...]


TENSORS = (TensorRecord, ShardedRecord)
Leaf = TensorRecord | ShardedRecord | ValueRecord


class Manifest(NamedTuple):
    """What a checkpoint holds."""

    versions: dict[str, str]
    metadata: dict[str, Any]
    files: tuple[FileRecord, ...]
    tree: Node
    leaves: tuple[Leaf, ...]


def write_manifest(manifest: Manifest, schema: int) -> bytes:
    """Return the bytes of the file, one line a leaf."""
    fields = {
        "format": FORMAT,
        "schema": schema,
        "versions": manifest.versions,
        "metadata": manifest.metadata,
        "files": [record._asdict() for record in manifest.files],
        "tree": manifest.tree,
    }
    lines = [f"{json.dumps(key)}: {json.dumps(value, allow_nan=False)}" for key, value in fields.items()]
    leaves = ",\n ".join([json.dumps(leaf_fields(leaf), allow_nan=False) for leaf in manifest.leaves])
    return sign(("{\n" + ",\n".join(lines) + f',\n"leaves": [\n {leaves}\n]').encode("ascii"))


def sign(body: bytes) -> bytes:
    """Close the object with the checksum of what stands before it."""
    return body + b',\n"checksum": "sha256:' + hashlib.sha256(body).hexdigest().encode() + b'"\n}\n'


def leaf_fields(leaf: Leaf) -> dict[str, Any]:
    """Return the JSON of a leaf."""
    if isinstance(leaf, ShardedRecord):
        return {**leaf._asdict(), "shards": [shard._asdict() for shard in leaf.shards]}
    if isinstance(leaf, TensorRecord):
        return leaf._asdict()
    return {"path": leaf.path, "kind": kind_of(leaf.value), "value": encode(leaf.value)}


def read_manifest(data: bytes) -> Manifest:
    """Check and read the bytes of a manifest.

    Raises:
        ValueError: it is damaged, or of a newer schema.
    """
    fields = migrate(_unsigned(data))
    wanted = {"format", "schema", "versions", "metadata", "files", "tree", "leaves", "checksum"}
    if fields.keys() != wanted:
        raise ValueError(f"wanted the fields {sorted(wanted)}, got {sorted(fields)!r:.200}")
    _check_versions(fields["versions"])
    if type(fields["metadata"]) is not dict:
        raise ValueError(f"wanted an object of metadata, got {fields['metadata']!r:.40}")
    files = tuple([_file(record) for record in _list(fields["files"])])
    if len({record.name for record in files}) != len(files):
        raise ValueError("a file is listed twice")
    check_node(fields["tree"])
    leaves = tuple([_leaf(record, len(files)) for record in _list(fields["leaves"])])
    paths = [dotted(path) for path, node in iterate(fields["tree"]) if node == LEAF]
    if paths != [leaf.path for leaf in leaves]:
        raise ValueError("the paths of the leaves are not those of the tree")
    return Manifest(fields["versions"], fields["metadata"], files, fields["tree"], leaves)


def _unsigned(data: bytes) -> dict[str, Any]:
    """Check the checksum and the format, and return the fields."""
    body, end = data[:-_END_LENGTH], _END.fullmatch(data[-_END_LENGTH:])
    if end is None:
        raise ValueError("it does not end with a checksum: it is cut short, or no manifest")
    if hashlib.sha256(body).hexdigest().encode() != end[1]:
        raise ValueError("its checksum is wrong: it was damaged or changed")
    fields = load_json(data)
    if type(fields) is not dict or fields.get("format") != FORMAT:
        raise ValueError(f"wanted the format {FORMAT!r}")
    return fields


def load_json(data: bytes) -> Any:
    """Read strict JSON.

    Raises:
        ValueError: it is none, or nested too deeply.
    """
    try:
        return json.loads(data.decode("utf-8"), parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("its JSON is nested too deeply") from None


def _refuse_constant(text: str) -> Any:
    raise ValueError(f"{text} is no JSON")


def _list(value: Any) -> list[Any]:
    if type(value) is not list:
        raise ValueError(f"wanted a list, got {value!r:.40}")
    return value


def _check_versions(value: Any) -> None:
    if type(value) is not dict or not all(type(version) is str for version in value.values()):
        raise ValueError(f"wanted versions, got {value!r:.40}")


def _file(record: Any) -> FileRecord:
    match record:
        case {"name": str() as name, "size": int() as size, "sha256": str() as digest} if len(record) == 4:
            fast = record.get("blake3", "")
            hashes = _DIGEST.fullmatch(digest) and (fast is None or (type(fast) is str and _DIGEST.fullmatch(fast)))
            if _FILE.fullmatch(name) and type(size) is int and 8 <= size < 1 << 63 and hashes:
                return FileRecord(name, size, digest, fast)
    raise ValueError(f"wanted a file of tensors with its size and hashes, got {record!r:.80}")


def _leaf(record: Any, num_files: int) -> Leaf:
    match record:
        case {"path": str() as path, "kind": str() as kind, "value": stored} if len(record) == 3:
            return ValueRecord(path, decode(kind, stored))
        case {"path": str() as path, "name": str() as name, "dtype": str() as dtype} if len(record) == 5:
            file, shape = record.get("file"), record.get("shape")
            if type(file) is int and 0 <= file < num_files and dtype in STORED:
                return TensorRecord(path, file, name, dtype, checked_shape(dtype, shape))
        case {"path": str() as path, "dtype": str() as dtype, "shards": list() as shards} if len(record) == 4:
            if dtype in STORED:
                shape = checked_shape(dtype, record.get("shape"))
                parts = tuple([_shard(shard, dtype, num_files) for shard in shards])
                check_cover([Box(part.offset, part.shape) for part in parts], shape)
                return ShardedRecord(path, dtype, shape, parts)
    raise ValueError(f"wanted a leaf, got {record!r:.80}")


def _shard(record: Any, dtype: str, num_files: int) -> ShardRecord:
    match record:
        case {"file": int() as file, "name": str() as name} if len(record) == 4:
            if type(file) is int and 0 <= file < num_files:
                offset, shape = [checked_shape(dtype, record.get(field)) for field in ("offset", "shape")]
                return ShardRecord(file, name, offset, shape)
    raise ValueError(f"wanted a part of a tensor, got {record!r:.80}")


def checked_shape(dtype: str, shape: Any) -> tuple[int, ...]:
    """Return a stored shape as a tuple.

    Raises:
        ValueError: it is no shape, or of more than 2⁶³ bytes.
    """
    if type(shape) is not list or len(shape) > 64 or not all(type(n) is int and 0 <= n < 1 << 63 for n in shape):
        raise ValueError(f"wanted a shape, got {shape!r:.80}")
    if num_bytes(dtype, tuple([max(length, 1) for length in shape])) >= 1 << 63:
        raise ValueError(f"a tensor of shape {shape!r:.80} is too large")
    return tuple(shape)
