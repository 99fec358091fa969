"""Points from outside: columns of data files, and expressions that a user types. Nothing is executed."""

from ._domain import LARGEST, Domain, parse_domain
from ._expression import compile_expression
from ._named_columns import column_names, read_columns, write_columns
from ._table import Table, is_table, read_table

__all__ = [
    "LARGEST",
    "Domain",
    "Table",
    "column_names",
    "compile_expression",
    "is_table",
    "parse_domain",
    "read_columns",
    "read_table",
    "write_columns",
]
