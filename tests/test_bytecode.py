"""Bytecode that this library reads: every opcode of a supported Python is listed. A new Python fails these tests.

The proof that a module draws nothing refuses an unknown opcode, which costs time only. The searches for captured and
written names would miss an unknown opcode, so every opcode that takes a name must be listed.
"""

import dis

import pytest
from torch import nn

from torchpure.model.copies import _hidden_state, _never_draws
from torchpure.transforms.calls import _cell_snapshot
from torchpure.transforms.purity import _reach

UNPROVEN = {  # opcodes that the proof refuses: such modules are checked at each call
    "ASYNC_GEN_WRAP", "BEFORE_ASYNC_WITH", "BEFORE_WITH", "CALL_INTRINSIC_2", "CHECK_EG_MATCH", "CLEANUP_THROW",
    "DELETE_DEREF", "DELETE_NAME", "END_ASYNC_FOR", "END_SEND", "GET_AITER", "GET_ANEXT", "GET_AWAITABLE",
    "GET_YIELD_FROM_ITER", "IMPORT_FROM", "IMPORT_NAME", "IMPORT_STAR", "LOAD_BUILD_CLASS", "LOAD_CLASSDEREF",
    "LOAD_FROM_DICT_OR_DEREF", "LOAD_FROM_DICT_OR_GLOBALS", "LOAD_LOCALS", "LOAD_SUPER_ATTR", "LOAD_SUPER_METHOD",
    "LOAD_ZERO_SUPER_ATTR", "LOAD_ZERO_SUPER_METHOD", "MATCH_CLASS", "MATCH_KEYS", "MATCH_MAPPING", "MATCH_SEQUENCE",
    "PREP_RERAISE_STAR", "PRINT_EXPR", "SEND", "SETUP_ANNOTATIONS", "STORE_NAME", "WITH_EXCEPT_START",
}  # fmt: skip
INTERNAL = {  # opcodes of the interpreter and its compiler: loaded code does not contain them
    "ENTER_EXECUTOR", "EXIT_INIT_CHECK", "INTERPRETER_EXIT", "JUMP", "JUMP_NO_INTERRUPT", "POP_BLOCK", "RESERVED",
    "SETUP_CLEANUP", "SETUP_FINALLY", "SETUP_WITH", "STORE_FAST_MAYBE_NULL",
}  # fmt: skip
TAKES_NAME = {
    "DELETE_ATTR", "DELETE_GLOBAL", "DELETE_NAME", "IMPORT_FROM", "IMPORT_NAME", "LOAD_ATTR",
    "LOAD_FROM_DICT_OR_GLOBALS", "LOAD_GLOBAL", "LOAD_METHOD", "LOAD_NAME", "LOAD_SUPER_ATTR", "LOAD_SUPER_METHOD",
    "LOAD_ZERO_SUPER_ATTR", "LOAD_ZERO_SUPER_METHOD", "STORE_ATTR", "STORE_GLOBAL", "STORE_NAME",
}  # fmt: skip
TAKES_CELL = {
    "DELETE_DEREF", "LOAD_CLASSDEREF", "LOAD_CLOSURE", "LOAD_DEREF", "LOAD_FROM_DICT_OR_DEREF", "MAKE_CELL",
    "STORE_DEREF",
}  # fmt: skip


def test_every_opcode_of_this_python_is_listed_for_the_proof():
    known = {
        *_never_draws._HARMLESS_OPCODES,
        *_never_draws._LOAD_GLOBAL,
        *_never_draws._LOAD_ATTRIBUTE,
        *_never_draws._WRITING_OPCODES,
        *UNPROVEN,
        *INTERNAL,
    }
    opcodes = {name for name in dis.opmap if not name.startswith("INSTRUMENTED_")}
    assert opcodes <= known, f"read what these opcodes do, and add each to one of the lists: {sorted(opcodes - known)}"
    assert not _never_draws._HARMLESS_OPCODES & {*_never_draws._WRITING_OPCODES, *UNPROVEN, *INTERNAL}


def test_every_opcode_that_takes_a_name_is_listed():
    names = {dis.opname[op] for op in dis.hasname if dis.opname[op] in dis.opmap}
    cells = {dis.opname[op] for op in dis.hasfree if dis.opname[op] in dis.opmap}
    assert names <= TAKES_NAME, f"find out whether these read, write or delete a name: {sorted(names - TAKES_NAME)}"
    assert cells <= TAKES_CELL, f"find out whether these read, write or delete a name: {sorted(cells - TAKES_CELL)}"


first = second = third = fourth = fifth = written = 1
shown = []


def _reading(x, items=()):
    total = first + sum(second * item for item in items) + len([third + item for item in items])
    total += (lambda: fourth)()

    class Inner:
        held = fifth

    return total + x + Inner.held


def _writing(x):
    global written
    written = x


def _makes(kind):
    kept = 0

    def nonlocally(x):
        nonlocal kept
        kept = x + 1

    def deleting(x):
        nonlocal kept
        del kept

    def nested(x):
        def inner():
            nonlocal kept
            kept = x

        inner()

    return {"nonlocally": nonlocally, "deleting": deleting, "nested": nested, "reading": lambda x: x + kept}[kind]


def _setting(x):
    shown.last = x


def test_names_that_code_reads_and_writes_are_found():
    assert {"first", "second", "third", "fourth", "fifth"} <= set(_reach._names(_reading.__code__).globals)
    assert not _reach._names(_reading.__code__).stores
    assert "written" in _reach._names(_writing.__code__).globals and _reach._names(_writing.__code__).stores
    assert _reach._names(_setting.__code__).sets_attributes and "last" in _reach._names(_setting.__code__).attributes
    assert not _reach._names(_writing.__code__).sets_attributes


@pytest.mark.parametrize("kind", ["nonlocally", "deleting", "nested", "reading"])
def test_cells_that_code_writes_are_found(kind):
    code = _makes(kind).__code__
    assert _cell_snapshot._mutated_names(code) == (frozenset() if kind == "reading" else {"kept"})
    assert _reach._names(code).stores == (kind in {"nonlocally", "nested"})


CHANGES = ["x[0] = 1", "x[0:1] = 1", "x += 1", "del x[0]", "del x.a", "x.a = 1", "global y; y = x"]


@pytest.mark.parametrize("line", CHANGES)
def test_writes_are_recognised(line):
    space = {}
    exec(f"def f(x):\n {line}", space)
    assert any(map(_never_draws.is_write, dis.get_instructions(space["f"].__code__)))
    exec("def g(x):\n return x[0:1] + x.a - x[0]", space)
    assert not any(map(_never_draws.is_write, dis.get_instructions(space["g"].__code__)))


class Counting(nn.Module):
    def forward(self, x):
        self.calls = 1
        return x


class CountingByItsBase(nn.Module):
    def forward(self, x):
        super().__setattr__("calls", 1)
        return x


class Appending(nn.Module):
    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, x):
        self.seen.append(1)
        return x


def test_hidden_state_is_found():
    assert all(map(_hidden_state.has_hidden_state, (Counting(), CountingByItsBase(), Appending())))
    assert not _hidden_state.has_hidden_state(nn.Sequential(nn.Linear(1, 1), nn.Tanh()))
