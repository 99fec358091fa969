"""The lowest versions that pyproject.toml declares, as constraints of pip.

python tests/release/lowest.py [VERSION of torch]
"""

import re
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

PROJECT = Path(__file__).parents[2] / "pyproject.toml"


def lowest(requirements: Iterable[str]) -> dict[str, str]:
    """Return the lowest version of each requirement, by name.

    >>> lowest(["torch>=2.13,<2.16"])
    {'torch': '2.13'}
    """
    found = {}
    for requirement in requirements:
        match = re.fullmatch(r"([\w.-]+)>=([\d.]+)(?:,<[\d.]+)?", requirement)
        if match is None:
            raise ValueError(f"pyproject.toml: {requirement!r} has no lowest version: write NAME>=VERSION")
        found[match[1]] = match[2]
    return found


def dependencies() -> list[str]:
    """Return what the package needs, without the extras."""
    return tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]["dependencies"]


if __name__ == "__main__":
    versions = lowest(dependencies()) | ({"torch": sys.argv[1]} if sys.argv[1:] else {})
    sys.stdout.write("".join(f"{name}=={version}\n" for name, version in versions.items()))
