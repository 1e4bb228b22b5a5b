"""From a run folder to answers. Nothing but the folder is needed."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from kerastk import shipped
from kerastk.datasets.item_inputs import Collection, ImageReader
from kerastk.errors import PhotoError, RunError
from kerastk.evaluation.metrics import uncalibrated
from kerastk.evaluation.neighbours import Neighbours
from kerastk.evaluation.photo_reading import temperature
from kerastk.evaluation.reading import believed
from kerastk.evaluation.scores import of_batch
from kerastk.evaluation.tta import kinds_of, views
from kerastk.run import Run

if TYPE_CHECKING:
    from kerastk.reconstructor import Reconstructor
    from kerastk.tagger import Tagger


class Answer(NamedTuple):
    """A class name and its probability (0 to 1)."""

    label: str
    probability: float


@dataclass(frozen=True, slots=True)
class Prediction:
    """What came out for one input: the best answers, best first, or why there are none."""

    path: str
    answers: list[Answer]
    error: str = ""


class Predictor:
    """A trained classifier that takes photos in any form.

    Called with a path, the bytes of a file, a Pillow image or a uint8 array (height, width, 3) or (height, width), it
    returns an `Answer`, which unpacks into label and probability; with a list of those, or an array or file of arrays
    that holds several images, a list. With `top=3` each answer is a list of the three best. A saved model is
    calibrated: its logits were divided by the temperature in metrics.json. With `calibrated=False` that is undone; the
    answers stay, their probabilities change. With `last` it is the model of the last epoch, where the run kept it. With
    `tta` probabilities are means over views of a photo: its mirror image too (`mirror`), small shifts too (`shift`), or
    all of these (`mirror,shift`: six views, and six times the time).

    >>> label, probability = kerastk.load("runs/photos-resnet50-1")("cat.jpg")
    """

    batch_size = 32

    def __init__(self, run: Run, *, calibrated: bool = True, last: bool = False, tta: str | None = None):
        from kerastk.tasks.photo_model import labels_of, load_model, shape_in

        self.tta = kinds_of(tta)
        labels = labels_of(run)
        self._temperature = None if calibrated else _temperature(run, labels["head"], "last" if last else "best")
        self.classes: list[str] = labels["classes"]
        self.image_size, self.resize = labels["image_size"], labels["resize"]
        self.shape = shape_in(labels)
        self._reader = ImageReader(self.shape, image_size=self.image_size, resize=self.resize)
        self.run = run
        self.model = load_model(run, last=last)
        self.neighbours = Neighbours.load(run.neighbours_npz) if labels["head"] == "knn" else None
        if self.neighbours is not None:
            known = self.neighbours.features.shape[1], self.neighbours.classes
            if known != (self.model.output.shape[1], len(self.classes)):
                raise RunError(
                    f"{run.neighbours_npz}, {run.model_keras.name} and {run.labels_json.name} do not belong together."
                )

    def __call__(self, photos: Any, *, top: int | None = None) -> Any:
        """Answer(s) for one photo or several.

        Raises:
            PhotoError: a photo cannot be read.
            DataError: an array or its file cannot be used.
        """
        scores = [row for batch in self._reader.batches(photos, self.batch_size) for row in self.scores(batch)]
        answers = [self._answers(row, top or 1) for row in scores]
        found = [answer[0] for answer in answers] if top is None else answers
        return found[0] if self._reader.is_one(photos) else found

    def pixels(self, photo: Any) -> np.ndarray:
        """The photo as the model sees it, of `shape`: (image_size, image_size, 3 or 1) uint8. Raises PhotoError."""
        return self._reader.image(photo)

    def scores(self, pixels: np.ndarray) -> np.ndarray:
        """Probabilities, (photos, classes) float32, for photos as `pixels` gives them, (photos, *shape) uint8."""
        return np.sum([weight * self._plain(view) for weight, view in views(pixels, self.tta)], axis=0)

    def _plain(self, pixels: np.ndarray) -> np.ndarray:
        """`scores` of the photos as they are."""
        found = of_batch(self.model, pixels, self.batch_size, self.neighbours)
        return found if self._temperature is None else uncalibrated(found, self._temperature)

    def stream(
        self, inputs: Iterable[str | os.PathLike], *, top: int = 1, threads: int | None = None
    ) -> Iterator[Prediction]:
        """A prediction for every photo of files, folders and archives, and every image of files of arrays, in order,
        in bounded memory.

        An unreadable one comes with its error. While a batch is computed the next one is decoded.

        Raises:
            DataError: an input does not exist (found before anything else is done), or is an array that cannot be used.
        """
        for names, loaded in self._reader.stream(inputs, size=self.batch_size, threads=threads):
            yield from self._predictions(names, loaded, top)

    def collected(self, data: Any) -> Collection:
        """All labelled images of data that such a run could learn from. Raises DataError."""
        return self._reader.collected(shipped.data(data) if isinstance(data, str) else data, labelled=True)

    def _predictions(self, names: list[str], loaded: list, top: int) -> Iterator[Prediction]:
        good = [pixels for pixels in loaded if not isinstance(pixels, PhotoError)]
        rows = iter(self.scores(np.stack(good)) if good else ())
        for name, pixels in zip(names, loaded, strict=True):
            if isinstance(pixels, PhotoError):
                yield Prediction(name, [], str(pixels))
            else:
                yield Prediction(name, self._answers(next(rows), top))

    def _answers(self, row: np.ndarray, top: int) -> list[Answer]:
        best = np.argsort(-row, kind="stable")[:top]
        return [Answer(self.classes[number], float(row[number])) for number in best]


def load(
    run: str | os.PathLike | Run, *, calibrated: bool = True, last: bool = False, tta: str | None = None
) -> "Predictor | Tagger | Reconstructor":
    """What answers with a run's model: a `Predictor` for photos, a `Tagger` for text, the `Reconstructor` of an
    autoencoder.

    With `calibrated` false the probabilities for photos are those before temperature scaling.

    With `last` it answers by the model of the last epoch in place of the best one; the run kept it if it was told to
    (`keep_last`).

    With `tta`, of a classifier of photos, each answer is the mean over several views of the photo (test-time
    augmentation): `mirror`, `shift` or `mirror,shift`.

    Raises:
        RunError: there is no such run, its files do not belong together, there is no calibration to undo or are no
            views to average, or the last model was not kept.
        RecipeError: no such `tta`.
        WeightsError: the model is missing or damaged.
    """
    opened = run if isinstance(run, Run) else Run.open(run)
    task = opened.labels.get("task")
    if task not in ("tag", "autoencode"):
        return Predictor(opened, calibrated=calibrated, last=last, tta=tta)
    kind = "a tagger" if task == "tag" else "an autoencoder"
    if tta is not None:
        raise RunError(f"{opened.path} is {kind}; tta is for classifiers of photos.")
    if not calibrated:
        raise RunError(f"{opened.path} is {kind}, which is not calibrated: there is nothing to undo.")
    if task == "tag":
        from kerastk.tagger import Tagger

        return Tagger(opened, last=last)
    from kerastk.reconstructor import Reconstructor

    return Reconstructor(opened, last=last)


def _temperature(run: Run, head: str, model: str) -> float:
    """What the logits of the run's best or last model were divided by."""
    if head != "dense":
        raise RunError(f"{run.path} has the head {head}, which is not calibrated: there is nothing to undo.")
    with believed(run.metrics_json):
        return temperature(run.metrics, model)
