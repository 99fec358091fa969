"""What a report about a problem must say: versions, compiler, threads, devices and caches."""

import os
import platform
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import torch

from ._cpp import CompilerError, cache_folder, compiler_command

_PACKAGES = ("numpy", "optree", "safetensors", "pyarrow", "pydantic", "typer", "rich", "matplotlib")
_VARIABLES = ("TORCHPURE_CACHE", "TORCHPURE_CACHE_MB", "TORCHPURE_PROGRESS", "CXX", "OMP_NUM_THREADS")


def show_versions() -> None:
    """Print what a report about a problem should contain, one line each. Nothing is sent.

    The lines are: torchpure, Python, torch, the packages that torchpure uses, the system, the processor, the C++
    compiler, threads, devices, the folder of compiled programs, and the environment variables that act on them.

    >>> import torchpure as tp
    >>> tp.show_versions()
    torchpure    ...
    Python       3...
    torch        2...
    """
    found = {**_packages(), **_machine(), "programs": _programs(), "environment": _environment()}
    width = max(map(len, found)) + 1
    sys.stdout.write("".join(f"{name:<{width}} {text}\n" for name, text in found.items()))


def _packages() -> dict[str, str]:
    cuda = torch.version.cuda
    return {
        "torchpure": _version("torchpure"),
        "Python": f"{platform.python_version()} ({platform.python_implementation()})",
        "torch": f"{torch.__version__}, {f'CUDA {cuda}' if cuda else 'without CUDA'}",
        **{name: _version(name) for name in _PACKAGES},
    }


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _machine() -> dict[str, str]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "system": platform.platform(),
        "processor": f"{platform.machine()}, vector instructions {torch.backends.cpu.get_cpu_capability()}",
        "compiler": _compiler(),
        "threads": f"{torch.get_num_threads()} of torch, {cores} cores",
        "devices": ", ".join(["cpu", *_accelerators()]),
    }


def _compiler() -> str:
    try:
        words = compiler_command()
    except (FileNotFoundError, CompilerError) as error:
        return f"none: {error}"
    name = [word for word in words[: words.index("{source}")] if not word.startswith("-")]
    try:
        done = subprocess.run([*name, "--version"], capture_output=True, text=True, timeout=20, check=False)  # noqa: S603 the user's own compiler
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{shlex.join(name)}: {error}"
    return done.stdout.partition("\n")[0] or f"{shlex.join(name)}: ended with code {done.returncode}"


def _accelerators() -> list[str]:
    if not torch.cuda.is_available():
        return ["mps"] if torch.backends.mps.is_available() else []
    return [f"cuda:{index} ({torch.cuda.get_device_name(index)})" for index in range(torch.cuda.device_count())]


def _programs() -> str:
    """Describe the folder of compiled programs; the home of the user is not named."""
    folder = cache_folder()
    sizes = [path.stat().st_size for path in folder.glob("*.*") if path.is_file()]
    return f"{len(sizes)} files, {sum(sizes) / 1e6:.1f} MB in {_without_home(str(folder))}"


def _environment() -> str:
    return ", ".join(f"{name}={_without_home(os.environ[name])}" for name in _VARIABLES if name in os.environ) or "-"


def _without_home(text: str) -> str:
    home = str(Path("~").expanduser())
    return text.replace(home, "~") if home not in ("~", "/") else text
