"""Trees of DTensors: saved by one, two or four processes, restored by others; failures are errors of each process."""

import itertools
import multiprocessing
import os
import random
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import checkpoint_cases
import pytest
import torch
import torch.distributed as dist
from checkpoint_cases import NUMBERS
from daily import daily, proof
from pool import Pool, environment_of_server

import torchpure as tp

pytestmark = pytest.mark.dist
LAST = "(the last rank)"  # in a pattern
DISAGREE = "MeshError: save of c: the processes have different values at"
DISK = (
    f"MeshError: .*rank {LAST}: CheckpointError: .*save: .*no space left on device",
    "CheckpointError: .*save: .*c.*: no space left on device",
)
FAILURES = {  # what goes wrong on the last process -> what the others raise, and what it raises itself
    "shape": (rf"{DISAGREE} `w`: rank 0 has float32 of shape \(2,\).*, rank {LAST} has float32 of shape \(3,\)", None),
    "value": (rf"{DISAGREE} `w`: rank 0 has .* with the hash (\w+), rank {LAST} has .* with the hash", None),
    "text": (f"{DISAGREE} `text`: rank 0 has str .*with the hash", None),
    "number": (f"{DISAGREE} `step`: rank 0 has int 0, rank {LAST} has int 1", None),
    "names": (f"{DISAGREE} `more`: rank 0 has nothing, rank {LAST} has int 1", None),
    "layout": (rf"{DISAGREE} `r`: .*Shard\(dim=0\).*Shard\(dim=1\)", None),
    "leaf": (f"MeshError: .*rank {LAST}: InputError: save: leaf `w` is a set", "InputError: save: leaf `w` is a set"),
    "partial": (r"InputError: save: leaf `w` has the placement Partial\(sum\); wanted Shard or Replicate", None),
    **dict.fromkeys(("disk", "disk of a run", "disk of a run, in the background"), DISK),
    "step": (f"MeshError: .*disagree.*rank 0 runs Checkpointer.save of step 1.*rank {LAST} runs .* of step 2", None),
    "restores": ("CheckpointError: restore: .*c: there is no checkpoint", None),
}


@pytest.fixture(scope="module")
def pools(tmp_path_factory):
    """Start two processes, and four."""
    found = {size: Pool(size, tmp_path_factory.mktemp("processes")) for size in (2, 4)}
    yield found
    for pool in found.values():
        pool.close()


@pytest.fixture(scope="module")
def paths(pools, tmp_path_factory):
    """Return the checkpoints of one process, of two and of four."""
    folder = tmp_path_factory.mktemp("checkpoints")
    tp.save(
        folder / "1", {**checkpoint_cases.values(), "plain": NUMBERS + 1, "step": 3, "state": [tp.random.key(0), None]}
    )
    for size, pool in pools.items():
        pool.results("saved", str(folder / str(size)))
    return {size: folder / str(size) for size in (1, 2, 4)}


@pytest.mark.parametrize(("writers", "readers"), daily(itertools.product([1, 2, 4], [2, 4]), 3))
def test_restore_gives_what_was_saved_in_every_layout(pools, paths, writers, readers):
    assert pools[readers].results("restored", str(paths[writers])) == [[]] * readers


@pytest.mark.parametrize("writers", [2, 4])
def test_one_process_restores_what_several_saved(paths, writers):
    plain = {**checkpoint_cases.values(), "plain": NUMBERS + 1, "step": 3, "state": [tp.random.key(0), None]}
    assert checkpoint_cases.differences(tp.restore(paths[writers]), plain) == []
    assert checkpoint_cases.differences(tp.restore(paths[writers], like=plain), plain) == []
    described = tp.checkpoints.describe(paths[writers])
    assert described.metadata == {"from": writers} and len(described.files) == writers
    assert described.num_bytes == tp.checkpoints.describe(paths[1]).num_bytes
    sizes = list(described.files.values())
    assert max(sizes) - min(sizes) < NUMBERS.nbytes * 4, "one process writes much more than another"


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_run_keeps_the_last_and_the_best(pools, tmp_path, asynchronous):
    for size, pool in pools.items():
        assert pool.results("run_of_steps", str(tmp_path / str(size)), asynchronous) == [([2, 4, 5], 2, 5, True)] * size
        assert not list((tmp_path / str(size)).glob(".*.partial"))


def test_a_run_of_dtensors_is_saved_by_all_processes_or_by_none(pools, tmp_path):
    assert pools[2].results("run_of_store", str(tmp_path / "run")) == [[(0, True), (4, True)]] * 2


def raised(pool, answers, others, own):
    for (kind, text), pattern in zip(answers, [others] * (len(answers) - 1) + [own or others], strict=True):
        assert kind == "raised", (kind, text)
        assert re.search(pattern.replace(LAST, str(len(pool.processes) - 1)), text.partition("\n")[0]), text


@pytest.mark.parametrize("name", FAILURES)
def test_a_save_that_fails_is_an_error_of_each_process(pools, tmp_path, name):
    for size, pool in pools.items():
        path = tmp_path / str(size) / "c"
        path.parent.mkdir()
        raised(pool, pool.run("fails_to_save", name, str(path)), *FAILURES[name])
        assert not [one for one in path.parent.rglob("*") if one.name not in ("c", ".lock")], "something is left"
        pool.results("saved", str(path.parent / "again"))


def test_a_folder_has_the_processes_of_one_program_as_its_writer(pools, tmp_path):
    with tp.train.Checkpointer(tmp_path):
        answers = pools[2].run("fails_to_save", "second run", str(tmp_path))
        raised(
            pools[2], answers[:1], "", f"CheckpointError: Checkpointer: .*: process {os.getpid()} writes there already"
        )
    assert answers[1][0] == "raised" and "MeshError" in answers[1][1]


def test_a_file_of_a_process_that_is_missing_or_changed(pools, tmp_path):
    pools[2].results("saved", str(tmp_path / "c"))
    file = tmp_path / "c" / "arrays-00001.safetensors"
    data = file.read_bytes()
    file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    answers = pools[2].run("fails_to_save", "restores", str(tmp_path / "c"))
    raised(
        pools[2], answers, *["CheckpointError: restore: .*c: the BLAKE3 hash of arrays-00001.safetensors is wrong"] * 2
    )
    file.unlink()
    answers = pools[2].run("fails_to_save", "restores", str(tmp_path / "c"))
    raised(pools[2], answers, *[r"CheckpointError: restore: .*c: no such file or directory \(.*arrays-00001"] * 2)


def test_a_restore_that_one_process_cannot_do(pools, paths):
    answers = pools[2].run("fails_to_save", "restores another shape", str(paths[2]))
    raised(
        pools[2], answers, "MeshError: .*rank 1: InputError: restore: .*`rows`", "InputError: restore: .*`rows`: wanted"
    )


def test_a_process_that_ends_while_it_saves(own_pool, tmp_path):
    *others, (kind, _) = own_pool.run("dies_in_a_save", str(tmp_path / "c"))
    assert kind == "ended", _
    raised(own_pool, [*others], *["MeshError: files of save of c .*rank.* 2 did not come in time: it has ended"] * 2)
    assert not list(tmp_path.glob("c")) and not list(tmp_path.glob(".c*"))


def reported_steps(reports):
    return [int(line) for path in reports.parent.glob(f"{reports.name}-*") for line in path.read_text().split()]


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
@pytest.mark.parametrize("kills", [pytest.param(2, id="sample"), proof(50, id="all")])
def test_the_kill_of_a_process_loses_no_committed_step(tmp_path, kills):
    draw, folder, swept = random.Random(kills), tmp_path / "run", 0
    for number in range(kills):
        place = tmp_path / str(number)
        place.mkdir()
        pool = Pool(2, place)
        before = len(reported_steps(tmp_path / "steps"))
        for connection in pool.connections:
            connection.send(("save_forever", (str(folder), str(tmp_path / "steps"), number % 2 == 0)))
        deadline = time.monotonic() + 30
        while len(reported_steps(tmp_path / "steps")) == before and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(draw.uniform(0, 0.2))
        pool.processes[draw.randrange(2)].kill()
        time.sleep(draw.uniform(0, 0.1))
        for process in pool.processes:  # as torchrun does
            process.kill()
        pool.close()
        swept += len(list(folder.glob(".*.partial")))
        newest = tp.restore(folder)
        assert newest["step"] >= max(reported_steps(tmp_path / "steps")), "a committed step is lost"
        with tp.train.Checkpointer(folder) as run:
            assert not list(folder.glob(".*.partial")), "a stray folder is left"
            assert all(checkpoint_cases.is_whole(run.restore(step), step) for step in run.steps())
    print(f"{kills} kills, {newest['step']} steps saved, none lost, none mixed, {swept} stray folders swept")


def lives(size, port, count, folder, kill_at):
    """Run one life of a program, and return the ends of its processes."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["warm_up"])
    arguments = (size, port, count, str(folder), kill_at)
    processes = [context.Process(target=checkpoint_cases.life, args=(rank, *arguments)) for rank in range(size)]
    with environment_of_server():
        for process in processes:
            process.start()
    if kill_at is not None:
        processes[-1].join(60)
        for process in processes:  # as torchrun does
            process.kill()
    for process in processes:
        process.join(60)
    return [process.exitcode for process in processes]


def test_a_program_that_starts_again_goes_on_from_its_last_step(tmp_path):
    """The store of torchrun lives on while processes start again, and has the addresses of those that ended."""
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert lives(2, store.port, 0, whole, None) == [0, 0]
    assert lives(2, store.port, 1, broken, 3)[-1] == -9
    assert lives(2, store.port, 2, broken, None) == [0, 0]
    finals = [torch.load(folder / f"final-{rank}.pt") for folder in (whole, broken) for rank in range(2)]
    assert all(torch.equal(final, finals[0]) for final in finals)


@pytest.mark.proof
@pytest.mark.parametrize("rendezvous", ["standalone", "static"])
def test_torchrun_starts_a_killed_program_again(tmp_path, rendezvous):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    options = ["--standalone"] if rendezvous == "standalone" else ["--master-addr", "127.0.0.1", "--master-port", port]
    script = Path(__file__).with_name("restarted.py")
    run = [sys.executable, "-m", "torch.distributed.run", *options, "--nproc-per-node", "2", "--max-restarts", "1"]
    for name, kill_at in (("whole", "0"), ("broken", "3")):
        subprocess.run([*run, str(script), str(tmp_path / name), kill_at], check=True, timeout=300)
    finals = [torch.load(tmp_path / name / f"final-{rank}.pt") for name in ("whole", "broken") for rank in range(2)]
    assert all(torch.equal(final, finals[0]) for final in finals)
