"""What the report of photos believes of a run folder; see `reading`."""

import base64
from dataclasses import dataclass
from typing import Any

import numpy as np

from kerastk.datasets.images import header
from kerastk.errors import PhotoError
from kerastk.evaluation.mistakes import LISTED, MISTAKES, PICTURE
from kerastk.evaluation.reading import LONGEST, Data, believed, data_fields, number, text, whole
from kerastk.run import Run

MAX_CLASSES = 100_000
# Of a picture in mistakes.json, in base64; noise at its full size takes 30 kB.
_MAX_PICTURE = 100_000
_MAX_CELLS = 100


@dataclass(frozen=True)
class Labels:
    """The classes in output order, and what the network is."""

    classes: list[str]
    network: str
    head: str
    image_size: int

    @classmethod
    def of(cls, run: Run) -> "Labels":
        """From labels.json."""
        labels = run.labels
        with believed(run.labels_json):
            classes = [text(each, LONGEST) for each in labels["classes"]]
            if not isinstance(labels["classes"], list) or not 1 < len(classes) <= MAX_CLASSES:
                raise ValueError
            if len(set(classes)) < len(classes) or labels["head"] not in ("dense", "svm", "knn"):
                raise ValueError
            network = labels["net" if labels["task"] == "classify" else "base"]
            return cls(classes, text(network, 100), labels["head"], whole(labels["image_size"], 4096))


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

    @property
    def score(self) -> float:
        """What the run is judged by."""
        return self.accuracy

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


def temperature(metrics: dict[str, Any], model: str = "best") -> float:
    """What the logits of the best or the last model were divided by. Raises ValueError, TypeError or KeyError."""
    return number(metrics[model].get("temperature", 1.0), 0.01, 100)


@dataclass(frozen=True, kw_only=True)
class PhotoData(Data):
    """data.json of photos."""

    # Of the test split, in the order of predictions.csv: SHA-256 and label.
    tested: list[tuple[str, str]]

    @property
    def content(self) -> str:
        """What is equal where runs have the same photos in the same splits."""
        return self.sha256

    @classmethod
    def of(cls, run: Run) -> "PhotoData":
        """From data.json."""
        data = run.data
        with believed(run.data_json):
            tested = [
                (text(file["sha256"], 100), text(file["label"], LONGEST))
                for file in data["files"]
                if file["split"] == "test"
            ]
            return cls(**data_fields(data), tested=tested)


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
        path=text(photo["path"], LONGEST),
        truth=text(photo["truth"], LONGEST),
        answer=text(photo["answer"], LONGEST),
        probability=number(photo["probability"]),
        of_truth=number(photo["probability_of_truth"]),
        threshold=number(photo["threshold"]) if "threshold" in photo else None,
        picture=picture,
        heat=heat,
    )
