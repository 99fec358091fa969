"""What a column of an Arrow type holds, in a word, and the type that holds the values of two."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa


def kind_of_type(kind: pa.DataType) -> str | None:
    """Return number, boolean, time, text, nothing (missing values alone), or None for something else."""
    import pyarrow as pa

    kinds = {
        "number": (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal),
        "boolean": (pa.types.is_boolean,),
        "time": (pa.types.is_date, pa.types.is_timestamp),
        "text": (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view),
        "nothing": (pa.types.is_null,),
    }
    return next((word for word, checks in kinds.items() if any(check(kind) for check in checks)), None)


def plain_type(kind: pa.DataType) -> pa.DataType:
    """Return the type of the values of a dictionary, or the type itself."""
    import pyarrow as pa

    return kind.value_type if pa.types.is_dictionary(kind) else kind


def common_type(first: pa.DataType, second: pa.DataType) -> pa.DataType | None:
    """Return the type that holds the values of both; None if one holds numbers and the other text, or the like."""
    import pyarrow as pa

    first, second = plain_type(first), plain_type(second)
    words = {kind_of_type(first), kind_of_type(second)} - {"nothing"}
    if first == second or not words:
        return first
    if len(words) > 1 or None in words:
        return None
    if pa.types.is_null(first) or pa.types.is_null(second):
        return second if pa.types.is_null(first) else first
    if words == {"time"}:
        zones = {getattr(first, "tz", None), getattr(second, "tz", None)}
        return pa.timestamp("us", tz=zones.pop()) if len(zones) == 1 else None
    return pa.float64() if words == {"number"} else pa.string()
