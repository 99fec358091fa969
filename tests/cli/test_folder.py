import threading

import pytest

from torchpure.cli._folder import draft, slug
from torchpure.errors import InputError

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
