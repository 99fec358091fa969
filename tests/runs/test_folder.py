import os
import threading
import time

import pytest

from torchpure.errors import InputError
from torchpure.runs._folder import draft, slug

pytestmark = pytest.mark.usefixtures("here")


def save(out=None, name="a"):
    with draft(out, name) as folder:
        (folder.path / "file").write_text("x")
        return folder.publish()


@pytest.mark.parametrize(
    ("text", "expected"),
    [("2*sin(x)", "2-sin-x"), ("../../etc", "etc"), ("***", "run"), ("A" * 99, "a" * 40), ("x" * 39 + " y", "x" * 39)],
)
def test_slug(text, expected):
    assert slug(text) == expected


def test_equal_names_are_numbered(here, listing):
    assert [str(save()) for _ in range(3)] == ["runs/a", "runs/a-2", "runs/a-3"]
    assert (listing("runs")) == ["a", "a-2", "a-3"]
    assert listing("runs/a") == ["file"]


def test_runs_at_the_same_time_get_different_names(listing):
    threads = [threading.Thread(target=save) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (listing("runs")) == ["a", *(f"a-{number}" for number in range(2, 9))]


def test_out_names_the_folder(here, listing):
    assert save(here / "mine") == here / "mine"
    assert listing(here) == ["mine"]


def test_the_folder_has_ordinary_permissions(here):
    (here / "ordinary").mkdir()
    assert save(here / "mine").stat().st_mode == (here / "ordinary").stat().st_mode


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failure_leaves_nothing(here, error, listing):
    for out in (None, here / "mine"):
        with pytest.raises(error), draft(out, "a") as folder:
            (folder.path / "file").touch()
            raise error
    assert listing(here) == []


def test_a_failure_keeps_the_runs_of_others(here, listing):
    save()
    with pytest.raises(ValueError, match="now"), draft(None, "a"):
        raise ValueError("now")
    assert listing("runs") == ["a"]


@pytest.mark.parametrize("name", [".", "/", "file", "folder", "link"])
def test_an_existing_out_is_an_error(here, name, listing):
    (here / "file").touch()
    (here / "folder").mkdir()
    (here / "link").symlink_to("nowhere")
    with pytest.raises(InputError, match="exists already"):
        save(here / name if name != "." else type(here)("."))
    assert (listing(here)) == ["file", "folder", "link"]


def test_out_without_a_parent_folder_is_an_error(here):
    with pytest.raises(InputError, match="'none' does not exist"):
        save(type(here)("none/mine"))


def test_out_below_a_file_is_an_error(here):
    (here / "file").touch()
    with pytest.raises(InputError, match=r"cannot write in .*not a directory"):
        save(here / "file" / "mine")


def test_out_that_appears_during_the_run_is_an_error(here, listing):
    with pytest.raises(InputError, match="was made by someone else"), draft(here / "mine", "a") as folder:
        (here / "mine").mkdir()
        folder.publish()
    assert listing(here) == ["mine"]


def abandoned(parent, name=".a-0123abcd.partial", age=100, files=("config.json", ".tmpx")):
    folder = parent / name
    folder.mkdir()
    for file in files:
        (folder / file).touch()
    os.utime(folder, (time.time() - age,) * 2)
    return folder


def test_folders_of_killed_runs_are_removed_by_the_next_run(here, listing):
    (here / "runs").mkdir()
    abandoned(here / "runs")
    save()
    assert listing("runs") == ["a"]
    abandoned(here, ".mine-01234567.partial")
    save(here / "mine")
    assert listing(here) == ["mine", "runs"]


KEPT = {
    "younger": {"age": 1},
    "with other files": {"files": ("config.json", "notes.txt")},
    "with another name": {"name": ".a-0123.partial"},
    "not hidden": {"name": "a-0123abcd.partial"},
}


@pytest.mark.parametrize("name", KEPT)
def test_other_folders_are_kept(here, listing, name):
    (here / "runs").mkdir()
    folder = abandoned(here / "runs", **KEPT[name])
    save()
    assert folder.name in listing("runs")


def test_a_running_writer_keeps_its_folder(here, listing):
    with draft(None, "slow") as slow:
        (slow.path / "config.json").touch()
        os.utime(slow.path, (0, 0))
        save()
        assert slow.path.exists()
        slow.publish()
    assert listing("runs") == ["a", "slow"]


def test_a_link_to_a_folder_is_kept(here, listing):
    target = abandoned(here, "target")
    (here / "runs").mkdir()
    (here / "runs/.a-0123abcd.partial").symlink_to(target)
    save()
    assert target.exists() and listing(target) == [".tmpx", "config.json"]


def test_a_rename_that_fails_leaves_no_empty_folder(here, listing, monkeypatch):
    def refuse(path, target):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("pathlib.Path.replace", refuse)
    with pytest.raises(OSError, match="Input/output"):
        save()
    assert listing(here) == []


def test_runs_as_a_file_is_an_error(here):
    (here / "runs").touch()
    with pytest.raises(InputError, match="runs: not a folder"):
        save()


def test_runs_that_cannot_be_made_is_an_error(monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.mkdir", refuse)
    with pytest.raises(InputError, match=r"runs: cannot be made here \(permission denied\)"):
        save()
