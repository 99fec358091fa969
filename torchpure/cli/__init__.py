"""The command line: the only package that reads arguments and files, and prints."""

from ._app import main

__all__ = ["main"]
