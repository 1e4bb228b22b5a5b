"""Answers as a table: CSV, JSON lines or Parquet, by the file's ending; written as they come."""

import contextlib
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from kerastk.datasets.table import csv_writer
from kerastk.predictor import Prediction
from kerastk.reconstructor import Scored
from kerastk.storage import atomic_path, atomic_writer, check_ending
from kerastk.tagger import Span

ENDINGS = (".csv", ".jsonl", ".parquet")
SPAN_ENDINGS = (".csv", ".jsonl")
SPAN_COLUMNS = ("path", "line", "start", "end", "label", "probability", "text")
SCORE_COLUMNS = {"path": "text", "score": "score", "anomaly": "flag", "error": "text"}
_PARQUET_ROWS = 4096
# How a value stands in CSV, and the type of its column in Parquet.
_KINDS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "text": (str, "string"),
    "probability": ("{:.6f}".format, "float32"),
    "score": ("{:.6g}".format, "float64"),
    "flag": (int, "bool_"),
}


@contextlib.contextmanager
def table(path: Path, top: int) -> Iterator[Callable[[Prediction], None]]:
    """A function that takes predictions; the file appears, whole, when the block ends well.

    Columns: path, label, probability, label_2, probability_2, ... up to `top`, error. JSON lines hold path, answers
    (a list of label and probability) and error. In CSV, a text that a spreadsheet would run has an apostrophe in front.

    Raises:
        RecipeError: the ending is none of .csv, .jsonl and .parquet.
    """
    kinds = {name: "probability" if name.startswith("probability") else "text" for name in columns(top)}
    with _rows(path, kinds) as put:
        yield lambda prediction: put(_tree(prediction) if path.suffix == ".jsonl" else _row(prediction))


@contextlib.contextmanager
def score_table(path: Path) -> Iterator[Callable[[Scored], None]]:
    """A function that takes scores of an autoencoder; the file appears, whole, when the block ends well.

    Columns, and keys of JSON lines: path, score (the error of the reconstruction), anomaly, and error, which says why
    an item has neither.

    Raises:
        RecipeError: the ending is none of .csv, .jsonl and .parquet.
    """
    with _rows(path, SCORE_COLUMNS) as put:

        def put_scored(scored: Scored) -> None:
            error, anomaly = scored.score or (None, None)
            if path.suffix == ".jsonl" and error == math.inf:
                # JSON has no number for it.
                error = None
            put({"path": scored.path, "score": error, "anomaly": anomaly, "error": scored.reason or None})

        yield put_scored


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
def _rows(path: Path, kinds: dict[str, str]) -> Iterator[Callable[[dict[str, Any]], None]]:
    """A function that takes rows, in a file by its ending; `kinds` has the columns and a key of `_KINDS` for each."""
    check_ending(path, ENDINGS)
    with {".csv": _csv, ".jsonl": _json_lines, ".parquet": _parquet}[path.suffix](path, kinds) as put:
        yield put


@contextlib.contextmanager
def _csv(path: Path, kinds: dict[str, str]) -> Iterator[Callable[[dict[str, Any]], None]]:
    with atomic_writer(path) as file:
        write = csv_writer(file, list(kinds))

        def put(row: dict[str, Any]) -> None:
            write({name: _KINDS[kinds[name]][0](value) for name, value in row.items() if value is not None})

        yield put


@contextlib.contextmanager
def _json_lines(path: Path, kinds: dict[str, str]) -> Iterator[Callable[[dict[str, Any]], None]]:
    with atomic_writer(path) as file:
        yield lambda row: file.write(json.dumps(row) + "\n")


@contextlib.contextmanager
def _parquet(path: Path, kinds: dict[str, str]) -> Iterator[Callable[[dict[str, Any]], None]]:
    import pyarrow
    import pyarrow.parquet

    schema = pyarrow.schema([(name, getattr(pyarrow, _KINDS[kind][1])()) for name, kind in kinds.items()])
    rows: list[dict] = []
    with atomic_path(path) as temporary, pyarrow.parquet.ParquetWriter(temporary, schema) as writer:

        def flush() -> None:
            if rows:
                writer.write_table(pyarrow.Table.from_pylist(rows, schema))
                rows.clear()

        def put(row: dict[str, Any]) -> None:
            rows.append({key: _utf8(value) if isinstance(value, str) else value for key, value in row.items()})
            if len(rows) >= _PARQUET_ROWS:
                flush()

        yield put
        flush()


def _utf8(text: str) -> str:
    # The name of a file or class need not be UTF-8; Arrow's strings must be.
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _tree(prediction: Prediction) -> dict[str, Any]:
    answers = [answer._asdict() for answer in prediction.answers]
    return {"path": prediction.path, "answers": answers, "error": prediction.error or None}


def _row(prediction: Prediction) -> dict[str, Any]:
    row: dict[str, Any] = {"path": prediction.path}
    for rank, answer in enumerate(prediction.answers, start=1):
        ending = f"_{rank}" if rank > 1 else ""
        row |= {f"label{ending}": answer.label, f"probability{ending}": answer.probability}
    if prediction.error:
        row["error"] = prediction.error
    return row
