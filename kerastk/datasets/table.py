"""Tables of photos: rows of (path, label, split or None) from CSV, Parquet, data frames and lists."""

import csv
import itertools
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from kerastk.errors import DataError

Row = tuple[str, str, str | None]


def _columns(names: Iterable[str], where: str) -> bool:
    """Whether the table has a split column, once its other columns are known to be there."""
    names = list(names)
    missing = [each for each in ("path", "label") if each not in names]
    if missing:
        plural = "labels are lists; several labels a photo are not supported yet" if "labels" in names else ""
        raise DataError(f"{where} needs the columns path and label; it has {', '.join(names)}. {plural}".strip())
    return "split" in names


def csv_rows(path: Path) -> tuple[Iterator[Row], str]:
    """The rows of a CSV file with a header, and the name to call it by. Raises DataError while they are read."""

    def rows() -> Iterator[Row]:
        try:
            with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
                reader = csv.DictReader(file, strict=True)
                has_split = _columns(reader.fieldnames or (), str(path))
                for row in reader:
                    yield row["path"] or "", row["label"] or "", (row["split"] or None) if has_split else None
        except (csv.Error, OSError) as error:
            raise DataError(f"cannot read the table {str(path)!r}: {error}.") from None

    return rows(), str(path)


def parquet_rows(path: Path) -> tuple[Iterator[Row], str]:
    """The rows of a Parquet file, and the name to call it by. Raises DataError."""
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"cannot read the table {str(path)!r}: {error}.") from None
    return _column_rows({name: table[name].to_pylist() for name in table.column_names}, str(path)), str(path)


def _column_rows(columns: dict[str, list], where: str) -> Iterator[Row]:
    has_split = _columns(columns, where)
    splits = columns["split"] if has_split else itertools.repeat(None)
    for path, label, split in zip(columns["path"], columns["label"], splits, strict=False):
        yield _text(path), _label(label, where), _text(split) or None


def _text(value: Any) -> str:
    # Missing values of data frames: NaN differs from itself, and pandas.NA refuses to say.
    if type(value).__name__ == "NAType":
        return ""
    return "" if value is None or value != value else os.fspath(value) if isinstance(value, os.PathLike) else str(value)


def _label(value: Any, where: str) -> str:
    if isinstance(value, list | tuple | set) or type(value).__name__ == "ndarray":
        raise DataError(f"{where}: a label is a list, {value!r}; several labels a photo are not supported yet.")
    return _text(value)


def python_rows(data: Any) -> tuple[Iterator[Row], str]:
    """Rows of a data frame (anything with `columns` and column access) or of a list of (path, label[, split]).

    Raises:
        DataError: it is neither, or lacks a column.
    """
    if hasattr(data, "columns") and hasattr(data, "__getitem__"):
        columns = {str(name): list(data[name]) for name in data.columns}
        return _column_rows(columns, "the table"), "the table"
    try:
        rows = [tuple(row) for row in data]
    except TypeError:
        rows = None
    if rows is None or any(len(row) not in (2, 3) or isinstance(row[0], bytes) for row in rows):
        raise DataError(
            "data must be a path, tfds:NAME, a list of (path, label[, split]) or a data frame; "
            f"got {type(data).__name__}."
        )
    padded = ((*row, None)[:3] for row in rows)
    return ((_text(path), _label(label, "the list"), _text(split) or None) for path, label, split in padded), "the list"
