"""Kernels → C++ → the command that compiles it."""

from ._toolchain import compiler_command as compiler_command
from ._translation_unit import TranslationUnit as TranslationUnit
from ._translation_unit import generate_cpp as generate_cpp
