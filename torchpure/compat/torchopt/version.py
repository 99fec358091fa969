"""The version of torchopt whose names these are."""

__version__ = "0.7.3"
