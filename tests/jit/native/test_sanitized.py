"""Generated libraries run clean under AddressSanitizer and UBSan: 2,000 random ones, and those of the tables."""

import subprocess
import sys

import pytest
import sanitized

CHUNKS, EACH = 40, 50


def run(folder, *words):
    environment = sanitized.environment(folder)
    if environment is None:
        pytest.skip("the compiler has no AddressSanitizer")
    command = [sys.executable, sanitized.__file__, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=1800, check=False)


def count(folder, *words):
    """Return how many libraries have run clean."""
    ended = run(folder, *words)
    last = ended.stdout.strip().splitlines()[-1:]
    assert ended.returncode == 0, f"{last}\n{ended.stderr[:4000]}"
    return int(last[0].removeprefix("built and run: "))


@pytest.mark.compile
def test_a_random_library_runs_clean(tmp_path):
    assert count(tmp_path, "random", 0, 1, 1) == 1


@pytest.mark.proof
@pytest.mark.parametrize("first", range(CHUNKS))
def test_two_thousand_random_libraries_run_clean(first, tmp_path):
    assert count(tmp_path, "random", first, CHUNKS, EACH) == EACH


@pytest.mark.proof
def test_the_programs_of_the_tables_run_clean(tmp_path):
    assert count(tmp_path, "tables") >= 70


@pytest.mark.proof
@pytest.mark.parametrize("name", sanitized.BROKEN)
def test_a_wrong_library_is_found(name, tmp_path):
    ended = run(tmp_path, "broken", name)
    assert ended.returncode != 0 and name in ended.stderr
