"""CSV files of numbers: a row a line, with a column of labels and one of splits, if there are any."""

import array
import csv
import difflib
import io
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from kerastk.datasets.source import SPLIT_NAMES
from kerastk.datasets.stored import regular
from kerastk.datasets.table import MAX_ROWS, Lines
from kerastk.errors import DataError

# The columns that are taken for labels, in any case.
LABEL_COLUMNS = ("label", "class", "target")
# From so many columns on, a first line of 0, 1, 2, ... holds names.
_COUNTED = 3


@dataclass(frozen=True)
class NumberTable:
    """`values` (rows, columns) float32 of the `columns` that are neither labels nor splits, which are None if missing.

    `notes` tell what was taken for what.
    """

    columns: list[str]
    values: np.ndarray
    labels: list[str] | None
    splits: list[str] | None
    notes: list[str]


class _NumberLines(Lines):
    def fault(self, reason: str) -> DataError:
        return DataError(
            f"cannot read the table {str(self._path)!r}, line {self._number}: {reason}; expected UTF-8 text with a row "
            "of numbers a line, commas between them."
        )


def _lines(file: IO[bytes], path: Path) -> _NumberLines:
    text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")
    return _NumberLines(text, path)


def is_number_table(path: str | os.PathLike) -> bool:
    """Whether a CSV file is one of numbers and not one of photos: its first line has no column `path`.

    False where there is no first line to be read.
    """
    try:
        with regular(Path(path)) as file:
            first = next(csv.reader(_lines(file, Path(path)), strict=True), None)
    except (OSError, ValueError, csv.Error, DataError):
        return False
    return first is not None and "path" not in first


def read_number_table(path: Path, *, label_column: str | None = None, varied: bool = True) -> NumberTable:
    """The rows of a CSV file of numbers, with a first line of names or without.

    Labels are those of `label_column`, else of a column called label, class or target; splits those of a column called
    split. Where it is `varied`, as what is learned from must be, no column may be constant.

    Raises:
        DataError: the file cannot be read; a cell is empty, no number, NaN or infinite; a column is constant or stands
            there twice; or there is no `label_column`.
    """
    try:
        with regular(path) as file:
            lines = _lines(file, path)
            try:
                return _Reader(path, csv.reader(lines, strict=True), label_column).table(varied)
            except csv.Error as error:
                raise lines.fault(str(error)) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"cannot read the table {str(path)!r}: {reason}.") from None


class _Reader:
    """Reads one table; `where` is what errors call it."""

    def __init__(self, path: Path, reader: Iterator[list[str]], label_column: str | None):
        self.where, self.reader, self.notes = repr(str(path)), reader, []
        first = next((row for row in reader if row), None)
        if first is None:
            raise DataError(f"{self.where} has no rows; expected a row of numbers a line.")
        self.names = self._names(first)
        self.width = len(first)
        self.first = None if self.names else first
        self.label = self._label(label_column)
        self.split = self._one("split") if self.label is None or self._cased(self.label) != "split" else None
        self.inputs = [place for place in range(self.width) if place not in (self.label, self.split)]
        if not self.inputs:
            raise DataError(f"{self.where} has no column of numbers beside {', '.join(self.names)}.")

    def _names(self, first: list[str]) -> list[str] | None:
        """The names of the columns, where the first line holds them."""
        numbers = [_number(cell) is not None for cell in first if cell]
        # So pandas writes the columns of an array that it gave no names.
        counted = len(first) >= _COUNTED and first == [str(place) for place in range(len(first))]
        if all(numbers) and not counted:
            return None
        if counted:
            self.notes.append("the first line, 0,1,2,..., was taken for the names of the columns")
        elif not all(cell.isdecimal() or _number(cell) is None for cell in first):
            raise DataError(
                f"{self.where}: the first line holds names and numbers, {_told(first)}; give each column a name, and "
                "that of the labels the name label."
            )
        times = Counter(first)
        for place, name in enumerate(first):
            if not name.strip():
                raise DataError(
                    f"{self.where}: column {place} has no name. If it is the index of pandas, write the table with "
                    "index=False."
                )
            if times[name] > 1:
                raise DataError(f"{self.where} has the column {name[:40]!r} {times[name]} times.")
        return first

    def _cased(self, place: int) -> str:
        return self.names[place].strip().casefold()

    def _label(self, wanted: str | None) -> int | None:
        if wanted is None:
            found = [place for place in range(len(self.names or ())) if self._cased(place) in LABEL_COLUMNS]
            if len(found) > 1:
                told = " and ".join(self.names[place] for place in found)
                raise DataError(f"{self.where} has the columns {told}; say which one holds labels by --label-column.")
            return found[0] if found else None
        if self.names is None:
            raise DataError(f"{self.where} has no names of columns, and so no label column {wanted!r}.")
        if wanted not in self.names:
            near = difflib.get_close_matches(wanted, self.names, n=1, cutoff=0.5)
            hint = f"Did you mean {near[0][:40]!r}?" if near else f"It has {_told(self.names)}."
            raise DataError(f"{self.where} has no label column {wanted!r}. {hint}")
        return self.names.index(wanted)

    def _one(self, name: str) -> int | None:
        found = [place for place in range(len(self.names or ())) if self._cased(place) == name]
        if len(found) > 1:
            raise DataError(f"{self.where} has the column {name} {len(found)} times.")
        return found[0] if found else None

    def table(self, varied: bool) -> NumberTable:
        """All rows."""
        cells, labels, splits = array.array("f"), [], []
        same: dict[str, str] = {}
        rows = 0
        for row in self._rows():
            if rows == MAX_ROWS:
                raise DataError(f"{self.where} has more than {MAX_ROWS:,} rows.")
            if len(row) != self.width:
                raise DataError(f"{self._place(rows)}: {len(row)} cells; expected {self.width}, as in the first line.")
            inputs = [row[place] for place in self.inputs] if len(self.inputs) < self.width else row
            try:
                cells.extend(map(float, inputs))
            except ValueError:
                raise self._no_number(row, rows) from None
            # Python's own digits: 1_000.
            if "_" in "".join(inputs):
                raise self._no_number(row, rows)
            if self.label is not None:
                if not row[self.label]:
                    raise DataError(f"{self._place(rows)}: the label is empty; give all rows one.")
                labels.append(same.setdefault(row[self.label], row[self.label]))
            if self.split is not None:
                splits.append(self._split_of(row, rows))
            rows += 1
        if not rows:
            raise DataError(f"{self.where} has no rows, only names of columns.")
        if None in splits and set(splits) != {None}:
            raise DataError(f"{self.where}: some rows have a split and some have none; give all or none.")
        values = np.frombuffer(cells, np.float32).reshape(rows, len(self.inputs))
        names = [(self.names or [f"column {place}" for place in range(self.width)])[place] for place in self.inputs]
        self._check(values, names, varied)
        return NumberTable(
            names, values, labels if self.label is not None else None, splits if any(splits) else None, self.notes
        )

    def _rows(self) -> Iterator[list[str]]:
        if self.first is not None:
            yield self.first
        yield from (row for row in self.reader if row)

    def _place(self, row: int, column: int | None = None) -> str:
        """A row and a column as errors call them."""
        found = f"{self.where}, row {row} (line {self.reader.line_num})"
        if column is None:
            return found
        return f"{found}, column {self.names[column][:40]!r}" if self.names else f"{found}, column {column}"

    def _no_number(self, row: Sequence[str], number: int) -> DataError:
        column = next(place for place in self.inputs if _number(row[place]) is None)
        cell = row[column]
        if not cell.strip():
            return DataError(f"{self._place(number, column)} is empty; fill missing values, or leave the row out.")
        hint = ""
        if ";" in cell or "\t" in cell:
            hint = " Columns have commas between them."
        return DataError(f"{self._place(number, column)}: {cell[:40]!r} is no number.{hint}")

    def _split_of(self, row: Sequence[str], number: int) -> str | None:
        cell = row[self.split]
        if cell and cell.lower() not in SPLIT_NAMES:
            raise DataError(f"{self._place(number)}: split must be train, val or test; got {cell[:40]!r}.")
        return SPLIT_NAMES[cell.lower()] if cell else None

    def _check(self, values: np.ndarray, names: Sequence[str], varied: bool) -> None:
        lowest, highest = values.min(axis=0), values.max(axis=0)
        if not (np.isfinite(lowest) & np.isfinite(highest)).all():
            row, column = np.argwhere(~np.isfinite(values))[0]
            raise DataError(
                f"{self.where}, row {row}, column {names[column][:40]!r} is {values[row, column]}, or too large for "
                "float32; fill such values, or leave the row out."
            )
        constant = [names[place] for place in np.flatnonzero(lowest == highest)]
        if constant and varied and len(values) > 1:
            told, it = (f"column {_told(constant)} is", "it") if len(constant) == 1 else (
                f"{len(constant)} columns are, {_told(constant)},", "them")  # fmt: skip
            raise DataError(f"{self.where}: {told} the same in all rows (as float32); drop {it}: it says nothing.")


def _number(cell: str) -> float | None:
    try:
        return None if "_" in cell else float(cell)
    except ValueError:
        return None


def _told(names: Sequence[str]) -> str:
    """Names for an error: the first ones."""
    shown = ", ".join(repr(name[:30]) for name in names[:6])
    return shown if len(names) <= 6 else f"{shown}, ... ({len(names):,} in all)"
