"""Predictions as a table: CSV, JSON lines or Parquet, by the file's ending; written as they come."""

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from kerastk.datasets.table import csv_writer
from kerastk.predictor import Prediction
from kerastk.storage import atomic_path, atomic_writer, check_ending
from kerastk.tagger import Span

ENDINGS = (".csv", ".jsonl", ".parquet")
SPAN_ENDINGS = (".csv", ".jsonl")
SPAN_COLUMNS = ("path", "line", "start", "end", "label", "probability", "text")
_PARQUET_ROWS = 4096


@contextlib.contextmanager
def table(path: Path, top: int) -> Iterator[Callable[[Prediction], None]]:
    """A function that takes predictions; the file appears, whole, when the block ends well.

    Columns: path, label, probability, label_2, probability_2, ... up to `top`, error. JSON lines hold path, answers
    (a list of label and probability) and error. In CSV, a text that a spreadsheet would run has an apostrophe in front.

    Raises:
        RecipeError: the ending is none of .csv, .jsonl and .parquet.
    """
    check_ending(path, ENDINGS)
    with {".csv": _csv, ".jsonl": _json_lines, ".parquet": _parquet}[path.suffix](path, top) as put:
        yield put


@contextlib.contextmanager
def span_table(path: Path) -> Iterator[Callable[[str, int, str, list[Span]], None]]:
    """A function that takes (path, line, text, spans); the file appears, whole, when the block ends well.

    CSV has a row for each span (SPAN_COLUMNS); JSON lines one for each text: path, line, text and its spans.

    Raises:
        RecipeError: the ending is none of .csv and .jsonl.
    """
    check_ending(path, SPAN_ENDINGS)
    with atomic_writer(path) as file:
        write = csv_writer(file, list(SPAN_COLUMNS)) if path.suffix == ".csv" else None

        def put(source: str, line: int, text: str, spans: list[Span]) -> None:
            if write is None:
                rows = [span._asdict() for span in spans]
                file.write(json.dumps({"path": source, "line": line, "text": text, "spans": rows}) + "\n")
                return
            for span in spans:
                row = span._asdict() | {"probability": f"{span.probability:.6f}"}
                write({"path": source, "line": line, **row})

        yield put


def columns(top: int) -> list[str]:
    """The columns of the CSV and Parquet tables."""
    pairs = [f"{name}_{rank}" if rank > 1 else name for rank in range(1, top + 1) for name in ("label", "probability")]
    return ["path", *pairs, "error"]


@contextlib.contextmanager
def _csv(path: Path, top: int) -> Iterator[Callable[[Prediction], None]]:
    with atomic_writer(path) as file:
        write = csv_writer(file, columns(top))

        def put(prediction: Prediction) -> None:
            row = _row(prediction)
            write({key: f"{value:.6f}" if isinstance(value, float) else value for key, value in row.items()})

        yield put


@contextlib.contextmanager
def _json_lines(path: Path, top: int) -> Iterator[Callable[[Prediction], None]]:
    with atomic_writer(path) as file:

        def put(prediction: Prediction) -> None:
            answers = [answer._asdict() for answer in prediction.answers]
            row: dict[str, Any] = {"path": prediction.path, "answers": answers, "error": prediction.error or None}
            file.write(json.dumps(row) + "\n")

        yield put


@contextlib.contextmanager
def _parquet(path: Path, top: int) -> Iterator[Callable[[Prediction], None]]:
    import pyarrow
    import pyarrow.parquet

    kinds = {name: pyarrow.float32() if name.startswith("probability") else pyarrow.string() for name in columns(top)}
    schema = pyarrow.schema(list(kinds.items()))
    rows: list[dict] = []
    with atomic_path(path) as temporary, pyarrow.parquet.ParquetWriter(temporary, schema) as writer:

        def flush() -> None:
            if rows:
                writer.write_table(pyarrow.Table.from_pylist(rows, schema))
                rows.clear()

        def put(prediction: Prediction) -> None:
            row = _row(prediction)
            rows.append({key: _utf8(value) if isinstance(value, str) else value for key, value in row.items()})
            if len(rows) >= _PARQUET_ROWS:
                flush()

        yield put
        flush()


def _utf8(text: str) -> str:
    # The name of a file or class need not be UTF-8; Arrow's strings must be.
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _row(prediction: Prediction) -> dict[str, Any]:
    row: dict[str, Any] = {"path": prediction.path}
    for rank, answer in enumerate(prediction.answers, start=1):
        ending = f"_{rank}" if rank > 1 else ""
        row |= {f"label{ending}": answer.label, f"probability{ending}": answer.probability}
    if prediction.error:
        row["error"] = prediction.error
    return row
