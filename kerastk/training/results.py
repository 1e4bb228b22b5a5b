"""What TensorBoard shows of a run that has come to its end."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kerastk.datasets.pipeline import Split
from kerastk.screen import printable
from kerastk.training.pictures import captioned, confusion_picture
from kerastk.training.projector import Observer, projector_files
from kerastk.training.tensorboard import Writer

_FINAL = ("accuracy", "cross_entropy", "macro_f1")
# The columns of the HParams tab: the scalars, by tag, and their heads.
COLUMNS = {
    "final/test_accuracy": "accuracy (test)",
    "final/test_macro_f1": "macro F1 (test)",
    "final/validation_accuracy": "accuracy (validation)",
    "final/validation_cross_entropy": "cross-entropy (validation)",
    "final/seconds": "seconds of training",
}
# Of more classes there is one curve of precision and recall for all together.
CURVES = 30
_WORST = 24


@dataclass(frozen=True)
class Judged:
    """A split as the best model sees it: `scores` (photos, classes) float32, and `figures` as metrics.json has them."""

    split: Split
    scores: np.ndarray
    figures: dict[str, Any]


def write_results(writer: Writer, judged: dict[str, Judged], *, seconds: float, step: int) -> None:
    """Final figures, the confusion matrix, curves of precision and recall, and the validation photos of highest loss.

    `judged` holds `validation` and, where there is one, `test`; `step` is the run's last. All is in the files then.
    """
    final = {f"final/{name}_{key}": each.figures[key] for name, each in judged.items() for key in _FINAL}
    writer.scalars({**final, "final/seconds": seconds}, step)
    name = "test" if "test" in judged else "validation"
    classes = judged[name].split.classes
    writer.image(f"confusion matrix ({name})", confusion_picture(judged[name].figures["confusion"], classes), step)
    for name, each in judged.items():
        hits = np.eye(len(classes), dtype=bool)[each.split.truth]
        writer.curve(f"{name}/all classes", hits.ravel(), each.scores.ravel(), step)
        if len(classes) <= CURVES:
            for number, label in enumerate(classes):
                writer.curve(f"{name}/{printable(label)}", hits[:, number], each.scores[:, number], step)
    picture = _worst_photos(judged["validation"])
    writer.image("validation photos of the highest loss", picture, step, "validation")
    writer.finished()
    writer.flush()


def projector_of(judged: Judged, observer: Observer, numbers: Sequence[int]) -> dict[str, str | bytes]:
    """The files of the projector for the photos `numbers` of a split that `observer` has kept; see `projector_files`.

    Without any where the features are no numbers, which a browser cannot draw.
    """
    if not np.isfinite(observer.features).all():
        return {}
    photos, guess = judged.split.photos, judged.scores.argmax(axis=1)
    columns = {
        "label": [photos[number].label for number in numbers],
        "prediction": [judged.split.classes[guess[number]] for number in numbers],
        "photo": [photos[number].path for number in numbers],
    }
    return projector_files(observer.features, observer.thumbnails, columns)


def _worst_photos(judged: Judged) -> np.ndarray:
    """The picture of them, the worst first, each with what it is and what it is taken for."""
    split, scores = judged.split, judged.scores
    worst = np.argsort(scores[np.arange(len(split.truth)), split.truth], kind="stable")[:_WORST]
    photos = [split.example(int(number))[0] for number in worst]
    captions = [
        (f"is {split.photos[number].label}", f"{row.max():.0%} {split.classes[row.argmax()]}")
        for number, row in zip(worst, scores[worst], strict=True)
    ]
    return captioned(photos, captions)
