"""Every flipped bit is found, and no manifest or header does anything but raise an error of this library."""

import json
import random
import resource
import time
from functools import partial

import pytest
import torch
from daily import proof
from damage import fields_of, signed, write

import torchpure as tp
from torchpure.checkpoints import _manifest, _read, _restore, _structure, _tensor_file, _write
from torchpure.checkpoints._files import reported
from torchpure.errors import CheckpointError

SIZES = [pytest.param(1, id="sample"), proof(50, id="all")]


@pytest.mark.parametrize("scale", SIZES)
def test_every_flipped_bit_is_found(tmp_path, scale):
    draw = random.Random(scale)
    path = write(tmp_path / "c")
    files = sorted(path.iterdir())
    found = 0
    for _ in range(200 * scale):
        file = draw.choice(files)
        data = bytearray(file.read_bytes())
        whole = bytes(data)
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        file.write_bytes(data)
        try:
            tp.restore(path)
        except CheckpointError:
            found += 1
        file.write_bytes(whole)
    print(f"{found} of {200 * scale} flipped bits found")
    assert found == 200 * scale
    assert torch.equal(tp.restore(path)["w"], torch.arange(12.0).reshape(3, 4))


VALUES = [
    None, True, False, 0, 1, -1, 2, 8, 1 << 31, (1 << 63) - 1, 1 << 63, 1 << 64, 10**400, 0.0, -1.5, 1e300, "", ".", "..", "leaf", "dict",
    "tuple", "namedtuple", "object", "w", "../x", "\0", "\ud800", "float32", "nan", "0x", "-0xf", "x" * 5000, [], {}, [[]], [1, 2], [None],
    {"kind": "dict"}, {"kind": "list", "children": []}, {"path": "w"}, [0] * 300, "torch.float32", "cuda:99999999999", "meta",
]  # fmt: skip


def _copy(value):
    return json.loads(json.dumps(value))


def _spots(value, found, depth=0):
    """List the places in a JSON value: a container and a key or an index."""
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            found.append((value, key, depth))
            _spots(value[key], found, depth + 1)
    return found


def _mutate_fields(fields, draw):
    for _ in range(draw.choice([1, 1, 1, 2, 5])):
        spots = _spots(fields, [])
        if not spots:
            return
        place, key, _ = draw.choice(spots)
        other, other_key, _ = draw.choice(spots)
        match draw.randrange(6):
            case 0 | 1:
                place[key] = _copy(draw.choice(VALUES))
            case 2:
                del place[key]
            case 3:
                place[key] = _copy(other[other_key])
            case 4 if isinstance(place, list):
                place.insert(key, _copy(other[other_key]))
            case 4:
                place[draw.choice(["x", "kind", "path", "file", "keys", "__proto__"])] = _copy(draw.choice(VALUES))
            case 5:
                place[key] = [place[key]]


def _mutate_bytes(data, draw):
    data = bytearray(data)
    for _ in range(draw.choice([1, 1, 2, 8])):
        at = draw.randrange(len(data) + 1)
        match draw.randrange(5):
            case 0 if at < len(data):
                data[at] ^= 1 << draw.randrange(8)
            case 1:
                data[at:at] = draw.choice(
                    [
                        b"[",
                        b"{",
                        b'"',
                        b"\xff",
                        b"9" * 50,
                        b"e999",
                        b"\\ud800",
                        b"NaN",
                        b"-Infinity",
                        b"\0",
                        b"[" * 3000,
                    ]
                )
            case 2:
                del data[at : at + draw.randrange(1, 30)]
            case 3:
                del data[at:]
            case 4:
                start = draw.randrange(len(data) + 1)
                data[at:at] = data[start : start + draw.randrange(60)]
    return bytes(data)


def _mutated_manifest(text, body, draw):
    kind = draw.randrange(4)
    if kind == 0:
        return _mutate_bytes(body, draw)  # the checksum is wrong
    if kind == 1:
        return _manifest.sign(_mutate_bytes(body[: body.rindex(b',\n"checksum"')], draw))
    fields = json.loads(text)
    _mutate_fields(fields, draw)
    try:
        return signed(fields)
    except ValueError:  # an integer of too many digits
        return body[:-1]


def _mutated_header(text, draw):
    if draw.randrange(2):
        return _mutate_bytes(text, draw)
    fields = json.loads(text)
    _mutate_fields(fields, draw)
    return json.dumps(fields).encode()


def _use_manifest(folder, data):
    manifest = _manifest.read_manifest(data)
    values = _read.read_leaves(folder, manifest, [_restore._wanted(leaf, None) for leaf in manifest.leaves])
    _structure.build(manifest.tree, iter(values))


def _attempt(path, use):
    """Return whether the use is refused by an error of this library, and the seconds that it took."""
    start = time.thread_time()
    try:
        with reported("restore", path):
            use()
    except CheckpointError:
        return True, time.thread_time() - start
    return False, time.thread_time() - start


@pytest.mark.parametrize("scale", [pytest.param(1, id="sample"), proof(250, id="all")])
def test_mutated_manifests_and_headers_give_only_errors_of_this_library(tmp_path, scale):
    draw = random.Random(scale)
    path = write(tmp_path / "c")
    body, text = (path / "manifest.json").read_bytes(), json.dumps(fields_of(path))
    manifest = _manifest.read_manifest(body)
    records = _write.by_file(manifest.leaves, 1)[0]
    header = _tensor_file.header_bytes(records)[8:]
    accepted = refused = 0
    slowest, before = 0.0, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(4000 * scale):
        is_manifest = number % 2 == 0
        data = _mutated_manifest(text, body, draw) if is_manifest else _mutated_header(header, draw)
        use = partial(_use_manifest, path, data) if is_manifest else partial(_tensor_file.check_header, data, records)
        is_refused, seconds = _attempt(path, use)
        if seconds > slowest:  # once more: the collector may have run, which looks at the objects of all tests
            slowest = max(slowest, min(seconds, _attempt(path, use)[1]))
        refused, accepted = refused + is_refused, accepted + (not is_refused)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(
        f"{accepted + refused} mutated, {refused} refused, slowest {slowest * 1e3:.1f} ms, memory grew by {grown:.0f} MiB"
    )
    assert refused > 0.7 * (accepted + refused)
    assert slowest < 0.05 and grown < 64


def test_a_mutated_header_with_right_hashes_is_refused_on_disk(tmp_path):
    """The hashes are those of the changed file, so only the checks of the header remain."""
    import hashlib

    from blake3 import blake3

    draw = random.Random(5)
    path = write(tmp_path / "c")
    file = path / "arrays-00000.safetensors"
    whole, fields = file.read_bytes(), fields_of(path)
    length = int.from_bytes(whole[:8], "little")
    refused = 0
    for _ in range(300):
        changed = _mutated_header(whole[8 : 8 + length], draw)
        said = draw.choice([len(changed), len(changed), length, 0, 1 << 62, (1 << 64) - 1])
        data = said.to_bytes(8, "little") + changed + whole[8 + length :]
        file.write_bytes(data)
        fields["files"][0] |= {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        fields["files"][0]["blake3"] = blake3(data).hexdigest()
        (path / "manifest.json").write_bytes(signed(fields))
        try:
            found = tp.restore(path)
            assert torch.equal(found["w"], torch.arange(12.0).reshape(3, 4))
        except CheckpointError:
            refused += 1
    assert refused > 250
