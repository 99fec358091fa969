"""The cache of compiled programs on disk: what is found again, what is not trusted, what is removed."""

import ctypes
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import torchpure as tp
from torchpure._cpp import _disk_cache, compiler_command
from torchpure._cpp._folder import _warn
from torchpure.errors import InputError

pytestmark = pytest.mark.usefixtures("folder")
COMMAND = ("g++", "-shared", "-fPIC", "-O1", "{source}", "-o", "{library}")
SOURCE = 'extern "C" int run() { return 7; }\n'


@pytest.fixture
def compiles(monkeypatch):
    """The commands that make a library."""
    commands = []
    run = _disk_cache._run

    def counted(command):
        if "--version" not in command:
            commands.append(command)
        return run(command)

    monkeypatch.setattr(_disk_cache, "_run", counted)
    return commands


def _call(file):
    return ctypes.CDLL(str(file)).run()


def test_a_program_is_compiled_once(compiles, folder):
    first, second = (_disk_cache.build_library(SOURCE, COMMAND) for _ in range(2))
    assert first == second and len(compiles) == 1 and _call(first) == 7
    assert folder.stat().st_mode & 0o777 == 0o700 and first.stat().st_mode & 0o777 == 0o600
    assert list(folder.iterdir()) == [first]


@pytest.mark.parametrize("what", ["source", "flags", "compiler", "processor", "torch", "torchpure"])
def test_everything_that_matters_is_in_the_key(what, compiles, monkeypatch):
    first = _disk_cache.build_library(SOURCE, COMMAND)
    source, command = SOURCE, COMMAND
    if what == "source":
        source += "// more\n"
    elif what == "flags":
        command = (*COMMAND, "-O2")
    elif what == "compiler":
        monkeypatch.setattr(_disk_cache, "_identify_compiler", lambda name: "g++ 99")
    elif what == "processor":
        monkeypatch.setattr(_disk_cache, "_processor_features", lambda: "another")
    elif what == "torch":
        monkeypatch.setattr(_disk_cache.torch, "__version__", "9.9")
    else:
        monkeypatch.setattr(_disk_cache, "version", lambda name: "9.9")
    assert _disk_cache.build_library(source, command) != first and len(compiles) == 2


@pytest.mark.parametrize("damage", [b"", b"garbage", None])
def test_a_damaged_file_is_made_again(damage, compiles):
    file = _disk_cache.build_library(SOURCE, COMMAND)
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2] if damage is None else damage)
    again = _disk_cache.build_library(SOURCE, COMMAND)
    assert len(compiles) == 2 and _call(again) == 7 and len(list(again.parent.iterdir())) == 1


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702])
def test_a_folder_that_others_may_write_is_not_used(mode, folder):
    folder.mkdir()
    folder.chmod(mode)
    _warn.cache_clear()
    with pytest.warns(UserWarning, match=r"other users may write to it: .*chmod 700.*TORCHPURE_CACHE"):
        file = _disk_cache.build_library(SOURCE, COMMAND)
    assert _call(file) == 7 and list(folder.iterdir()) == []
    assert _disk_cache.build_library(SOURCE, COMMAND) == file  # without another warning


def test_where_no_folder_can_be_made_one_lasts_as_long_as_the_process(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TORCHPURE_CACHE", str(tmp_path / "file" / "below"))
    file = _disk_cache.build_library(SOURCE, COMMAND)
    assert _call(file) == 7 and not str(file).startswith(str(tmp_path))


def test_the_size_is_bounded_and_the_least_recently_used_goes_first(folder, monkeypatch):
    files = [_disk_cache.build_library(f"{SOURCE}// {number}\n", COMMAND) for number in range(4)]
    old = time.time() - 1000
    for age, file in zip((30, 10, 40, 20), files, strict=True):
        os.utime(file, (old - age, old - age))
    assert _disk_cache.build_library(f"{SOURCE}// 0\n", COMMAND) == files[0]  # used: it is the youngest now
    stray = folder / "build-killed"
    stray.mkdir()
    os.utime(stray, (old - 9000, old - 9000))
    monkeypatch.setenv("TORCHPURE_CACHE_MB", str(2.5 * files[0].stat().st_size / 2**20))
    new = _disk_cache.build_library(f"{SOURCE}// 4\n", COMMAND)
    assert set(folder.iterdir()) == {files[0], new}
    monkeypatch.setenv("TORCHPURE_CACHE_MB", "much")
    with pytest.raises(InputError, match="must be a number of megabytes, got 'much'"):
        _disk_cache.build_library(SOURCE, COMMAND)


def test_a_compiler_that_is_missing_or_fails_leaves_nothing(folder):
    with pytest.raises(_disk_cache.CompilerError, match="there is no C\\+\\+ compiler no-such-compiler"):
        _disk_cache.build_library(SOURCE, ("no-such-compiler", *COMMAND[1:]))
    with pytest.raises(_disk_cache.CompilerError, match="fails: .*error"):
        _disk_cache.build_library("int run( {", COMMAND)
    with pytest.raises(_disk_cache.CompilerError, match="made no library"):
        _disk_cache.build_library(SOURCE, ("true",))
    assert list(folder.iterdir()) == []


def test_several_processes_share_a_folder(folder):
    program = (
        "import sys, ctypes; sys.path.insert(0, sys.argv[1])\n"
        "from torchpure._cpp import _disk_cache\n"
        f"files = [_disk_cache.build_library({SOURCE!r} + f'// {{n}}', {COMMAND!r}) for n in range(3)]\n"
        "assert all(ctypes.CDLL(str(file)).run() == 7 for file in files)\n"
    )
    root = str(Path(__file__).parents[3])
    running = [subprocess.Popen([sys.executable, "-c", program, root]) for _ in range(3)]
    assert [process.wait() for process in running] == [0, 0, 0]
    assert not list(folder.glob("build-*")) and len(list(folder.glob("*.so"))) >= 3


def test_a_process_killed_while_it_compiles_leaves_no_library(folder):
    folder.mkdir(mode=0o700)
    slow = ("env", "sh", "-c", "echo half > {library}; sleep 30")
    program = f"from torchpure._cpp import _disk_cache; _disk_cache.build_library({SOURCE!r}, {slow!r})"
    process = subprocess.Popen([sys.executable, "-c", program], cwd=Path(__file__).parents[3], start_new_session=True)
    while not list(folder.glob("build-*/program.so")):
        time.sleep(0.05)
        assert process.poll() is None
    os.killpg(process.pid, 9)
    process.wait()
    assert not list(folder.glob("*.so"))


def test_where_the_folder_has_no_room_a_file_lasts_as_long_as_the_process(folder, monkeypatch):
    def full(made):
        if folder in made.parents:
            raise OSError(28, "No space left on device")
        made.write_text("found = 3")

    file = _disk_cache.store_file("key", ".py", full)
    assert file.read_text() == "found = 3" and folder not in file.parents
    assert not list(folder.iterdir())


def test_a_compiler_may_be_several_words(folder, compiler_of_environment):
    compiler_of_environment("env g++")
    assert compiler_command()[:2] == ("env", "g++")
    x = torch.linspace(0, 1, 5)
    assert torch.equal(tp.jit(lambda x: x * 2 + 1)(x), x * 2 + 1)
    assert len(list(folder.glob("*.so"))) == 1
