import threading

import pytest

from torchpure.errors import InputError
from torchpure.runs._folder import new_folder, replace_file, slug

pytestmark = pytest.mark.usefixtures("here")


def save(out=None, name="a"):
    with new_folder(out, name, lambda folder: False) as folder:
        (folder / "file").write_text("x")
    return folder


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
        with pytest.raises(error), new_folder(out, "a", lambda folder: False) as folder:
            (folder / "file").touch()
            raise error
    assert listing(here) == []


def test_a_failure_keeps_the_runs_of_others(here, listing):
    save()
    with pytest.raises(ValueError, match="now"), new_folder(None, "a", lambda folder: False):
        raise ValueError("now")
    assert listing("runs") == ["a"]


def test_a_failure_keeps_what_is_worth_keeping(here, listing):
    with (
        pytest.raises(ValueError, match="now"),
        new_folder(None, "a", lambda folder: (folder / "file").exists()) as folder,
    ):
        (folder / "file").touch()
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


def test_a_file_is_whole_or_absent(here, listing, monkeypatch):
    replace_file(here / "a", b"old")

    def refuse(path, target):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("pathlib.Path.replace", refuse)
    with pytest.raises(OSError, match="Input/output"):
        replace_file(here / "a", b"new")
    assert listing(here) == ["a"] and (here / "a").read_bytes() == b"old"


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
