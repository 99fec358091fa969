"""Whatever the system or a file does: an error of this library, no half checkpoint, and the others untouched."""

import errno
import hashlib
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
import torch
from blake3 import blake3
from damage import TREE, fields_of, rewrite, signed, write

import torchpure as tp
from torchpure import checkpoints
from torchpure.checkpoints import _migrations
from torchpure.errors import CheckpointError
from torchpure.train import Checkpointer


class Failing:
    """A function of `os` that fails at one of its calls."""

    def __init__(self, monkeypatch, name, at, code):
        self.original, self.at, self.code, self.calls = getattr(os, name), at, code, 0
        monkeypatch.setattr(os, name, self)

    def __call__(self, *args, **kwargs):
        self.calls += 1
        if self.calls == self.at:
            raise OSError(self.code, os.strerror(self.code))
        return self.original(*args, **kwargs)


def _names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("write", errno.ENOSPC, "no space left on device"),
        ("write", errno.EIO, "input/output error"),
        ("write", errno.EDQUOT, "quota exceeded"),
        ("fsync", errno.EIO, "input/output error"),
        ("rename", errno.EIO, "input/output error"),
        ("mkdir", errno.EROFS, "read-only file system"),
        ("mkdir", errno.EACCES, "permission denied"),
    ],
)
def test_each_call_that_fails_leaves_nothing(tmp_path, monkeypatch, name, code, message):
    monkeypatch.setattr(checkpoints._plan, "_LEAST_FILE", 32)
    write(tmp_path / "before")
    number, failed = 1, 0
    while True:
        with monkeypatch.context() as patched:
            counter = Failing(patched, name, number, code)
            try:
                write(tmp_path / "new")
                break
            except CheckpointError as error:
                assert str(error).startswith(f"save: {tmp_path / 'new'}: ") and message in str(error)
                failed += 1
        # the last fsync is that of the parent: the rename is done, and the checkpoint is whole, but may not be durable
        expected = ["before", "new"] if name == "fsync" and (tmp_path / "new").exists() else ["before"]
        assert _names(tmp_path) == expected
        if expected == ["before", "new"]:
            assert tp.restore(tmp_path / "new")["large"] == 1 << 80
            shutil.rmtree(tmp_path / "new")
        number += 1
    assert failed == number - 1 == counter.calls >= 1
    assert tp.restore(tmp_path / "before")["large"] == tp.restore(tmp_path / "new")["large"] == 1 << 80


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_full_disk_in_a_run_costs_only_the_checkpoint_that_did_not_fit(tmp_path, monkeypatch, asynchronous):
    with Checkpointer(tmp_path, keep=1, asynchronous=asynchronous) as run:
        run.save(1, TREE)
        run.wait()
        with monkeypatch.context() as patched:
            Failing(patched, "write", 3, errno.ENOSPC)
            with pytest.raises(CheckpointError, match="step-00000002: no space left on device"):
                run.save(2, TREE)
                run.wait()
        assert run.steps() == [1] and run.restore()["large"] == 1 << 80
        run.save(2, TREE)
    assert _names(tmp_path) == [".lock", "step-00000002"]


def test_short_writes_are_continued(tmp_path, monkeypatch):
    original = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: original(descriptor, data[: max(1, len(data) // 3)]))
    write(tmp_path / "c")
    monkeypatch.undo()
    assert torch.equal(tp.restore(tmp_path / "c")["w"], TREE["w"])
    monkeypatch.setattr(os, "write", lambda descriptor, data: 0)
    with pytest.raises(CheckpointError, match="the system wrote nothing"):
        write(tmp_path / "d")
    assert _names(tmp_path) == ["c"]


def test_short_reads_are_continued(tmp_path, monkeypatch):
    write(tmp_path / "c")
    original = os.readv
    monkeypatch.setattr(os, "readv", lambda descriptor, buffers: original(descriptor, [buffers[0][:5]]))
    assert torch.equal(tp.restore(tmp_path / "c")["w"], TREE["w"])


@pytest.mark.parametrize("at", [1, 2, 3])
def test_an_error_of_reading_names_the_checkpoint(tmp_path, monkeypatch, at):
    write(tmp_path / "c")
    Failing(monkeypatch, "readv", at, errno.EIO)
    with pytest.raises(CheckpointError, match="restore: .*c: input/output error"):
        tp.restore(tmp_path / "c")


def test_a_full_file_system_is_an_error(tmp_path):
    """A real one, where the test may mount it."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(tmp_path)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, timeout=20).returncode:
        pytest.skip("mounting a small file system is not permitted here")
    try:
        with Checkpointer(tmp_path, keep=None) as run, pytest.raises(CheckpointError, match="no space left on device"):
            for step in range(100):
                run.save(step, {"w": torch.full((4000,), float(step))})
        with Checkpointer(tmp_path) as run:
            steps = run.steps()
            assert len(steps) > 3 and all(bool((run.restore(step)["w"] == step).all()) for step in steps)
        assert not list(tmp_path.glob(".*.partial"))
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True, timeout=20)


ARRAYS = "arrays-00000.safetensors"


def _replace(make):
    def change(path, name):
        (path / name).unlink()
        make(path / name)

    return change


def _link(path):
    outside = path.parent.parent / "outside"
    outside.write_bytes(b"x")
    path.symlink_to(outside)


DAMAGE = {
    "gone": (_replace(lambda path: None), r"no such file or directory|there is no manifest"),
    "empty": (lambda path, name: (path / name).write_bytes(b""), "has 0 bytes|does not end with a checksum"),
    "cut": (lambda path, name: os.truncate(path / name, 40), "has 40 bytes|does not end with a checksum"),
    "longer": (
        lambda path, name: (path / name).write_bytes((path / name).read_bytes() + b" "),
        "bytes; wanted|does not end with a checksum",
    ),
    "huge": (lambda path, name: os.truncate(path / name, 1 << 40), "bytes; wanted|a manifest has at most"),
    "folder": (_replace(lambda path: path.mkdir()), "is no regular file"),
    "fifo": (_replace(os.mkfifo), "is no regular file"),
    "link": (_replace(_link), "symbolic links"),
    "device": (_replace(lambda path: path.symlink_to("/dev/zero")), "symbolic links"),
}


@pytest.mark.parametrize("name", ["manifest.json", ARRAYS])
@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_file_is_an_error_at_once(tmp_path, kind, name):
    change, message = DAMAGE[kind]
    change(write(tmp_path / "c"), name)
    start = time.thread_time()
    with pytest.raises(CheckpointError, match=f"^restore: .*({message})"):
        tp.restore(tmp_path / "c")
    assert time.thread_time() - start < 0.5
    if name == "manifest.json":
        with pytest.raises(CheckpointError, match=f"^describe: .*({message})"):
            checkpoints.describe(tmp_path / "c")


def test_a_link_to_the_checkpoint_itself_is_followed(tmp_path):
    write(tmp_path / "c")
    (tmp_path / "latest").symlink_to("c")
    assert tp.restore(tmp_path / "latest")["large"] == 1 << 80


def test_files_of_another_model_are_refused(tmp_path):
    write(tmp_path / "a")
    write(tmp_path / "b", {**TREE, "w": TREE["w"] + 1})
    write(tmp_path / "c", {**TREE, "v": TREE["w"]})
    for other, message in (("b", "BLAKE3 hash of arrays-00000.safetensors is wrong"), ("c", "bytes; wanted")):
        shutil.copy(tmp_path / other / ARRAYS, tmp_path / "a" / ARRAYS)
        with pytest.raises(CheckpointError, match=message):
            tp.restore(tmp_path / "a")


@pytest.mark.parametrize(
    "name",
    [
        "../outside",
        "/etc/passwd",
        "arrays-00000.safetensors/../x",
        "..",
        "",
        "arrays-0.safetensors",
        "a\0b",
        "manifest.json",
    ],
)
def test_no_name_leads_out_of_the_folder(tmp_path, name):
    path = write(tmp_path / "c")
    shutil.copy(path / ARRAYS, tmp_path / "outside")
    rewrite(path, files=[{**fields_of(path)["files"][0], "name": name}])
    with pytest.raises(CheckpointError, match="wanted a file of tensors with its size and hashes"):
        tp.restore(path)


def _leaf(folder, number, **changed):
    leaves = fields_of(folder)["leaves"]
    leaves[number] = {**leaves[number], **changed}
    return {"leaves": leaves}


def _shards(path, *boxes, **fields):
    """Return the first leaf as a tensor in shards."""
    first, *rest = fields_of(path)["leaves"]
    shard = {"file": first["file"], "name": first["name"], **fields}
    shards = [{**shard, "offset": offset, "shape": shape} for offset, shape in boxes]
    leaf = {"path": first["path"], "dtype": first["dtype"], "shape": first["shape"], "shards": shards}
    return {"schema": 3, "leaves": [leaf, *rest]}


FORGED = {
    "shape": (lambda path: _leaf(path, 0, shape=[1 << 40, 1 << 40]), "is too large"),
    "other shape": (lambda path: _leaf(path, 0, shape=[4, 3]), "header does not list the tensors"),
    "negative": (lambda path: _leaf(path, 0, shape=[-3, -4]), "wanted a shape"),
    "large": (lambda path: _leaf(path, 0, shape=[1 << 30]), "no place for a header"),
    "dtype": (lambda path: _leaf(path, 0, dtype="int32"), "header does not list the tensors"),
    "unknown dtype": (lambda path: _leaf(path, 0, dtype="object"), "wanted a leaf"),
    "file": (lambda path: _leaf(path, 0, file=1), "wanted a leaf"),
    "path": (lambda path: _leaf(path, 0, path="v"), "paths of the leaves are not those of the tree"),
    "kind": (lambda path: _leaf(path, 2, kind="eval"), "wanted the value of a leaf"),
    "value": (lambda path: _leaf(path, 2, value="text"), "wanted the value of a leaf"),
    "fewer leaves": (lambda path: {"leaves": fields_of(path)["leaves"][:-1]}, "paths of the leaves"),
    "tree": (lambda path: {"tree": {"kind": "dict", "keys": ["a", "a"], "children": [None, None]}}, "a key stands twice"),
    "class": (lambda path: {"tree": {"kind": "os.system", "children": []}}, "wanted a container"),
    "field": (lambda path: {"extra": 1}, "wanted the fields"),
    "format": (lambda path: {"format": "other"}, "wanted the format"),
    "hole": (lambda path: _shards(path, [[0, 0], [3, 3]]), "do not cover each of its elements once"),
    "overlap": (lambda path: _shards(path, [[0, 0], [2, 4]], [[1, 0], [1, 4]]), "do not cover each of its elements once"),
    "outside": (lambda path: _shards(path, [[1, 0], [3, 4]]), "is no part of a tensor of shape"),
    "dimensions": (lambda path: _shards(path, [[0], [12]]), "is no part of a tensor of shape"),
    "empty shard": (lambda path: _shards(path, [[0, 0], [3, 4]], [[0, 0], [0, 4]]), "is no part of a tensor of shape"),
    "file of a shard": (lambda path: _shards(path, [[0, 0], [3, 4]], file=1), "wanted a part of a tensor"),
    "name of a shard": (lambda path: _shards(path, [[0, 0], [3, 4]], name=1), "wanted a part of a tensor"),
    "shards": (lambda path: _shards(path, [[0, 0], [1, 4]], [[1, 0], [2, 4]]), "header does not list the tensors"),
    "newer": (lambda path: {"schema": 4, "versions": {"torchpure": "9.0"}}, "it has schema 4, written by torchpure 9.0; this version reads schemas up to 3"),
    "unknown": (lambda path: {"schema": 0}, "its schema 0 is unknown"),
    "no schema": (lambda path: {"schema": "1"}, "wanted the number of a schema"),
}  # fmt: skip


@pytest.mark.parametrize("kind", FORGED)
def test_a_manifest_with_a_right_checksum_and_wrong_fields_is_refused(tmp_path, kind):
    change, message = FORGED[kind]
    path = write(tmp_path / "c")
    rewrite(path, **change(path))
    with pytest.raises(CheckpointError, match=f"restore: .*{message}"):
        tp.restore(path)


def test_deep_json_is_refused(tmp_path):
    path = write(tmp_path / "c")
    for depth in (100, 100_000):
        text = '{"kind": "list", "children": [' * depth + "null" + "]}" * depth
        data = signed({**fields_of(path), "tree": "HERE"}).rsplit(b',\n"checksum"', 1)[0]
        (path / "manifest.json").write_bytes(checkpoints._manifest.sign(data.replace(b'"HERE"', text.encode())))
        with pytest.raises(CheckpointError, match="wanted the structure of a tree|nested too deeply"):
            tp.restore(path)


def test_older_schemas_go_through_the_table(tmp_path, monkeypatch):
    """Version 0 of this test names the metadata otherwise and has no versions."""

    def to_1(fields):
        fields = dict(fields)
        return {"metadata": fields.pop("notes"), "versions": {}, **fields}

    path = write(tmp_path / "c")
    fields = fields_of(path)
    fields["notes"] = fields.pop("metadata")
    del fields["versions"]
    (path / "manifest.json").write_bytes(signed({**fields, "schema": 0}))
    with pytest.raises(CheckpointError, match="its schema 0 is unknown"):
        tp.restore(path)
    monkeypatch.setitem(_migrations.MIGRATIONS, 0, to_1)
    assert torch.equal(tp.restore(path)["w"], TREE["w"])
    assert checkpoints.describe(path).metadata == {"step": 3}


def test_a_checkpoint_of_schema_1_is_checked_by_its_sha_256(tmp_path):
    path = write(tmp_path / "c")
    fields = fields_of(path)
    for record in fields["files"]:
        del record["blake3"]
    (path / "manifest.json").write_bytes(signed({**fields, "schema": 1}))
    assert torch.equal(tp.restore(path)["w"], TREE["w"])
    data = bytearray((path / ARRAYS).read_bytes())
    data[-1] ^= 1
    (path / ARRAYS).write_bytes(data)
    with pytest.raises(CheckpointError, match="the SHA-256 hash of arrays-00000.safetensors is wrong"):
        tp.restore(path)


def test_both_hashes_are_those_of_the_file(tmp_path):
    path = write(tmp_path / "c")
    record, data = fields_of(path)["files"][0], (path / ARRAYS).read_bytes()
    assert record["sha256"] == hashlib.sha256(data).hexdigest() and record["blake3"] == blake3(data).hexdigest()


def test_migrations_run_in_order():
    table = {n: lambda fields, n=n: {**fields, "seen": [*fields["seen"], n]} for n in range(3)}
    old = {"schema": 1, "seen": []}
    assert _migrations.migrate(old, 3, table) == {"schema": 3, "seen": [1, 2]}
    assert old == {"schema": 1, "seen": []}


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs the names of open files")
def test_everything_is_on_the_disk_before_the_rename_and_the_rename_after_it(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints._plan, "_LEAST_FILE", 32)
    monkeypatch.setattr(checkpoints._write, "_MAX_THREADS", 1)
    events = []
    fsync, rename = os.fsync, os.rename

    def synced(descriptor):
        events.append(("fsync", Path(f"/proc/self/fd/{descriptor}").readlink()))
        fsync(descriptor)

    def renamed(old, new):
        events.append(("rename", Path(new)))
        rename(old, new)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "rename", renamed)
    path = write(tmp_path / "c")
    *before, manifest, folder, commit, parent = events
    assert {file.name for _, file in before} | {"manifest.json"} == set(_names(path)) and len(before) > 1
    assert manifest[1].name == "manifest.json" and folder == ("fsync", manifest[1].parent)
    assert commit == ("rename", path) and parent == ("fsync", tmp_path)


@pytest.mark.parametrize("make", [lambda path: path.mkdir(), os.mkfifo, lambda path: path.symlink_to("/dev/null")])
def test_a_lock_that_is_no_file_is_an_error(tmp_path, make):
    make(tmp_path / ".lock")
    if make is os.mkfifo:  # it can be locked as a file can
        Checkpointer(tmp_path).close()
        return
    with pytest.raises(
        CheckpointError, match=f"Checkpointer: {tmp_path}: (is a directory|too many levels of symbolic links)"
    ):
        Checkpointer(tmp_path)


def test_a_file_in_place_of_the_folder_of_a_run_is_an_error(tmp_path):
    (tmp_path / "run").write_text("x")
    with pytest.raises(CheckpointError, match="run: file exists"):
        Checkpointer(tmp_path / "run")


def test_a_step_that_is_a_link_is_no_checkpoint(tmp_path):
    write(tmp_path / "outside")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "step-00000009").symlink_to("../outside")
    with Checkpointer(tmp_path / "run") as run:
        assert run.steps() == []


def test_memory_that_is_not_there_is_an_error(tmp_path, monkeypatch):
    write(tmp_path / "c")

    def refuse(*args, **kwargs):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    with monkeypatch.context() as patched:
        patched.setattr(torch, "empty", refuse)
        with pytest.raises(CheckpointError, match="a tensor needs 48 bytes of memory, which there are not"):
            tp.restore(tmp_path / "c")
    monkeypatch.setattr(torch.Tensor, "contiguous", refuse)
    with pytest.raises(CheckpointError, match="can't allocate memory"):
        write(tmp_path / "d")
    assert _names(tmp_path) == ["c"]
