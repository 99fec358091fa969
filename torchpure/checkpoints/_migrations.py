"""Schemas of the manifest: how a manifest of an older schema becomes one of the newest."""

from collections.abc import Callable, Mapping
from typing import Any

SCHEMA = 3
OF_WHOLE_TENSORS = 2  # of a tree without DTensors: versions of torchpure before schema 3 read it
Fields = dict[str, Any]


def _without_blake3(fields: Fields) -> Fields:
    """Schema 2 has the BLAKE3 hash of each file; a file of schema 1 has none, and is checked by its SHA-256."""
    files = fields.get("files")
    if not isinstance(files, list):
        return fields
    return {**fields, "files": [{**one, "blake3": None} if isinstance(one, dict) else one for one in files]}


def _without_shards(fields: Fields) -> Fields:
    """Schema 3 has tensors in shards; those of schema 2 are whole."""
    return fields


# schema → the function from its manifests to those of the next schema. Each is pure: it returns new fields.
MIGRATIONS: dict[int, Callable[[Fields], Fields]] = {1: _without_blake3, 2: _without_shards}


def migrate(
    fields: Fields, newest: int = SCHEMA, migrations: Mapping[int, Callable[[Fields], Fields]] = MIGRATIONS
) -> Fields:
    """Return a manifest in the newest schema.

    Raises:
        ValueError: its schema is newer, or unknown.
    """
    schema = fields.get("schema")
    if type(schema) is not int or schema < 0:
        raise ValueError(f"wanted the number of a schema, got {schema!r:.40}")
    if schema > newest:
        raise ValueError(
            f"it has schema {schema}, written by torchpure {_writer(fields)}; this version reads schemas up to "
            f"{newest}. Update torchpure"
        )
    while schema < newest:
        if schema not in migrations:
            raise ValueError(f"its schema {schema} is unknown")
        schema, fields = schema + 1, {**migrations[schema](fields), "schema": schema + 1}
    return fields


def _writer(fields: Fields) -> str:
    versions = fields.get("versions")
    return f"{versions.get('torchpure', '?')!s:.20}" if isinstance(versions, dict) else "?"
