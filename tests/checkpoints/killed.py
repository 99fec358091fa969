"""Kill a process that saves, at random moments, and check what is left. Usage: killed.py FOLDER KILLS SEED.

A process of its own, with one thread, so that it may fork.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

import torchpure as tp
from torchpure import checkpoints


def tree(step):
    """Make a tree of several files whose every number is the step."""
    return {"w": [torch.full((3000,), float(step)) for _ in range(6)], "n": torch.full((), step), "step": step}


def is_whole(found, step):
    """Return whether each leaf is of this step."""
    return found["step"] == step == int(found["n"]) and all(bool((w == step).all()) for w in found["w"])


def save_forever(folder, pipe, asynchronous):
    """Save until killed; write each step that is committed to the pipe."""
    run = tp.train.Checkpointer(folder, keep=3, best=("loss", "min"), asynchronous=asynchronous)
    step = run.latest() or 0
    while True:
        step += 1
        run.save(step, tree(step), {"loss": abs(step % 50 - 25)})
        run.wait()
        os.write(pipe, step.to_bytes(8, "little"))


def kill_once(folder, draw):
    """Start a writer, kill it, and return the last step that it reported."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.close(read)
        try:
            save_forever(folder, write, draw.random() < 0.5)
        finally:
            os._exit(1)
    os.close(write)
    time.sleep(draw.uniform(0, 0.2))
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), "the writer ended by itself"
    data = b""
    while part := os.read(read, 1 << 16):
        data += part
    os.close(read)
    return int.from_bytes(data[len(data) // 8 * 8 - 8 : len(data) // 8 * 8], "little") if len(data) >= 8 else 0


def main(folder, kills, seed):
    """Kill many times in one folder; any loss or mixture ends the program with an error."""
    checkpoints._plan._LEAST_FILE = 1 << 14  # bytes, so that there are several files
    draw, reported, swept, saved = random.Random(seed), 0, 0, 0
    for _ in range(kills):
        reported = max(reported, kill_once(folder, draw))
        strays = len(list(folder.glob(".*.partial"))) if folder.exists() else 0
        if reported:
            newest = tp.restore(folder, like=tree(0))
            assert newest["step"] >= reported, f"step {reported} was lost: the newest is {newest['step']}"
        with tp.train.Checkpointer(folder, best=("loss", "min")) as run:
            swept += strays
            assert not list(folder.glob(".*.partial")), "a stray folder is left"
            steps = run.steps()
            assert all(is_whole(run.restore(step, like=tree(0)), step) for step in steps), f"mixed: {steps}"
            saved = max([saved, *steps])
    print(f"{kills} kills, {saved} steps saved, none lost, none mixed, {swept} stray folders swept")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
