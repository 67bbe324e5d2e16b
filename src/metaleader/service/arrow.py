"""Arrow IPC streams as bodies of requests and answers.

The stream's schema has the metadata `metaleader`: a JSON object of all that is no column, such as `task` and `ids`.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from metaleader.errors import UserError

MEDIA_TYPE = "application/vnd.apache.arrow.stream"
METADATA = b"metaleader"
_RECORDS, _DICTIONARY = 3, 2  # of org.apache.arrow.flatbuf.MessageHeader


def read(raw: bytes, most: int, rows: bool) -> dict[str, Any]:
    """The fields of a request in an Arrow stream.

    Args:
        raw: the stream.
        most: how many rows it may have.
        rows: whether each column is one of a table; otherwise columns are fields, whose values become arrays.

    Raises:
        UserError: it is no such stream, is compressed, has too many rows, or columns of other types than numbers,
            text, times, and lists of numbers of a fixed size.
    """
    try:
        _check_uncompressed(raw)
        with pa.ipc.open_stream(raw) as stream:
            schema, batches, n = stream.schema, [], 0
            for field in schema:
                if not _is_simple(field.type):
                    raise UserError(
                        f"column {field.name!r:.50} is of the type {field.type!s:.50}: give numbers, text, times, "
                        "or lists of a fixed size of numbers"
                    )
            for batch in stream:
                n += batch.num_rows
                if n > most:
                    raise UserError(f"the stream has more than {most} rows: send fewer at a time")
                batch.validate(full=True)
                batches.append(batch)
        about = json.loads((schema.metadata or {}).get(METADATA, b"{}"))
        if not isinstance(about, dict) or not n:
            raise UserError("an Arrow stream needs a row, and as metadata metaleader of its schema a JSON object")
        table = pa.Table.from_batches(batches, schema)
        if rows:
            return {**about, "rows": table.to_pylist()}
        return {**about, **{name: _array(table.column(name).combine_chunks(), name) for name in table.column_names}}
    except (pa.ArrowException, OSError, ValueError, struct.error, RecursionError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"the body is no Arrow IPC stream: {' '.join(str(error).split()):.200}") from error


def written(predictions: Any, about: Mapping[str, Any]) -> bytes:
    """Predictions as an Arrow stream with the column `predictions`.

    Raises:
        UserError: they are not one array.
    """
    if not isinstance(predictions, np.ndarray):
        raise UserError("these predictions are not one array: ask for application/json")
    if predictions.dtype.kind == "V":  # such as bfloat16, which Arrow does not know
        predictions = predictions.astype(np.float32)
    array = pa.array(predictions.reshape(-1))
    for size in reversed(predictions.shape[1:]):
        array = pa.FixedSizeListArray.from_arrays(array, size)
    table = pa.table({"predictions": array}).replace_schema_metadata({METADATA: json.dumps(dict(about))})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return sink.getvalue().to_pybytes()


def _is_simple(kind: pa.DataType) -> bool:
    while pa.types.is_fixed_size_list(kind):
        if kind.list_size < 1:
            return False
        kind = kind.value_type
        if not _is_number(kind) and not pa.types.is_fixed_size_list(kind):
            return False
    texts = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    return _is_number(kind) or texts or pa.types.is_date(kind) or pa.types.is_timestamp(kind)


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind)


def _array(column: Any, name: str) -> np.ndarray:
    shape = [len(column)]
    while pa.types.is_fixed_size_list(column.type) and not column.null_count:
        shape.append(column.type.list_size)
        column = column.flatten()
    if column.null_count:
        raise UserError(f"{name} must be without missing values")
    values = column.to_numpy(zero_copy_only=False)
    return np.asarray(values.astype(str) if values.dtype == object else values).reshape(shape)


def _check_uncompressed(raw: bytes) -> None:
    """Refuse compressed buffers: a few bytes may stand for more than the memory there is.

    The messages of a stream are headers in flatbuffers, each followed by a body; see Arrow's Message.fbs. A header is
    read here by hand, as pyarrow reads a body with its header.

    Raises:
        UserError: a body is compressed.
        struct.error: this is no stream.
    """
    at = 0
    while at + 8 <= len(raw):
        mark, size = struct.unpack_from("<Ii", raw, at)
        if mark != 0xFFFFFFFF:
            raise UserError("the body is no Arrow IPC stream: a message does not begin as one")
        if size <= 0:
            return
        header = raw[at + 8 : at + 8 + size]
        (root,) = struct.unpack_from("<I", header)
        kind, body = _field(header, root, 1), _field(header, root, 3)
        content = _pointed(header, _field(header, root, 2))
        number = header[kind] if kind else 0
        if number == _DICTIONARY:
            content = _pointed(header, _field(header, content, 1))
        if number in (_DICTIONARY, _RECORDS) and _field(header, content, 3):
            raise UserError("the Arrow stream is compressed: send it without compression")
        (length,) = struct.unpack_from("<q", header, body) if body else (0,)
        if length < 0:
            raise UserError("the body is no Arrow IPC stream: a message has a negative length")
        at += 8 + size + length


def _field(buffer: bytes, table: int, number: int) -> int:
    """Where a field of a table of a flatbuffer is; 0: it is not there."""
    (back,) = struct.unpack_from("<i", buffer, _within(buffer, table))
    virtual = _within(buffer, table - back)
    (size,) = struct.unpack_from("<H", buffer, virtual)
    slot = 4 + 2 * number
    (offset,) = struct.unpack_from("<H", buffer, virtual + slot) if slot < size else (0,)
    return _within(buffer, table + offset) if offset else 0


def _pointed(buffer: bytes, place: int) -> int:
    (offset,) = struct.unpack_from("<I", buffer, place)
    return _within(buffer, place + int(offset))


def _within(buffer: bytes, place: int) -> int:
    if not 0 <= place < len(buffer):
        raise UserError("the body is no Arrow IPC stream: a header points outside of itself")
    return place
