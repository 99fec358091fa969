import io

import pytest

from torchpure.cli._progress import live_line, speed


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_without_a_terminal_nothing_is_written(capsys):
    with live_line(3, quiet=False) as report:
        report(1, 0.5)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("quiet", [False, True])
def test_the_line_on_a_terminal(monkeypatch, quiet):
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with live_line(3, quiet=quiet) as report:
        for step in (1, 2, 3):
            report(step, 0.5)
    shown = terminal.getvalue()
    assert ("step 3/3  loss 5.000e-01" in shown) is not quiet
    assert "step 2/3" not in shown


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((100, 500, 0.5), "200 steps/s  0:02 left"),
        ((1, 2, 3.0), "0.333 steps/s  0:03 left"),
        ((1, 7201, 1.0), "1 steps/s  2:00:00 left"),
        ((5, 5, 0.0), "5000000000 steps/s  0:00 left"),
    ],
)
def test_speed(arguments, expected):
    assert speed(*arguments) == expected
