"""The page that a person reads of a run: one file, made from the run folder alone, that loads nothing."""

import base64
import datetime
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup, escape

import kerastk
from kerastk.datasets.check import KINDS
from kerastk.datasets.images import to_webp, whole
from kerastk.errors import PhotoError
from kerastk.evaluation import charts
from kerastk.evaluation.metrics import interval
from kerastk.evaluation.mistakes import PICTURED
from kerastk.evaluation.reading import Data, Environment, Epoch, Figures, Labels, Metrics, Mistakes, Noted, epochs
from kerastk.recipe import Recipe, dump
from kerastk.run import Run
from kerastk.screen import duration, printable

# Rows of a table that are shown at once; the others open on a click.
SHOWN = 20
# Characters of a name; longer ones have only their beginning and end.
LONGEST_NAME = 42
# A split of fewer photos, whose interval is wide, is pointed out.
FEW_PHOTOS = 200
# Smaller pictures are enlarged before the heat is laid over them, pixels.
_LEAST_PICTURE = 96
_MOST_PATHS = 3
# Findings that may spoil what is learned or measured.
_SERIOUS = ("two-labels", "near-two-labels", "leak", "imbalance")
# Between a number and its unit: a narrow space that does not break.
NARROW = "\u202f"


@dataclass(frozen=True)
class About:
    """All that a page about one run is made of."""

    run: Run
    recipe: Recipe
    labels: Labels
    metrics: Metrics
    data: Data
    environment: Environment
    epochs: list[Epoch]
    mistakes: Mistakes | None

    @classmethod
    def of(cls, run: Run, metrics: dict[str, Any] | None = None) -> "About":
        """Read and check everything. Raises RunError, RecipeError."""
        labels = Labels.of(run)
        return cls(
            run=run,
            recipe=run.recipe,
            labels=labels,
            metrics=Metrics.of(run, len(labels.classes), metrics),
            data=Data.of(run),
            environment=Environment.of(run),
            epochs=epochs(run),
            mistakes=Mistakes.of(run),
        )

    @property
    def judged(self) -> Figures:
        """The figures of the split that the run is judged by."""
        return self.metrics.splits[self.metrics.judged]

    @property
    def majority(self) -> tuple[str, float]:
        """The class that most training photos have, and its share of the photos that the run is judged by."""
        counts = self.data.counts["train"]
        name = max(self.labels.classes, key=lambda each: counts.get(each, 0))
        return name, float(self.judged.confusion[self.labels.classes.index(name)].sum() / self.judged.photos)

    @property
    def probe(self) -> float | None:
        """The validation accuracy of the frozen base with a head alone, where something else followed it."""
        phases = list(dict.fromkeys(row.phase for row in self.epochs))
        if len(phases) < 2 or phases[0] not in ("probe", "head"):
            return None
        found = [row.values.get("val_accuracy") for row in self.epochs if row.phase == phases[0]]
        return max((accuracy for accuracy in found if accuracy is not None), default=None)


def page(run: Run, metrics: dict[str, Any] | None = None) -> str:
    """The HTML of a run's report; `metrics` stand for metrics.json where that is not written yet.

    Raises:
        RunError: the run is not complete, or a file of it is missing or damaged.
    """
    about = About.of(run, metrics)
    classes, noted = _classes(about), about.mistakes
    suspects = (noted.suspects or []) if noted else []
    template = environment().get_template("report.html")
    return template.render(
        about=about,
        title=run.path.absolute().name,
        parts=_parts(about),
        phases=_phases(about),
        curves=_curves(about),
        confusion=charts.confusion(about.judged.confusion, _shown(about.labels.classes), "Confusion matrix"),
        confused=_confused(about),
        classes=classes,
        weakest=min((row for row in classes if row["photos"]), key=lambda row: row["recall"]),
        classes_shown=SHOWN,
        found=_found(about.data),
        few_photos=FEW_PHOTOS,
        mistakes=[_card(each) for each in noted.mistakes] if noted else [],
        suspects=[_card(each) for each in suspects[:PICTURED]],
        further=[_row(each) for each in suspects[PICTURED:]],
        recipe=printable_lines(dump(about.recipe)),
    )


def environment() -> jinja2.Environment:
    """Templates that escape whatever is put into them."""
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("kerastk.evaluation"), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    made.filters |= {
        "name": name, "percent": percent, "duration": duration, "shown": printable, "points": points, "day": day,
        "count": lambda number: f"{number:,}".replace(",", NARROW),
    }  # fmt: skip
    made.globals |= {"version": kerastk.__version__, "reliability": charts.reliability}
    return made


def name(text: str) -> Markup:
    """The name of a class or run; a long one shortened, and whole where one points at it."""
    whole = printable(text)
    shown = charts.short(whole, LONGEST_NAME)
    return escape(whole) if shown == whole else Markup('<span title="{}">{}</span>').format(whole, shown)


def percent(share: float, digits: int = 1) -> str:
    """A share as it is read: 93.5 %."""
    return f"{100 * share:.{digits}f}{NARROW}%"


def points(difference: float) -> str:
    """A difference of shares in percentage points, with its sign."""
    return f"{100 * difference:+.1f}".replace("-", "−") + " points"


def day(started: str) -> str:
    """The time in environment.json without its seconds; as it stands where it is none."""
    try:
        return f"{datetime.datetime.fromisoformat(started):%Y-%m-%d %H:%M}"
    except ValueError:
        return printable(started[:40])


def printable_lines(text: str) -> str:
    """Lines of which none holds what is not printable."""
    return "\n".join(printable(line) for line in text.splitlines())


def _shown(names: Sequence[str]) -> list[str]:
    return [printable(name) for name in names]


def _phases(about: About) -> list[dict[str, Any]]:
    """Each phase: epochs, seconds, how many of these it waited for data, photos a second."""
    photos = about.data.total("train")
    found = []
    for name in dict.fromkeys(row.phase for row in about.epochs):
        rows = [row for row in about.epochs if row.phase == name]
        seconds = sum(row.values.get("seconds", 0.0) for row in rows)
        rates = [row.values["photos_per_second"] for row in rows if row.values.get("photos_per_second", 0) > 0]
        waiting = sum(_waited(row, photos) for row in rows)
        found.append(
            {
                "name": printable(name),
                "epochs": sum(row.epoch > 0 for row in rows),
                "seconds": seconds,
                "waiting": min(waiting, seconds),
                "rate": float(np.median(rates)) if rates else None,
            }
        )
    return found


def _waited(row: Epoch, photos: int) -> float:
    """Seconds that an epoch over so many photos stood still for want of them."""
    rate = row.values.get("photos_per_second", 0.0)
    trained = min(row.values.get("seconds", 0.0), photos / rate) if rate > 0 else 0.0
    return trained * row.values.get("wait_share", 0.0)


def _parts(about: About) -> list[dict[str, Any]]:
    """Where the time went: name, seconds and colour of each part."""
    seconds, phases = about.metrics.seconds, _phases(about)
    trained = sum(row["seconds"] for row in phases)
    parts = [("looking at the photos, split", seconds.get("looking", 0.0), 5)]
    for number, row in enumerate(phases):
        parts.append((f"{row['name']}: computing", row["seconds"] - row["waiting"], 1 + number % 4))
        parts.append((f"{row['name']}: waiting for photos", row["waiting"], 7))
    between = seconds.get("training", trained) - trained
    parts.append(("before and between: frozen activations, compiling, checkpoints", between, 6))
    parts.append(("judging and writing", seconds.get("all", 0.0) - seconds.get("training", 0.0), 8))
    parts = [(name, spent, colour) for name, spent, colour in parts if spent > 0]
    total = sum(spent for _, spent, _ in parts)
    return [{"name": name, "seconds": spent, "share": spent / total, "colour": colour} for name, spent, colour in parts]


def series(rows: Sequence[Epoch], name: str) -> list[list[tuple[float, float]]]:
    """A column of the log as (epoch, value) in one piece for each phase."""
    pieces: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        if name in row.values:
            pieces.setdefault(row.phase, []).append((float(row.epoch), row.values[name]))
    return list(pieces.values())


def _curves(about: About) -> dict[str, Markup]:
    rows = about.epochs
    if not any(row.epoch for row in rows):
        return {}
    starts: dict[str, int] = {}
    for row in rows:
        starts.setdefault(row.phase, row.epoch)
    boundaries = [(float(epoch), printable(name)) for name, epoch in starts.items()]
    common = {"boundaries": boundaries, "best": float(about.metrics.epoch)}

    def pair(name: str) -> list[charts.Line]:
        return [charts.Line(series(rows, name), 2, dashed=True), charts.Line(series(rows, f"val_{name}"), 1)]

    rate = [charts.Line(series([row for row in rows if row.epoch], "learning_rate"), 3)]
    return {
        "cross_entropy": charts.curves(pair("cross_entropy"), "Cross-entropy over epochs", from_zero=True, **common),
        "accuracy": charts.curves(pair("accuracy"), "Accuracy over epochs", percent=True, **common),
        "learning_rate": charts.curves(rate, "Learning rate over epochs", from_zero=True, height=170, **common),
    }


def _confused(about: About, most: int = 12) -> list[dict[str, Any]]:
    """The pairs of classes that are confused most often."""
    matrix = about.judged.confusion.copy()
    np.fill_diagonal(matrix, 0)
    order = np.argsort(-matrix, axis=None, kind="stable")[:most]
    names = about.labels.classes
    pairs = [divmod(int(place), len(names)) for place in order if matrix.flat[place]]
    return [
        {
            "truth": names[row],
            "answer": names[column],
            "photos": int(matrix[row, column]),
            "of": int(about.judged.confusion[row].sum()),
        }
        for row, column in pairs
    ]


def _classes(about: About) -> list[dict[str, Any]]:
    """Recall and precision of each class with their intervals, the weakest first."""
    matrix = about.judged.confusion
    found = []
    for number, name in enumerate(about.labels.classes):
        hits, photos, answered = int(matrix[number, number]), int(matrix[number].sum()), int(matrix[:, number].sum())
        found.append(
            {
                "name": name,
                "hits": hits,
                "photos": photos,
                "answered": answered,
                "trained": about.data.counts["train"].get(name, 0),
                "recall": hits / photos if photos else 0.0,
                "recall_95": interval(hits, photos),
                "precision": hits / answered if answered else 0.0,
                "precision_95": interval(hits, answered),
                "f1": 2 * hits / (photos + answered) if photos + answered else 0.0,
            }
        )
    return sorted(found, key=lambda row: (not row["photos"], row["f1"]))


def _found(data: Data) -> list[dict[str, Any]]:
    """What was found in the data, by kind: how often, whether it was set aside, a few of the files."""
    aside = Counter(kind for kind, _, _ in data.set_aside)
    by_kind: dict[str, list[tuple[tuple[str, ...], str]]] = {}
    for kind, paths, text in dict.fromkeys([*data.findings, *data.set_aside]):
        by_kind.setdefault(kind, []).append((paths, text))
    order = {kind: place for place, kind in enumerate(KINDS)}
    found: list[dict[str, Any]] = []
    for kind in sorted(by_kind, key=lambda each: order.get(each, len(order))):
        examples = [
            {"paths": " = ".join(_shown(paths[:_MOST_PATHS])), "text": printable(text)}
            for paths, text in by_kind[kind][:_MOST_PATHS]
        ]
        meaning = KINDS[kind][0] if kind in KINDS else printable(kind)
        found.append(
            {
                "kind": meaning,
                "serious": kind in _SERIOUS,
                "count": len(by_kind[kind]),
                "aside": aside[kind],
                "examples": examples,
            }
        )
    return found


def _row(photo: Noted) -> dict[str, Any]:
    return {
        "split": photo.split, "path": printable(photo.path), "truth": photo.truth,
        "answer": photo.answer, "probability": photo.probability, "of_truth": photo.of_truth,
        "threshold": photo.threshold,
    }  # fmt: skip


def _card(photo: Noted) -> dict[str, Any]:
    """A photo for the page: what it is, and its pictures as data addresses."""
    card = _row(photo) | {"picture": None, "heat": None, "side": 0}
    if photo.picture is None:
        return card
    try:
        pixels = whole(photo.picture)
    except PhotoError:
        return card
    card |= {"picture": _address(photo.picture), "side": len(pixels)}
    if photo.heat is not None:
        card["heat"] = _address(to_webp(overlay(pixels, photo.heat))) if photo.heat.any() else None
    return card


def _address(webp: bytes) -> str:
    return f"data:image/webp;base64,{base64.b64encode(webp).decode()}"


def overlay(pixels: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """A photo (height, width, 3) uint8 under a map of heat (rows, columns) from 0 to 255: the hotter, the brighter."""
    from matplotlib import colormaps
    from PIL import Image

    scale = max(1, -(-_LEAST_PICTURE // max(pixels.shape[:2])))
    pixels = pixels.repeat(scale, axis=0).repeat(scale, axis=1)
    size = (pixels.shape[1], pixels.shape[0])
    wide = np.asarray(Image.fromarray(heat.astype(np.float32)).resize(size, Image.Resampling.BICUBIC))
    share = np.clip(wide / 255, 0, 1)
    grey = pixels @ np.array([0.299, 0.587, 0.114])
    colours = 255 * colormaps["inferno"](share)[:, :, :3]
    weight = 0.3 + 0.4 * share[:, :, None]
    return np.clip((1 - weight) * grey[:, :, None] + weight * colours, 0, 255).astype(np.uint8)
