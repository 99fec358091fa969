"""Files of tensors in the safetensors format, written and read with their hashes.

A file is the length of the header (8 bytes), the header in JSON, and the bytes of the tensors without gaps
(https://github.com/huggingface/safetensors, "Format"). Each file is hashed while it is written or read.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from blake3 import blake3
from torch import Tensor

from ._dtypes import STORED, num_bytes
from ._fault_in import fault_in
from ._files import CHUNK, existing_file, new_file, read_exactly, read_into, write_all
from ._manifest import MAX_BYTES, FileRecord, TensorRecord, load_json


def header_fields(records: Sequence[TensorRecord]) -> dict[str, Any]:
    """Return the entries of the header of a file with these tensors, in this order."""
    fields, start = {}, 0
    for record in records:
        stored = STORED[record.dtype]
        end = start + num_bytes(record.dtype, record.shape)
        shape = [*record.shape, stored.parts] if stored.parts > 1 else [*record.shape]
        fields[record.name] = {"dtype": stored.code, "shape": shape, "data_offsets": [start, end]}
        start = end
    return fields


def header_bytes(records: Sequence[TensorRecord]) -> bytes:
    """Return the length and the header, padded so that the data begins at a multiple of 8."""
    text = json.dumps(header_fields(records), separators=(",", ":")).encode("ascii")
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def check_header(text: bytes, records: Sequence[TensorRecord]) -> None:
    """Check that the header of a file lists the tensors of the manifest.

    Raises:
        ValueError: it does not.
    """
    fields = load_json(text)
    if fields != header_fields(records) or not isinstance(fields, dict):
        raise ValueError("its header does not list the tensors of the manifest")


def write_tensors(path: Path, records: Sequence[TensorRecord], tensors: Sequence[Tensor]) -> FileRecord:
    """Write a file to the disk and return its size and hash."""
    header = header_bytes(records)
    slow, fast, size = hashlib.sha256(header), blake3(header), len(header)
    with new_file(path) as descriptor:
        write_all(descriptor, header)
        for tensor in tensors:
            data = data_of(tensor)
            size += len(data)
            for start in range(0, len(data), CHUNK):
                chunk = data[start : start + CHUNK]
                slow.update(chunk)
                fast.update(chunk)
                write_all(descriptor, chunk)
    return FileRecord(path.name, size, slow.hexdigest(), fast.hexdigest())


def data_of(tensor: Tensor) -> memoryview:
    """Return the bytes of a tensor, row by row; without a copy if they lie so in memory."""
    values = tensor.detach().resolve_conj().resolve_neg().cpu().contiguous()
    if not values.numel():
        return memoryview(b"")
    flat = values.reshape(-1)
    if flat.stride() != (1,):  # a single number may have any stride
        flat = torch.empty_like(flat, memory_format=torch.contiguous_format).copy_(flat)
    return flat.view(torch.uint8).numpy().data


def read_tensors(
    folder: Path, file: FileRecord, records: Sequence[TensorRecord], wanted: Sequence[bool]
) -> list[Tensor | None]:
    """Read the wanted tensors of a file, each into memory of its own, and check the whole file.

    Raises:
        ValueError: the file is not the one that the manifest describes.
    """
    with existing_file(folder / file.name) as (descriptor, size):
        start = 8 + _check_size(file, size, records)
        digest = blake3() if file.blake3 else hashlib.sha256()
        digest.update(_read_header(descriptor, start, file, records))
        scratch: memoryview | None = None
        buffers: list[Tensor | None] = []
        for record, is_wanted in zip(records, wanted, strict=True):
            count = num_bytes(record.dtype, record.shape)
            buffer = _allocate(count) if is_wanted else None
            buffers.append(buffer)
            if buffer is None:
                scratch = scratch or memoryview(bytearray(CHUNK))
            _read_data(descriptor, count, buffer, scratch, digest, file.name)
    if digest.hexdigest() != (file.blake3 or file.sha256):
        kind = "BLAKE3" if file.blake3 else "SHA-256"
        raise ValueError(f"the {kind} hash of {file.name} is wrong: the file was damaged or changed")
    return [_as_tensor(buffer, record) for buffer, record in zip(buffers, records, strict=True)]


def _check_size(file: FileRecord, size: int, records: Sequence[TensorRecord]) -> int:
    """Return the length of the header, from the sizes alone."""
    if size != file.size:
        raise ValueError(f"{file.name} has {size} bytes; wanted {file.size}")
    length = size - 8 - sum(num_bytes(record.dtype, record.shape) for record in records)
    if not 2 <= length <= MAX_BYTES:
        raise ValueError(f"{file.name} has no place for a header: its size is not that of its tensors")
    return length


def _read_header(descriptor: int, start: int, file: FileRecord, records: Sequence[TensorRecord]) -> bytes:
    header = read_exactly(descriptor, start, file.name)
    if int.from_bytes(header[:8], "little") != start - 8:
        raise ValueError(f"{file.name}: the length of its header is wrong")
    try:
        check_header(header[8:], records)
    except ValueError as error:
        raise ValueError(f"{file.name}: {error}") from None
    return header


def allocate(dtype: str, shape: tuple[int, ...]) -> Tensor:
    """Return new memory for a tensor.

    Raises:
        ValueError: there is not so much.
    """
    return _allocate(num_bytes(dtype, shape)).view(STORED[dtype].dtype).reshape(shape)


def _allocate(count: int) -> Tensor:
    try:
        return torch.empty(count, dtype=torch.uint8, device="cpu")  # whatever the default is
    except RuntimeError:
        raise ValueError(f"a tensor needs {count} bytes of memory, which there are not") from None


def _read_data(
    descriptor: int, count: int, buffer: Tensor | None, scratch: memoryview | None, digest: Any, what: str
) -> None:
    data = None if buffer is None or not count else buffer.numpy().data
    for start in range(0, count, CHUNK):
        length = min(CHUNK, count - start)
        whole, first = (data, start) if data is not None else (scratch, 0)
        assert whole is not None
        chunk = whole[first : first + length]
        if buffer is not None:
            fault_in(buffer.data_ptr() + first, length)
        read_into(descriptor, chunk, what)
        digest.update(chunk)


def _as_tensor(buffer: Tensor | None, record: TensorRecord) -> Tensor | None:
    if buffer is None:
        return None
    dtype = STORED[record.dtype].dtype
    values = buffer != 0 if dtype is torch.bool else buffer.view(dtype)  # any byte but 0 and 1 is no bool
    return values.reshape(record.shape)
