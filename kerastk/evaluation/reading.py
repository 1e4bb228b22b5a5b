"""What the report believes of a run folder: its files checked, as plain values. The folder may come from anybody."""

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kerastk.datasets.source import SPLITS
from kerastk.errors import RunError
from kerastk.run import Run

# Characters of the name of a class, a type of spans or a file.
LONGEST = 32_768


@contextlib.contextmanager
def believed(path: Path) -> Iterator[None]:
    """What a file says that it cannot say is a RunError."""
    try:
        yield
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError):
        raise RunError(f"{path} is damaged.") from None


def number(value: Any, low: float = 0.0, high: float = 1.0) -> float:
    """A finite number within bounds. Raises ValueError."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not low - 1e-9 <= value <= high + 1e-9:
        raise ValueError(value)
    return float(value)


def whole(value: Any, high: int = 10**12) -> int:
    """A whole number from 0 to `high`. Raises ValueError."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= high:
        raise ValueError
    return value


def text(value: Any, longest: int = 10_000) -> str:
    """A text that is not endless. Raises ValueError."""
    if not isinstance(value, str) or len(value) > longest:
        raise ValueError
    return value


@dataclass(frozen=True)
class Metrics:
    """metrics.json. `splits` has the figures of "validation" and maybe "test"; `seconds` are those of parts of the run,
    by name."""

    splits: dict[str, Any]
    epoch: int
    phase: str
    seconds: dict[str, float]
    ended: str | None

    @classmethod
    def of(cls, run: Run, figures: Callable[[dict[str, Any]], Any], metrics: dict[str, Any] | None = None) -> "Metrics":
        """From metrics.json, or from `metrics` where that is not written yet; `figures` makes those of a split.

        Raises:
            RunError: it is missing or damaged, or `figures` raised a ValueError, TypeError or KeyError.
        """
        metrics = run.metrics if metrics is None else metrics
        with believed(run.metrics_json):
            best = metrics["best"]
            seconds = {text(name, 100): number(value, 0, 1e12) for name, value in metrics.get("seconds", {}).items()}
            return cls(
                splits={
                    name: figures(metrics[name])
                    for name in ("validation", "test")
                    if name in metrics or name == "validation"
                },
                epoch=whole(best["epoch"]),
                phase=text(best["phase"], 100),
                seconds=seconds,
                ended=text(metrics["ended"]) if "ended" in metrics else None,
            )

    @property
    def judged(self) -> str:
        """The split that the run is judged by."""
        return "test" if "test" in self.splits else "validation"


@dataclass(frozen=True)
class Epoch:
    """A row of log.csv; `values` has what Keras logged, as far as it is a number."""

    phase: str
    epoch: int
    values: dict[str, float]


def epochs(run: Run) -> list[Epoch]:
    """The rows of log.csv."""
    found = []
    with believed(run.log_csv):
        for row in run.log:
            values = {}
            for name, cell in row.items():
                with contextlib.suppress(ValueError, TypeError):
                    # An apostrophe keeps a spreadsheet from taking a negative number for a formula.
                    value = float(cell.lstrip("'"))
                    if name is not None and math.isfinite(value) and abs(value) < 1e12:
                        values[name] = value
            found.append(Epoch(text(row["phase"], 100), whole(int(row["epoch"]), 10**7), values))
    return found


@dataclass(frozen=True, kw_only=True)
class Data:
    """data.json: how many of each label a split has, and what was found; a finding is (kind, paths, text)."""

    counts: dict[str, dict[str, int]]
    split: str | None
    split_seed: int | None
    notes: list[str]
    set_aside: list[tuple[str, tuple[str, ...], str]]
    findings: list[tuple[str, tuple[str, ...], str]]
    sha256: str

    def total(self, split: str) -> int:
        """The labels of a split."""
        return sum(self.counts[split].values())


def data_fields(data: dict[str, Any]) -> dict[str, Any]:
    """The fields of `Data` from the content of data.json. Raises ValueError, TypeError or KeyError."""
    return {
        "counts": {
            name: {text(label, LONGEST): whole(count) for label, count in data["counts"].get(name, {}).items()}
            for name in SPLITS
        },
        "split": None if data["split"] is None else text(data["split"], 100),
        "split_seed": None if data["split_seed"] is None else whole(data["split_seed"]),
        "notes": [text(note) for note in data["notes"]],
        "set_aside": [_finding(each) for each in data["set_aside"]],
        "findings": [_finding(each) for each in data["findings"]],
        "sha256": text(data["sha256"], 100),
    }


def _finding(finding: dict[str, Any]) -> tuple[str, tuple[str, ...], str]:
    paths = tuple(text(path, LONGEST) for path in finding["paths"])
    return text(finding["kind"], 100), paths, text(finding["text"], LONGEST)


@dataclass(frozen=True)
class Environment:
    """environment.json."""

    versions: dict[str, str]
    facts: dict[str, str]
    command: str
    started: str
    resumed: int

    @classmethod
    def of(cls, run: Run) -> "Environment":
        """From environment.json."""
        found = run.environment
        with believed(run.environment_json):
            return cls(
                versions={text(name, 100): text(each, 200) for name, each in found.get("versions", {}).items()},
                facts={
                    name: text(found[name], 1000)
                    for name in ("backend", "device", "precision", "precision_reason", "platform")
                    if name in found
                },
                command=text(found.get("command", ""), LONGEST),
                started=text(found.get("started", ""), 100),
                resumed=len(found.get("resumed", [])),
            )
