"""Parquet tables as Hugging Face's readers want them: schemas that say which columns are sequences and which are pictures."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from flashrt_core.errors import ConfigError

from .layout import DatasetShape

ROW_BATCH = 64  # rows decoded at a time: they may hold pictures


def arrow_type(feature: dict[str, Any]) -> Any:
    """The Arrow type of a column; a picture is its file's bytes and a path, as in the `datasets` package."""
    import pyarrow as pa

    if feature["dtype"] == "image":
        return pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    item = {"float32": pa.float32(), "int64": pa.int64()}[feature["dtype"]]
    return item if feature["shape"] == [1] else pa.list_(item, feature["shape"][0])


def frame_schema(shape: DatasetShape) -> Any:
    """Columns of the data files, without those that are videos."""
    import pyarrow as pa

    features = {k: f for k, f in shape.features().items() if f["dtype"] != "video"}
    about = {"info": {"features": {k: _named(f) for k, f in features.items()}}}
    return pa.schema([(k, arrow_type(f)) for k, f in features.items()], metadata={"huggingface": json.dumps(about)})


def _named(feature: dict[str, Any]) -> dict[str, Any]:
    """A column in the words of the `datasets` package (features.py, to_dict)."""
    if feature["dtype"] == "image":
        return {"_type": "Image"}
    value = {"dtype": feature["dtype"], "_type": "Value"}
    return value if feature["shape"] == [1] else {"feature": value, "length": feature["shape"][0], "_type": "Sequence"}


def tasks_table(tasks: list[str]) -> Any:
    """v3.0's tasks: pandas reads the sentence as the index of the rows."""
    import pyarrow as pa

    columns = [
        {"name": name, "field_name": name, "pandas_type": pandas, "numpy_type": numpy, "metadata": None}
        for name, pandas, numpy in (("task_index", "int64", "int64"), ("task", "unicode", "object"))
    ]
    about = {"index_columns": ["task"], "column_indexes": [], "columns": columns, "pandas_version": "2.0.0"}
    schema = pa.schema([("task_index", pa.int64()), ("task", pa.string())], metadata={"pandas": json.dumps(about)})
    return pa.table({"task_index": list(range(len(tasks))), "task": tasks}, schema=schema)


class RowReader:
    """Rows of parquet files in order; going forward in a file reads it once, whatever its row groups are."""

    def __init__(self, columns: list[str]):
        self._columns = columns
        self._path: Path | None = None
        self._rows: Iterator[dict[str, Any]] = iter(())
        self._next = 0

    def rows(self, path: Path, low: int, high: int) -> Iterator[dict[str, Any]]:
        """Rows low .. high of a file. Raises ConfigError when they are not there."""
        if path != self._path or low < self._next:
            self._path, self._rows, self._next = path, self._all(path), 0
        while self._next < high:
            row = next(self._rows, None)
            if row is None:
                raise ConfigError(f"parquet {path.name}", expected=f"{high} rows", found=self._next)
            self._next += 1
            if self._next > low:
                yield row

    def _all(self, path: Path) -> Iterator[dict[str, Any]]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(ROW_BATCH, columns=self._columns):
                    yield from batch.to_pylist()
        except (OSError, pa.ArrowException, KeyError, ValueError, TypeError, MemoryError) as error:
            raise ConfigError(f"parquet {path.name}", expected="an episode's rows", found=str(error)[:100]) from None


def plain(value: object) -> object:
    """Arrays as lists, for JSON and parquet."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    return value.tolist() if isinstance(value, np.ndarray) else value
