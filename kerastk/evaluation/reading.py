"""What the report believes of a run folder: its files checked, as plain values. The folder may come from anybody."""

import base64
import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kerastk.datasets.images import header
from kerastk.datasets.source import SPLITS
from kerastk.errors import PhotoError, RunError
from kerastk.evaluation.mistakes import LISTED, MISTAKES, PICTURE
from kerastk.run import Run

MAX_CLASSES = 100_000
# Of a picture in mistakes.json, in base64; noise at its full size takes 30 kB.
_MAX_PICTURE = 100_000
_MAX_CELLS = 100


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
class Labels:
    """The classes in output order, and what the network is."""

    classes: list[str]
    base: str
    head: str
    image_size: int

    @classmethod
    def of(cls, run: Run) -> "Labels":
        """From labels.json."""
        labels = run.labels
        with believed(run.labels_json):
            classes = [text(each, 32_768) for each in labels["classes"]]
            if not isinstance(labels["classes"], list) or not 1 < len(classes) <= MAX_CLASSES:
                raise ValueError
            if len(set(classes)) < len(classes) or labels["head"] not in ("dense", "svm", "knn"):
                raise ValueError
            return cls(classes, text(labels["base"], 100), labels["head"], whole(labels["image_size"], 4096))


@dataclass(frozen=True)
class Calibration:
    """How far the probabilities can be taken at their word: (bin, photos, confidence, accuracy) of 15 bins."""

    error: float
    cross_entropy: float
    bins: list[tuple[int, int, float, float]]

    @classmethod
    def of(cls, figures: dict[str, Any]) -> "Calibration | None":
        """From the figures of a split, or from those before calibration; None where an older version wrote them."""
        if "reliability" not in figures:
            return None
        bins = [
            (whole(row["bin"], 14), whole(row["photos"]), number(row["confidence"]), number(row["accuracy"]))
            for row in figures["reliability"]
        ]
        return cls(number(figures["expected_calibration_error"]), number(figures["cross_entropy"], 0, 1e4), bins)


@dataclass(frozen=True)
class Figures:
    """Those of a split. `confusion` is (classes, classes): photos by truth and answer."""

    photos: int
    accuracy: float
    interval: tuple[float, float]
    cross_entropy: float
    top5: float | None
    macro_f1: float
    calibration: Calibration | None
    before: Calibration | None
    confusion: np.ndarray

    @classmethod
    def of(cls, figures: dict[str, Any], classes: int) -> "Figures":
        """From metrics.json. Raises ValueError, TypeError or KeyError."""
        low, high = figures["accuracy_95"]
        confusion = np.array(figures["confusion"], dtype=np.int64)
        if confusion.shape != (classes, classes) or confusion.min() < 0 or confusion.max() > 10**9:
            raise ValueError
        photos = whole(figures["photos"])
        if not photos or confusion.sum() != photos:
            raise ValueError
        return cls(
            photos=photos,
            accuracy=number(figures["accuracy"]),
            interval=(number(low), number(high)),
            cross_entropy=number(figures["cross_entropy"], 0, 1e4),
            top5=number(figures["top5_accuracy"]) if "top5_accuracy" in figures else None,
            macro_f1=number(figures["macro_f1"]),
            calibration=Calibration.of(figures),
            before=Calibration.of(figures["uncalibrated"]) if "uncalibrated" in figures else None,
            confusion=confusion,
        )


@dataclass(frozen=True)
class Metrics:
    """metrics.json. `temperature` divided the logits; `seconds` are those of parts of the run, by name."""

    splits: dict[str, Figures]
    epoch: int
    phase: str
    temperature: float
    seconds: dict[str, float]
    ended: str | None

    @classmethod
    def of(cls, run: Run, classes: int, metrics: dict[str, Any] | None = None) -> "Metrics":
        """From metrics.json, or from `metrics` where that is not written yet."""
        metrics = run.metrics if metrics is None else metrics
        with believed(run.metrics_json):
            best = metrics["best"]
            seconds = {text(name, 100): number(value, 0, 1e12) for name, value in metrics.get("seconds", {}).items()}
            return cls(
                splits={
                    name: Figures.of(metrics[name], classes)
                    for name in ("validation", "test")
                    if name in metrics or name == "validation"
                },
                epoch=whole(best["epoch"]),
                phase=text(best["phase"], 100),
                temperature=temperature(metrics),
                seconds=seconds,
                ended=text(metrics["ended"]) if "ended" in metrics else None,
            )

    @property
    def judged(self) -> str:
        """The split that the run is judged by."""
        return "test" if "test" in self.splits else "validation"


def temperature(metrics: dict[str, Any], model: str = "best") -> float:
    """What the logits of the best or the last model were divided by. Raises ValueError, TypeError or KeyError."""
    return number(metrics[model].get("temperature", 1.0), 0.01, 100)


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


@dataclass(frozen=True)
class Data:
    """data.json: photos of each class in each split, and what was found; a finding is (kind, paths, text)."""

    counts: dict[str, dict[str, int]]
    split: str | None
    split_seed: int | None
    notes: list[str]
    set_aside: list[tuple[str, tuple[str, ...], str]]
    findings: list[tuple[str, tuple[str, ...], str]]
    sha256: str
    # Of the test split, in the order of predictions.csv: SHA-256 and label.
    tested: list[tuple[str, str]]

    @classmethod
    def of(cls, run: Run) -> "Data":
        """From data.json."""
        data = run.data
        with believed(run.data_json):
            return cls(
                counts={
                    name: {text(label, 32_768): whole(count) for label, count in data["counts"].get(name, {}).items()}
                    for name in SPLITS
                },
                split=None if data["split"] is None else text(data["split"], 100),
                split_seed=None if data["split_seed"] is None else whole(data["split_seed"]),
                notes=[text(note) for note in data["notes"]],
                set_aside=[_finding(each) for each in data["set_aside"]],
                findings=[_finding(each) for each in data["findings"]],
                sha256=text(data["sha256"], 100),
                tested=[
                    (text(file["sha256"], 100), text(file["label"], 32_768))
                    for file in data["files"]
                    if file["split"] == "test"
                ],
            )

    def total(self, split: str) -> int:
        """The photos of a split."""
        return sum(self.counts[split].values())


def _finding(finding: dict[str, Any]) -> tuple[str, tuple[str, ...], str]:
    paths = tuple(text(path, 32_768) for path in finding["paths"])
    return text(finding["kind"], 100), paths, text(finding["text"], 32_768)


@dataclass(frozen=True)
class Noted:
    """A photo of mistakes.json. `picture` is a WebP file, `heat` (rows, columns) from 0 to 255."""

    split: str
    path: str
    truth: str
    answer: str
    probability: float
    of_truth: float
    threshold: float | None
    picture: bytes | None
    heat: np.ndarray | None


@dataclass(frozen=True)
class Mistakes:
    """The photos worth looking at, and how many there are of each sort; `suspects` is None where none are sought."""

    split: str
    explained: bool
    mistakes: list[Noted]
    suspects: list[Noted] | None
    counts: dict[str, int]

    @classmethod
    def of(cls, run: Run) -> "Mistakes | None":
        """From mistakes.json; None where an older version wrote the run."""
        if not run.mistakes_json.exists():
            return None
        content = run.mistakes
        with believed(run.mistakes_json):
            if len(content["photos"]) > MISTAKES + LISTED or content["split"] not in ("validation", "test"):
                raise ValueError
            photos = [_noted(each) for each in content["photos"]]
            numbers = range(len(photos))
            return cls(
                split=content["split"],
                explained=content["explained"] is True,
                mistakes=[photos[numbers[whole(each)]] for each in content["mistakes"][:MISTAKES]],
                suspects=[photos[numbers[whole(each)]] for each in content["suspects"][:LISTED]]
                if "suspects" in content
                else None,
                counts={text(name, 10): whole(count) for name, count in content["counts"].items()},
            )


def _noted(photo: dict[str, Any]) -> Noted:
    picture = heat = None
    if "picture" in photo:
        picture = base64.b64decode(text(photo["picture"], _MAX_PICTURE), validate=True)
        try:
            facts = header(picture)
        except PhotoError:
            raise ValueError from None
        if facts.format != "WEBP" or max(facts.width, facts.height) > PICTURE:
            raise ValueError
    if "heat" in photo:
        heat = np.array(photo["heat"], dtype=np.float32)
        if heat.ndim != 2 or not 1 <= heat.size <= _MAX_CELLS**2 or not ((heat >= 0) & (heat <= 255)).all():
            raise ValueError
    if photo["split"] not in ("validation", "test"):
        raise ValueError
    return Noted(
        split=photo["split"],
        path=text(photo["path"], 32_768),
        truth=text(photo["truth"], 32_768),
        answer=text(photo["answer"], 32_768),
        probability=number(photo["probability"]),
        of_truth=number(photo["probability_of_truth"]),
        threshold=number(photo["threshold"]) if "threshold" in photo else None,
        picture=picture,
        heat=heat,
    )


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
                command=text(found.get("command", ""), 32_768),
                started=text(found.get("started", ""), 100),
                resumed=len(found.get("resumed", [])),
            )
