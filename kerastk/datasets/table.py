"""Tables of photos: rows of (path, label, split or None) from CSV, Parquet, data frames and lists."""

import csv
import io
import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from kerastk.errors import DataError

Row = tuple[str, str, str | None]

COLUMNS = ("path", "label", "split")
MAX_LINE = 2**20
MAX_ROWS = 20_000_000
# What makes a spreadsheet take a text for a formula (OWASP, CSV injection).
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def csv_cell(value: Any) -> Any:
    """The value as it stands in a CSV file of ours: a text that a spreadsheet would run gets an apostrophe in front."""
    return "'" + value if isinstance(value, str) and value.startswith(_FORMULA) else value


def csv_writer(file: IO[str], columns: list[str]) -> Callable[[dict[str, Any]], None]:
    """Write the header of a CSV file of ours; the function that is returned writes a row. See `csv_cell`."""

    def write(cells: Iterable[Any]) -> None:
        line = io.StringIO(newline="")
        # With another end of lines, Python before 3.13 leaves carriage returns in a cell unquoted.
        csv.writer(line, lineterminator="\r\n").writerow(cells)
        file.write(line.getvalue().removesuffix("\r\n") + "\n")

    write(columns)
    return lambda row: write(csv_cell(row.get(name, "")) for name in columns)


def _columns(names: Iterable[str], where: str) -> bool:
    """Whether the table has a split column, once its other columns are known to be there."""
    names = list(names)
    for each in COLUMNS:
        if names.count(each) > 1:
            raise DataError(f"{where} has the column {each} {names.count(each)} times.")
    if "path" not in names or "label" not in names:
        found = ", ".join(names)
        found = found if len(found) <= 200 else f"{found[:200]}... ({len(names):,} columns)"
        plural = "labels are lists; several labels a photo are not supported yet" if "labels" in names else ""
        raise DataError(f"{where} needs the columns path and label; it has {found}. {plural}".strip())
    return "split" in names


def csv_rows(path: Path) -> tuple[Iterator[Row], str]:
    """The rows of a CSV file with a header, and the name to call it by. Raises DataError while they are read."""

    def rows() -> Iterator[Row]:
        try:
            with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
                lines = Lines(file, path)
                reader = csv.DictReader(lines, strict=True)
                has_split = _columns(reader.fieldnames or (), str(path))
                for row in reader:
                    yield row["path"] or "", row["label"] or "", (row["split"] or None) if has_split else None
        except csv.Error as error:
            raise lines.fault(str(error)) from None
        except OSError as error:
            raise DataError(f"cannot read the table {str(path)!r}: {error}.") from None

    return rows(), str(path)


class Lines:
    """The lines of a CSV file, each within bounds."""

    def __init__(self, file: IO[str], path: Path):
        self._file, self._path, self._number = file, path, 0

    def __iter__(self) -> "Lines":
        return self

    def __next__(self) -> str:
        line = self._file.readline(MAX_LINE + 1)
        if not line:
            raise StopIteration
        self._number += 1
        if len(line) > MAX_LINE:
            raise self.fault(f"more than {MAX_LINE:,} characters")
        if "\0" in line:
            raise self.fault("a NUL character, as in UTF-16 or a file that is no text")
        return line

    def fault(self, reason: str) -> DataError:
        """What to raise for the line that was given last."""
        return DataError(
            f"cannot read the table {str(self._path)!r}, line {self._number}: {reason}; expected UTF-8 text with a row "
            "a line: path,label[,split]."
        )


def parquet_rows(path: Path) -> tuple[Iterator[Row], str]:
    """The rows of a Parquet file, and the name to call it by. Raises DataError while they are read."""
    import pyarrow
    import pyarrow.parquet

    def rows() -> Iterator[Row]:
        try:
            metadata = pyarrow.parquet.read_metadata(path)
            schema = metadata.schema.to_arrow_schema()
            wanted = list(COLUMNS if _columns(schema.names, str(path)) else COLUMNS[:2])
            for name in wanted:
                if pyarrow.types.is_nested(schema.field(name).type):
                    raise DataError(f"{path}: {name} holds lists; several labels a photo are not supported yet.")
            if metadata.num_rows > MAX_ROWS:
                raise DataError(f"{path} has {metadata.num_rows:,} rows; the limit is {MAX_ROWS:,}.")
            # As dictionaries: a small file can name one long text a million times.
            with pyarrow.parquet.ParquetFile(path, metadata=metadata, read_dictionary=wanted) as file:
                for batch in file.iter_batches(columns=wanted):
                    yield from _column_rows({name: _values(batch.column(name)) for name in wanted}, str(path))
        except (DataError, MemoryError):
            raise
        except Exception as error:
            # pyarrow raises errors of its own, OSError, and for texts that are no UTF-8 UnicodeDecodeError.
            reason = " ".join(str(error).split())[:200]
            raise DataError(f"cannot read the table {str(path)!r}: {reason}.") from None

    return rows(), str(path)


def _values(column: Any) -> list:
    """The values of a column of pyarrow; equal texts of a dictionary are one object."""
    if not hasattr(column, "dictionary"):
        return column.to_pylist()
    texts = column.dictionary.to_pylist()
    return [None if place is None else texts[place] for place in column.indices.to_pylist()]


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
