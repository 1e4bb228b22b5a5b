"""The page about a run on photos."""

import base64
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from markupsafe import Markup

from kerastk.datasets.check import KINDS
from kerastk.datasets.images import to_webp, whole
from kerastk.errors import PhotoError
from kerastk.evaluation import charts, page
from kerastk.evaluation.mistakes import PICTURED
from kerastk.evaluation.photo_reading import Figures, Labels, Mistakes, Noted, PhotoData, temperature
from kerastk.evaluation.reading import Metrics, believed
from kerastk.run import Run
from kerastk.screen import printable

# A split of fewer photos, whose interval is wide, is pointed out.
FEW_PHOTOS = 200
# Smaller pictures are enlarged before the heat is laid over them, pixels.
_LEAST_PICTURE = 96
# Findings that may spoil what is learned or measured.
_SERIOUS = ("two-labels", "near-two-labels", "leak", "imbalance")


@dataclass(frozen=True, kw_only=True)
class PhotoAbout(page.About):
    """All that a page about a run on photos is made of. `temperature` divided the logits."""

    labels: Labels
    data: PhotoData
    temperature: float
    mistakes: Mistakes | None

    measure: ClassVar[str] = "accuracy"
    items: ClassVar[str] = "photos"
    compared: ClassVar[dict[str, str]] = {"val_cross_entropy": "Cross-entropy", "val_accuracy": "Accuracy"}

    @property
    def network(self) -> str:
        """What answers, in a word."""
        return self.labels.network

    @property
    def columns(self) -> dict[str, str]:
        """Further figures for a table, by their heads."""
        judged = self.judged
        calibrated = judged.calibration is not None and self.labels.head == "dense"
        return {
            "macro F1": f"{judged.macro_f1:.3f}",
            "cross-entropy": f"{judged.cross_entropy:.3f}",
            "ECE": page.percent(judged.calibration.error) if calibrated else "–",
            "photos": self.judged_on(judged.photos),
        }

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


def about(run: Run, metrics: dict[str, Any] | None = None) -> PhotoAbout:
    """Read and check everything. Raises RunError, RecipeError."""
    labels, metrics = Labels.of(run), run.metrics if metrics is None else metrics
    with believed(run.metrics_json):
        divided = temperature(metrics)
    return PhotoAbout(
        **page.common_fields(run),
        labels=labels,
        metrics=Metrics.of(run, lambda figures: Figures.of(figures, len(labels.classes)), metrics),
        data=PhotoData.of(run),
        temperature=divided,
        mistakes=Mistakes.of(run),
    )


def html(about: PhotoAbout) -> str:
    """The page."""
    counts = zip(about.labels.classes, *_counts(about.judged.confusion), strict=True)
    classes = page.class_rows(counts, about.data.counts["train"])
    phases = page.phases_of(about, "photos", about.data.total("train"))
    noted = about.mistakes
    suspects = (noted.suspects or []) if noted else []
    return page.render(
        "photos.html",
        about,
        {"item": "photo", "items": "photos", "kind": "class", "kinds": "classes", "data": "photos"},
        few=about.judged.photos if about.judged.photos < FEW_PHOTOS else None,
        parts=page.parts_of(
            about, phases, looking="looking at the photos, split", noun="photos",
            between="before and between: frozen activations, compiling, checkpoints",
        ),
        phases=phases,
        curves=_curves(about),
        confusion=charts.confusion(
            about.judged.confusion, page.printable_names(about.labels.classes), "Confusion matrix"
        ),
        confused=_confused(about),
        labels=about.labels.classes,
        classes=classes,
        weakest=page.weakest_of(classes),
        found=page.findings_of(about.data, KINDS, _SERIOUS),
        mistakes=[_card(each) for each in noted.mistakes] if noted else [],
        suspects=[_card(each) for each in suspects[:PICTURED]],
        further=[_row(each) for each in suspects[PICTURED:]],
    )  # fmt: skip


def _counts(confusion: np.ndarray) -> tuple[list[int], list[int], list[int]]:
    """Of each class the right answers, the photos and the answers."""
    return confusion.diagonal().tolist(), confusion.sum(axis=1).tolist(), confusion.sum(axis=0).tolist()


def _curves(about: PhotoAbout) -> dict[str, Markup]:
    draw = page.curve_drawer(about)
    if draw is None:
        return {}
    return {
        "cross_entropy": draw(
            "Cross-entropy over epochs", {"cross_entropy": 2, "val_cross_entropy": 1}, from_zero=True
        ),
        "accuracy": draw("Accuracy over epochs", {"accuracy": 2, "val_accuracy": 1}, percent=True),
        "learning_rate": draw("Learning rate over epochs", {"learning_rate": 3}, from_zero=True, height=170),
    }


def _confused(about: PhotoAbout, most: int = 12) -> list[dict[str, Any]]:
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
            "count": int(matrix[row, column]),
            "of": int(about.judged.confusion[row].sum()),
        }
        for row, column in pairs
    ]


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
