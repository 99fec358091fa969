"""The README's example runs as it is printed."""

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
