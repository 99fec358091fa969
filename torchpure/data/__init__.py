"""Points from outside: columns of data files, and expressions that a user types. Nothing is executed."""

from ._blocks import Types, find_types, memory_needed, num_blocks, read_blocks
from ._columns import Column, Rules, complete_rows, fit_columns, fit_targets
from ._domain import LARGEST, Domain, parse_domain
from ._expression import compile_expression
from ._files import KINDS, digest, is_data, is_table, list_files
from ._named_columns import read_columns, write_blocks, write_table
from ._preprocessing import Preprocessing, encode, encode_targets, plain_numbers, standardised
from ._table import Choice, Table, check_columns, choose, column_names, read_table, table_of

__all__ = [
    "KINDS",
    "LARGEST",
    "Choice",
    "Column",
    "Domain",
    "Preprocessing",
    "Rules",
    "Table",
    "Types",
    "check_columns",
    "choose",
    "column_names",
    "compile_expression",
    "complete_rows",
    "digest",
    "encode",
    "encode_targets",
    "find_types",
    "fit_columns",
    "fit_targets",
    "is_data",
    "is_table",
    "list_files",
    "memory_needed",
    "num_blocks",
    "parse_domain",
    "plain_numbers",
    "read_blocks",
    "read_columns",
    "read_table",
    "standardised",
    "table_of",
    "write_blocks",
    "write_table",
]
