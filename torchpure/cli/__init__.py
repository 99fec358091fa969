"""The command line: the only layer that reads arguments and files, and prints."""

from ._app import main as main
