"""What the report of an autoencoder believes of a run folder; see `reading`."""

import base64
import math
from collections.abc import Container
from dataclasses import dataclass
from typing import Any

import numpy as np

from kerastk.datasets.images import header
from kerastk.datasets.table import csv_cell
from kerastk.errors import PhotoError
from kerastk.evaluation.reading import LONGEST, Data, believed, data_fields, number, text, whole
from kerastk.run import Run

# No figure is larger.
_LARGEST = 1e15
# Of a code and of the columns of a row of numbers; of the labels of a split.
_MOST_VALUES, _MOST_LABELS = 10**8, 10**7
# What gallery.json has (`gallery` itself brings Keras): pictures in a row, rows of them; points and columns at most.
_WIDE, _DEEP, _POINTS, _LISTED = 12, 6, 1000, 30
# White pixels between pictures.
GAP = 2
# Of a picture in base64: noise in 60 images at their largest, 512 pixels, takes a quarter of it.
_MAX_PICTURE = 64_000_000


@dataclass(frozen=True)
class CodeLabels:
    """What the network takes, images or rows of numbers of this `shape`, and how many numbers its code has."""

    of_images: bool
    shape: tuple[int, ...]
    latent: int
    variational: bool

    @property
    def values(self) -> int:
        """How many values an item has."""
        return math.prod(self.shape)

    @classmethod
    def of(cls, run: Run) -> "CodeLabels":
        """From labels.json."""
        labels = run.labels
        with believed(run.labels_json):
            shape = tuple(whole(side, _MOST_VALUES) for side in labels["shape"])
            dimensions = {"images": 3, "rows": 1}[labels["items"]]
            if labels["task"] != "autoencode" or len(shape) != dimensions or not 0 < math.prod(shape) <= _MOST_VALUES:
                raise ValueError
            latent = whole(labels["latent"], _MOST_VALUES)
            if not latent:
                raise ValueError
            return cls(dimensions == 3, shape, latent, labels["variational"] is True)


@dataclass(frozen=True)
class Rival:
    """A linear code of the same size: its error an item, and how many items it was fitted on."""

    error: float
    fitted_on: int


@dataclass(frozen=True)
class Evidence:
    """How likely a variational code makes the items, in nats, and how its codes lie to the standard normal ones."""

    elbo: float
    nats: float
    kl: float
    active: int
    numbers: int
    mean: float
    deviation: float

    @classmethod
    def of(cls, figures: dict[str, Any]) -> "Evidence | None":
        """From the figures of a split; None where the code is no variational one."""
        if "elbo" not in figures:
            return None
        prior = figures["prior"]
        nats = (number(figures[name], -_LARGEST, _LARGEST) for name in ("elbo", "nats", "kl"))
        numbers = whole(prior["numbers"])
        spread = (number(prior[name], 0, _LARGEST) for name in ("mean", "deviation"))
        return cls(*nats, whole(prior["active"], numbers), numbers, *spread)


@dataclass(frozen=True)
class Detection:
    """How well a score tells anomalies from normal items; what needs both sorts, or one that is not there, is None."""

    normal: int
    anomalies: int
    false_alarms: float | None
    found: float | None
    auroc: float | None
    average_precision: float | None

    @classmethod
    def of(cls, figures: dict[str, Any], items: int) -> "Detection":
        """From the figures of a split of so many items. Raises ValueError, TypeError or KeyError."""
        shares = (
            number(figures[name]) if name in figures else None
            for name in ("false_alarms", "found", "auroc", "average_precision")
        )
        found = cls(whole(figures["normal"]), whole(figures["anomalies"]), *shares)
        if found.normal + found.anomalies != items:
            raise ValueError
        if (found.false_alarms is None) != (not found.normal) or (found.found is None) != (not found.anomalies):
            raise ValueError
        if any((each is None) != (not (found.normal and found.anomalies)) for each in (
            found.auroc, found.average_precision
        )):  # fmt: skip
            raise ValueError
        return found


@dataclass(frozen=True)
class CodeFigures:
    """Those of a split. `denoised` is PSNR before and after, `checkerboard` what stands out in reconstructions and in
    originals, both in decibels."""

    items: int
    error: float
    interval: tuple[float, float]
    per_value: float
    psnr: float
    rivals: dict[str, Rival]
    evidence: Evidence | None
    denoised: tuple[float, float] | None
    checkerboard: tuple[float, float] | None
    anomalies: Detection
    by_distance: Detection | None

    @property
    def score(self) -> float:
        """What the run is judged by."""
        return self.error

    @classmethod
    def of(cls, figures: dict[str, Any]) -> "CodeFigures":
        """From metrics.json. Raises ValueError, TypeError or KeyError."""
        items = whole(figures["items"])
        low, high = (number(bound, 0, _LARGEST) for bound in figures["error_95"])
        if not items or len(figures["rivals"]) > _WIDE:
            raise ValueError
        apart = "anomalies_by_distance"
        return cls(
            items=items,
            error=number(figures["error"], 0, _LARGEST),
            interval=(low, high),
            per_value=number(figures["error_per_value"], 0, _LARGEST),
            psnr=_decibels(figures["psnr"]),
            rivals={
                text(name, 100): Rival(number(rival["error"], 0, _LARGEST), whole(rival["fitted_on"]))
                for name, rival in figures["rivals"].items()
            },
            evidence=Evidence.of(figures),
            denoised=_pair(figures, "denoised", "psnr_before", "psnr_after"),
            checkerboard=_pair(figures, "checkerboard", "reconstructions", "originals"),
            anomalies=Detection.of(figures["anomalies"], items),
            by_distance=Detection.of(figures[apart], items) if apart in figures else None,
        )


def _pair(figures: dict[str, Any], name: str, first: str, second: str) -> tuple[float, float] | None:
    return (_decibels(figures[name][first]), _decibels(figures[name][second])) if name in figures else None


def _decibels(value: Any) -> float:
    return number(value, -1000, 1000)


@dataclass(frozen=True)
class Limits:
    """Above which error an item is called an anomaly, for which share of false alarms that was set and on how many
    items; and the same of the distance in the features of `base`, where there is one."""

    threshold: float
    false_alarms: float
    calibrated_on: int
    base: str | None
    distance: float | None

    @classmethod
    def of(cls, metrics: dict[str, Any]) -> "Limits":
        """From the content of metrics.json. Raises ValueError, TypeError or KeyError."""
        found = metrics["anomaly"]
        calibrated, share = whole(found["calibrated_on"]), number(found["false_alarms"], 0, 0.5)
        if not calibrated or not share or found["score"] != "error":
            raise ValueError
        far = found.get("distance")
        return cls(
            threshold=number(found["threshold"], 0, _LARGEST),
            false_alarms=share,
            calibrated_on=calibrated,
            base=None if far is None else text(far["base"], 100),
            distance=None if far is None else number(far["threshold"], 0, _LARGEST),
        )


@dataclass(frozen=True, kw_only=True)
class ItemData(Data):
    """data.json of an autoencoder. `items` are those of val and test in the order of predictions.csv: path, SHA-256
    and label."""

    items: dict[str, list[tuple[str, str, str]]]

    @property
    def content(self) -> str:
        """What is equal where runs have the same items in the same splits."""
        return self.sha256

    @property
    def labelled(self) -> bool:
        """Whether the items have labels."""
        return any(label for counts in self.counts.values() for label in counts)

    @classmethod
    def of(cls, run: Run) -> "ItemData":
        """From data.json."""
        data = run.data
        with believed(run.data_json):
            items: dict[str, list[tuple[str, str, str]]] = {"val": [], "test": []}
            for file in data["files"]:
                row = text(file["path"], LONGEST), text(file["sha256"], 100), text(file["label"], LONGEST)
                if text(file["split"], 10) in items:
                    items[file["split"]].append(row)
            return cls(**data_fields(data), items=items)


@dataclass(frozen=True)
class Scored:
    """The items that the run is judged by: path, SHA-256 and label; their errors and, where there is that score, their
    distances, (items,) float64."""

    items: list[tuple[str, str, str]]
    errors: np.ndarray
    distances: np.ndarray | None

    @classmethod
    def of(cls, run: Run, items: list[tuple[str, str, str]], *, count: int, distant: bool) -> "Scored":
        """From predictions.csv, which must have the rows of `items`; these must be as many as were judged, `count`."""
        rows = run.predictions
        with believed(run.predictions_csv):
            if count != len(rows) or [(row["path"], row["label"]) for row in rows] != [
                (csv_cell(path), csv_cell(label)) for path, _, label in items
            ]:
                raise ValueError
            return cls(items, _column(rows, "score"), _column(rows, "distance") if distant else None)


def _column(rows: list[dict[str, str]], name: str) -> np.ndarray:
    return np.array([number(float(row[name]), 0, _LARGEST) for row in rows])


@dataclass(frozen=True)
class Picture:
    """The bytes of a PNG or WebP file of so many pictures beside each other and one below the other."""

    data: bytes
    format: str
    columns: int
    lines: int


@dataclass(frozen=True)
class Gallery:
    """What is shown of a split. `points` are (x, y) from 0 to 1 and the number of a label, `rows` the names of the rows
    of the first of the `pictures`, `worst` path, label and error, `columns` the names of numbers and their errors."""

    labels: list[str]
    points: list[tuple[float, float, int]]
    rows: list[str]
    worst: list[tuple[str, str, float]]
    pictures: dict[str, Picture]
    columns: list[tuple[str, float]]

    @classmethod
    def of(cls, run: Run, labels: CodeLabels, split: str) -> "Gallery | None":
        """From gallery.json, which must be of this split; None where it could not be written."""
        if not run.gallery_json.exists():
            return None
        content = run.gallery
        with believed(run.gallery_json):
            names = [text(each, LONGEST) for each in _list(content["labels"], _MOST_LABELS)]
            if content["split"] != split:
                raise ValueError
            points = [
                (number(x), number(y), range(len(names))[whole(label)])
                for x, y, label in _list(content["points"], _POINTS)
            ]
            if not labels.of_images:
                columns = [
                    (text(each["name"], LONGEST), number(each["error"], 0, _LARGEST))
                    for each in _list(content["columns"], _LISTED)
                ]
                return cls(names, points, [], [], {}, columns)
            rows = [text(each, 100) for each in _list(content["rows"], _DEEP)]
            worst = [
                (text(each["path"], LONGEST), text(each["label"], LONGEST), number(each["error"], 0, _LARGEST))
                for each in _list(content["worst"], _WIDE)
            ]
            return cls(names, points, rows, worst, _pictures(content["pictures"], labels, len(rows), len(worst)), [])


def _list(value: Any, most: int) -> list[Any]:
    if not isinstance(value, list) or len(value) > most:
        raise ValueError
    return value


def _pictures(found: dict[str, Any], labels: CodeLabels, rows: int, worst: int) -> dict[str, Picture]:
    """The pictures by name, each of as many images of the network's size as it has to be of."""
    some, twelve = range(1, _WIDE + 1), (_WIDE,)
    wanted: dict[str, tuple[Container[int], Container[int]]] = {
        "reconstructions": (some, (rows,)), "worst": ((worst,), (2,)), "ways": (twelve, range(1, _DEEP + 1)),
    }  # fmt: skip
    if labels.variational:
        wanted["samples"] = (twelve, (_DEEP,))
    return {name: _picture(found[name], labels.shape, *sizes) for name, sizes in wanted.items()}


def _picture(encoded: Any, shape: tuple[int, ...], columns: Container[int], lines: Container[int]) -> Picture:
    data = base64.b64decode(text(encoded, _MAX_PICTURE), validate=True)
    try:
        facts = header(data)
    except PhotoError:
        raise ValueError from None
    across, beyond = divmod(facts.width + GAP, shape[1] + GAP)
    down, below = divmod(facts.height + GAP, shape[0] + GAP)
    if facts.format not in ("PNG", "WEBP") or beyond or below or across not in columns or down not in lines:
        raise ValueError
    return Picture(data, facts.format, across, down)
