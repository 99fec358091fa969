"""What a shell shows: completion, and the manual page."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
TYPED = """
source ~/.bashrc
COMP_WORDS=(torchpure fit --optim); COMP_CWORD=2
_torchpure_completion torchpure
echo "${COMPREPLY[@]}"
"""


def environment(home):
    """An own home, and `torchpure` on the path: the commands of this Python."""
    program = home / "bin/torchpure"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\nexec {sys.executable} -c "import sys; from torchpure.cli import main; sys.exit(main())" "$@"\n'
    )
    program.chmod(0o755)
    names = {"HOME": str(home), "PATH": f"{program.parent}:{os.environ['PATH']}", "SHELL": "/bin/bash"}
    return os.environ | names | {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_after_the_installation(tmp_path):
    names = environment(tmp_path)
    done = subprocess.run(
        ["torchpure", "--install-completion", "bash"], env=names, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0 and "bash completion installed" in done.stdout, done.stderr
    typed = subprocess.run(["bash", "-c", TYPED], env=names, capture_output=True, text=True, timeout=120)
    assert typed.stdout.split() == ["--optimizer"], typed.stderr


@pytest.fixture(scope="module")
def man():
    spec = importlib.util.spec_from_file_location("docs_man", DOCS / "man.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_manual_page_is_what_the_commands_say(man):
    assert man.PAGE.read_text(encoding="utf-8") == man.page(), "run `make man`"


def test_requests_of_man_in_a_text_are_escaped(man):
    assert man.escape(".TP\n'x'") == "\\&.TP\n\\&'x'"
    assert man.escape("a-b\\c~^") == r"a\-b\ec\(ti\(ha"


@pytest.mark.skipif(shutil.which("man") is None, reason="needs man")
def test_man_shows_the_page_without_a_warning(man):
    names = os.environ | {"MANWIDTH": "90", "LC_ALL": "C.UTF-8", "MANPAGER": "cat"}
    done = subprocess.run(["man", "--warnings", "-l", man.PAGE], env=names, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert "torchpure sweep" in done.stdout and "--learning-rate" in done.stdout
