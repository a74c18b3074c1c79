"""Decisions to Parquet, in batches: memory does not grow with the ledger."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import sqlalchemy as sa

from serve_app.observe import reader
from serve_app.observe.tables import decisions

TYPES: dict[type, pa.DataType] = {
    sa.String: pa.string(),
    sa.Text: pa.string(),
    sa.Double: pa.float64(),
    sa.Integer: pa.int64(),
    sa.Boolean: pa.bool_(),
}


def export(url: str, out: Path, since: float | None = None, until: float | None = None, *, receipts: bool = False) -> int:
    """Write the decisions made in [since, until), Unix time, oldest first; the number of them. `receipts`: with the receipt's JSON.

    The file is there when it is whole. Raises `TierwiseError` when the ledger cannot be read.
    """
    columns = [column for column in decisions.columns if receipts or column.name != "receipt"]
    wanted = sa.select(*columns).where(*reader.between(since, until)).order_by(decisions.c.created, decisions.c.id)
    schema = pa.schema([pa.field(column.name, TYPES[type(column.type)]) for column in columns])
    part = out.with_name(f"{out.name}.part")
    try:
        with reader.reading(url) as connection, pq.ParquetWriter(part, schema, compression="zstd") as writer:
            count = sum(_write(writer, schema, batch) for batch in reader.rows(connection, wanted))
        part.replace(out)
    finally:
        part.unlink(missing_ok=True)
    return count


def _write(writer: pq.ParquetWriter, schema: pa.Schema, batch: Iterable[Mapping[Any, Any]]) -> int:
    made = pa.Table.from_pylist([dict(row) for row in batch], schema=schema)
    writer.write_table(made)
    return int(made.num_rows)
