"""What does not load is never kept; a place or a compiler that cannot be used is a warning, and the program runs."""

import os
import random
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

import torchpure as tp
from torchpure._cpp import CompilerError, _disk_cache, _folder, _load, load_library

pytestmark = [pytest.mark.usefixtures("folder"), pytest.mark.compile]
COMMAND = ("g++", "-shared", "-fPIC", "-O1", "{source}", "-o", "{library}")
SOURCE = 'extern "C" int run() { return 7; }\n'
X = torch.tensor([1.0, 2.0])
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _warn_again():
    _folder._warn.cache_clear()


def script(place, text):
    """A compiler: a shell script, which knows its version."""
    place.write_text(f'#!/bin/sh\nif [ "$1" = "--version" ]; then echo "mine 1.0"; exit 0; fi\n{text}\n')
    place.chmod(0o700)
    return str(place)


OUT = 'out=""; while [ $# -gt 0 ]; do if [ "$1" = "-o" ]; then out="$2"; fi; shift; done;'
BROKEN = {
    "rubbish": f"{OUT} echo rubbish > $out",
    "nothing": "exit 0",
    "an empty file": f"{OUT} : > $out",
    "a library of something else": f'{OUT} echo "int other() {{ return 1; }}" | g++ -shared -fPIC -x c++ - -o $out',
    "an error": "echo some reason >&2; exit 1",
    "a signal": "kill -9 $$",
    "a library cut in half": 'g++ "$@" || exit 1; ' + OUT + " head -c 4000 $out > $out.half; mv $out.half $out",
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_compiler_is_one_warning_and_nothing_is_kept(what, tmp_path, folder, compiler_of_environment):
    compiler_of_environment(script(tmp_path / "compiler", BROKEN[what]))
    compiled = tp.jit(lambda x: x * 2 + len(what))
    with pytest.warns(UserWarning, match="Functions run uncompiled") as seen:
        assert torch.equal(compiled(X), X * 2 + len(what))
    assert len(seen) == 1 and str(tmp_path / "compiler") in str(seen[0].message)
    assert torch.equal(compiled(X), X * 2 + len(what))
    assert list(folder.glob("*.so")) == [] and list(folder.glob("build-*")) == []


def test_a_compiler_that_prints_warnings_is_used(tmp_path, compiler_of_environment):
    compiler_of_environment(script(tmp_path / "compiler", 'echo "warning: mine"; echo "note" >&2; exec g++ "$@"'))
    assert tp.jit(lambda x: x * 5).lower(X).backend == "native"


def test_a_variable_that_is_no_command_is_one_warning(compiler_of_environment):
    compiler_of_environment('g++ "-O2')
    with pytest.warns(UserWarning, match=r"CXX is not a command of a compiler, 'g\+\+ \"-O2': No closing quotation"):
        assert torch.equal(tp.jit(lambda x: x * 6)(X), X * 6)


def test_a_folder_without_the_right_to_execute_is_no_obstacle(monkeypatch):
    real = _load.ctypes.CDLL

    def refuses(name):
        if not name.startswith("/proc/"):
            raise OSError(f"{name}: failed to map segment from shared object")
        return real(name)

    monkeypatch.setattr(_load.ctypes, "CDLL", refuses)
    values = [load_library(f'extern "C" int run() {{ return {n}; }}', COMMAND, "run").run() for n in range(3)]
    assert values == [0, 1, 2]


def test_a_full_disk_while_linking_moves_the_program_elsewhere(tmp_path, folder, monkeypatch):
    fails = f'case "$*" in *{folder}*) echo "final link failed: No space left on device"; exit 1;; esac; exec g++ "$@"'
    monkeypatch.setattr(_disk_cache, "_is_full", lambda place: place == folder)
    command = (script(tmp_path / "compiler", fails), *COMMAND[1:])
    assert load_library(SOURCE, command, "run").run() == 7 and list(folder.glob("*.so")) == []


def block(file, how):
    """Put something into the place of a file."""
    file.unlink()
    if how == "fifo":
        os.mkfifo(file)
    elif how == "folder":
        file.mkdir()
        (file / "inside").write_text("kept")
    elif how == "dangling link":
        file.symlink_to(file.with_name("nowhere"))
    elif how == "link to itself":
        file.symlink_to(file)
    elif how == "link to a device":
        file.symlink_to("/dev/zero")


@pytest.mark.parametrize("how", ["fifo", "folder", "dangling link", "link to itself", "link to a device"])
def test_something_else_in_the_place_of_a_file_is_no_obstacle(how):
    file = _disk_cache.build_library(SOURCE, COMMAND)
    block(file, how)
    assert load_library(SOURCE, COMMAND, "run").run() == 7
    assert load_library(SOURCE, COMMAND, "run").run() == 7


@pytest.mark.parametrize("link", [False, True])
def test_a_folder_inside_one_that_others_may_change_is_not_used(link, tmp_path, monkeypatch):
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    inside = shared / "mine"
    if link:
        (tmp_path / "target").mkdir(mode=0o700)
        inside.symlink_to(tmp_path / "target")
    else:
        inside.mkdir(mode=0o700)
    monkeypatch.setenv("TORCHPURE_CACHE", str(inside))
    with pytest.warns(UserWarning, match=rf"not kept in .*mine: other users may change {shared}\. Set TORCHPURE_CACHE"):
        file = _disk_cache.build_library(SOURCE, COMMAND)
    assert not str(file).startswith(str(tmp_path))


@pytest.mark.skipif(os.getuid() != 0, reason="only root may take another uid")
def test_a_user_without_a_home_compiles():
    program = (
        "import os, torch, torchpure as tp\n"
        "def backend(c): return tp.jit(lambda x: x * c).lower(torch.ones(2)).backend\n"
        "backend(2)\n"  # imports everything while the files can be read
        "del os.environ['TORCHPURE_CACHE']; os.environ.pop('HOME', None); os.environ.pop('XDG_CACHE_HOME', None)\n"
        "os.setuid(54321); print(backend(3))"
    )
    command = [sys.executable, "-W", "error", "-c", program]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False, timeout=100)
    assert ended.stdout.strip() == "native", ended.stderr[-2000:]


def test_a_forked_process_does_not_remove_the_folder_of_its_parent():
    place = _folder.process_folder()
    child = os.fork()
    if child == 0:
        _folder._remove(place, os.getppid())
        os._exit(0)
    os.waitpid(child, 0)
    assert place.is_dir()


def damage(file, rng):
    """Put a damaged copy, or something else, into the place of a file; the process has loaded the file itself."""
    content = file.read_bytes()
    file.unlink()
    file.write_bytes(content)
    kinds = ["cut", "flip", "grow", "fifo", "folder", "dangling link", "link to itself", "unreadable", "gone", "empty"]
    kind = rng.choice(kinds)
    if kind == "cut":
        file.write_bytes(content[: rng.randrange(len(content))])
    elif kind == "flip":
        at = rng.randrange(len(content))
        file.write_bytes(content[:at] + bytes([content[at] ^ (1 << rng.randrange(8))]) + content[at + 1 :])
    elif kind == "grow":
        file.write_bytes(content + b"\0")
    elif kind == "unreadable":
        file.chmod(0)
    elif kind == "gone":
        file.unlink()
    elif kind == "empty":
        file.write_bytes(b"")
    else:
        block(file, kind)
    return kind


def test_a_cache_damaged_at_random_gives_right_programs(folder, monkeypatch):
    made = _disk_cache.build_library(SOURCE, COMMAND).read_bytes()
    monkeypatch.setattr(_disk_cache, "_compile", lambda source, place, command: place.write_bytes(made))
    rng = random.Random(7)
    for step in range(300):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            library = load_library(SOURCE, COMMAND, "run")
        assert library.run() == 7
        for file in folder.glob("*.so"):
            if file.is_file() and rng.random() < 0.7:
                damage(file, rng)
        if step % 50 == 0:
            for file in folder.iterdir():
                if file.is_dir():
                    (file / "inside").unlink(missing_ok=True)


def test_what_never_loads_is_an_error_of_the_compiler(folder):
    with pytest.raises(CompilerError, match="writes what does not load: .*invalid ELF header|file too short"):
        load_library(SOURCE, ("env", "sh", "-c", "echo rubbish > {library}"), "run")
    with pytest.raises(CompilerError, match="writes what does not load: .*undefined symbol: walk"):
        load_library(SOURCE, COMMAND, "walk")
    assert list(folder.glob("*.so")) == []
