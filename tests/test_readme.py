"""The README's example runs as printed."""

import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def test_readme_example_runs(tmp_path):
    examples = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert len([line for line in examples[0].splitlines() if line.strip()]) <= 20
    script = tmp_path / "example.py"
    script.write_text("\n".join(examples), encoding="utf-8")
    done = subprocess.run([sys.executable, "-W", "error", script], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    loss, second = re.match(r"loss (\S+), f″ near π/2 (\S+)\n", done.stdout).groups()
    assert float(loss) < 0.05
    assert abs(float(second) + 2) < 0.3  # f″ = −2 sin x


def test_links_are_absolute_and_lead_to_files_that_exist():
    """PyPI shows this page too, without the files around it."""
    ours = re.compile(
        r"https://(?:github\.com/torchpure/torchpure/blob|raw\.githubusercontent\.com/torchpure/torchpure)/main/(.+)"
    )
    text = README.read_text(encoding="utf-8")
    targets = re.findall(r"\]\((\S+?)\)", text) + re.findall(r"^\[[^\]]+\]: (\S+)$", text, re.MULTILINE)
    assert len(targets) >= 9
    for target in targets:
        found = ours.fullmatch(target)
        assert found, f"README.md: {target} is no absolute link into the repository"
        assert (README.parent / found[1]).is_file(), f"README.md: there is no {found[1]}"


def test_each_name_in_brackets_has_its_link():
    text = README.read_text(encoding="utf-8")
    used = set(re.findall(r"\[((?:docs/)?\w+\.md)\](?![:(])", text))
    assert used == set(re.findall(r"^\[([^\]]+)\]: ", text, re.MULTILINE))
