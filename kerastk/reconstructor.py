"""From an autoencoder's run folder to codes, reconstructions and anomalies. Nothing but the folder is needed."""

import functools
import math
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from kerastk import shipped
from kerastk.datasets.item_inputs import Collection, ImageReader, RowReader
from kerastk.errors import DataError, PhotoError, RecipeError, RunError
from kerastk.evaluation.reading import believed, number
from kerastk.evaluation.scores import of_batch
from kerastk.recipe import Autoencode
from kerastk.run import Run

if TYPE_CHECKING:
    import keras

    from kerastk.evaluation.distance import Distance

# Items that pass the network together: as many as have so many values, within bounds.
_VALUES, _FEWEST, _MOST = 2**21, 8, 128
# Samples at once have at most so many values.
_SAMPLED = 2**28


class Score(NamedTuple):
    """How far an item is from what the network makes of it: the sum of squared differences of its values, and whether
    that is more than the run's threshold."""

    error: float
    anomaly: bool


@dataclass(frozen=True, slots=True)
class Scored:
    """What came out for one item: its score, or the reason why there is none."""

    path: str
    score: Score | None
    reason: str = ""


class Reconstructor:
    """A trained autoencoder that takes items in any form.

    Images are paths, the bytes of files, Pillow images or uint8 arrays; those of a run on photos become the squares
    that it learned, those of a run on arrays must have their size. Rows of numbers are arrays (features,) or (rows,
    features). Paths of .npy, .npz, CSV and IDX files stand for all their rows; the columns of a CSV file are found by
    name. One item gives one answer, a list or an array of several gives an array.

    Called with items it gives the `Score` of each. An error is the sum of squared differences: of pixels from 0 to 1,
    of numbers in standard deviations. What is above `threshold` is an anomaly, as are at most a share of
    `false_alarms` of fresh normal items, on average. With `last` it is the model of the last epoch, where the run kept
    it; the threshold is still the one that was set for the best.

    >>> reconstructor = kerastk.load("runs/screws-autoencoder-1")
    >>> error, anomaly = reconstructor("screw.png")
    >>> reconstructor.encode(["screw.png", "bolt.png"]).shape
    (2, 64)
    """

    def __init__(self, run: Run, *, last: bool = False):
        from kerastk.tasks.autoencoder_model import labels_of, load_model, standard_in

        labels = labels_of(run)
        self.run = run
        self.threshold, self.false_alarms = _limits(run)
        self.shape: tuple[int, ...] = tuple(labels["shape"])
        self.latent: int = labels["latent"]
        self.variational: bool = labels["variational"]
        self.batch_size = min(_MOST, max(_FEWEST, _VALUES // math.prod(self.shape)))
        self._standard = standard_in(labels)
        self._reader: ImageReader | RowReader = (
            ImageReader(self.shape, image_size=labels.get("image_size"), resize=labels.get("resize"))
            if labels["items"] == "images"
            else RowReader(self.shape[0], columns=labels.get("columns"), label_column=self.recipe.label_column)
        )
        self.model = load_model(run, last=last)
        self._parts: dict[str, keras.Model] = {}

    @property
    def recipe(self) -> Autoencode:
        """The resolved recipe of the run. Raises RunError where it is one of another task."""
        recipe = self.run.recipe
        if not isinstance(recipe, Autoencode):
            raise RunError(f"{self.run.recipe_toml} and {self.run.labels_json.name} do not belong together.")
        return recipe

    def __call__(self, items: Any) -> Score | list[Score]:
        """The score of an item, or of each of several.

        Raises:
            PhotoError: an image cannot be read.
            DataError: an array or its file cannot be used.
        """
        errors = self.score(items)
        return self._score(errors) if np.ndim(errors) == 0 else [self._score(error) for error in errors]

    def encode(self, items: Any) -> np.ndarray:
        """The codes of items, (items, latent) float32; of a variational run their means. Raises as a call."""
        return self._each(items, lambda batch: self._passed("encoder", batch), (self.latent,))

    def decode(self, codes: Any) -> np.ndarray:
        """What codes (codes, latent) stand for: images (codes, height, width, channels) from 0 to 1, or rows in their
        own units, float32.

        Raises:
            DataError: these are no such codes.
        """
        try:
            codes = np.asarray(codes)
        except ValueError:
            raise DataError("codes must be an array; got lists of different lengths.") from None
        if codes.dtype.kind not in "iuf" or codes.ndim not in (1, 2) or codes.shape[-1] != self.latent:
            raise DataError(
                f"codes must be numbers ({self.latent},) or (codes, {self.latent}); got {codes.dtype.name[:40]} "
                f"{codes.shape}."
            )
        with np.errstate(over="ignore"):
            many = np.atleast_2d(codes).astype(np.float32)
        if not np.isfinite(many).all():
            raise DataError("codes must be finite numbers of float32.")
        size = self.batch_size
        parts = [self._passed("decoder", many[start : start + size]) for start in range(0, len(many), size)]
        found = _joined(parts, self.shape, np.float32)
        return found if codes.ndim == 2 else found[0]

    def reconstruct(self, items: Any) -> np.ndarray:
        """What the network makes of items, as `decode` gives it. Raises as a call."""
        return self._each(items, lambda batch: self._passed("autoencoder", batch), self.shape)

    def score(self, items: Any) -> Any:
        """The errors of items, (items,) float64; of one item a number. Raises as a call."""
        return self._each(items, self._errors, (), np.float64)

    def anomalous(self, items: Any) -> Any:
        """Whether the error of each item is above the threshold, (items,) bool. Raises as a call."""
        return self.score(items) > self.threshold

    def distance(self, photos: Any) -> Any:
        """How far photos lie from what was learned, in a pretrained network's features, (photos,) float64; of one
        photo a number. What is above metrics.json's `anomaly.distance.threshold` is an anomaly by it.

        Raises:
            RunError: the run has no such score (`features`), or its files are damaged.
            PhotoError: a photo cannot be read.
        """
        network, distance, reader = self._far
        asked = reader.batches(photos, self.batch_size)
        found = [distance(of_batch(network, batch, self.batch_size)) for batch in asked]
        joined = _joined(found, (), np.float64)
        return joined[0] if reader.is_one(photos) else joined

    @functools.cached_property
    def _far(self) -> "tuple[keras.Model, Distance, ImageReader]":
        """The pretrained network, what was learned in its features, and what reads photos at its size."""
        from kerastk.evaluation.distance import Distance
        from kerastk.networks import saved

        if not self.run.features_npz.exists():
            raise RunError(f"{self.run.path} has no score by features; train with --features.")
        network, distance = saved.load(self.run.features_keras), Distance.load(self.run.features_npz)
        side = network.input.shape[1]
        if network.input.shape[1:] != (side, side, 3) or network.output.shape[1:] != distance.kept.shape[1:]:
            raise RunError(f"{self.run.features_keras} and {self.run.features_npz.name} do not belong together.")
        return network, distance, ImageReader((side, side, 3), image_size=side, resize=self.recipe.resize or "crop")

    def sample(self, count: int, seed: int = 0) -> np.ndarray:
        """New items, as `decode` gives them, from codes drawn from the normal distribution that a variational run has
        drawn its codes to.

        Raises:
            RunError: the run is not variational.
            RecipeError: `count` or `seed` is no whole number, or there would be too many values.
        """
        if not self.variational:
            raise RunError(f"{self.run.path} is not variational: its codes follow no distribution to draw them from.")
        for name, value in (("count", count), ("seed", seed)):
            if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < 0:
                raise RecipeError(f"{name} must be a whole number, 0 or more; got {value!r}.")
        most = _SAMPLED // max(self.latent, math.prod(self.shape))
        if count > most:
            raise RecipeError(f"count must be at most {most:,} for items of this size; got {count}.")
        return self.decode(np.random.default_rng(seed).standard_normal((count, self.latent), np.float32))

    def stream(self, inputs: Iterable[str | os.PathLike], *, threads: int | None = None) -> Iterator[Scored]:
        """The score of every item of files, folders and archives, in order, in bounded memory.

        A photo that cannot be read comes with the reason. While a batch is computed the next one is decoded.

        Raises:
            DataError: an input does not exist (found before anything else is done), or is an array that cannot be used.
        """
        for names, loaded in self._reader.stream(inputs, size=self.batch_size, threads=threads):
            good = [item for item in loaded if not isinstance(item, PhotoError)]
            errors = iter(self._errors(np.stack(good)) if good else ())
            for name, item in zip(names, loaded, strict=True):
                if isinstance(item, PhotoError):
                    yield Scored(name, None, str(item))
                else:
                    yield Scored(name, self._score(next(errors)))

    def collected(self, data: Any) -> Collection:
        """All items of data that such a run could learn from, with their labels. Raises DataError."""
        return self._reader.collected(shipped.data(data) if isinstance(data, str) else data)

    def _errors(self, batch: np.ndarray) -> np.ndarray:
        """The errors of at most `batch_size` items as the network takes them: uint8 images, or float32 rows."""
        from kerastk.evaluation.reconstruction import item_errors

        with np.errstate(invalid="ignore", over="ignore"):
            errors = item_errors(batch, self._passed("autoencoder", batch), self._standard)
        # So far from all that was learned that float32 has no number for the answer: not for that below any threshold.
        return np.where(np.isnan(errors), np.inf, errors)

    def _each(
        self, items: Any, ask: Callable[[np.ndarray], np.ndarray], shape: tuple[int, ...], kind: type = np.float32
    ) -> np.ndarray:
        parts = [ask(batch) for batch in self._reader.batches(items, self.batch_size)]
        found = _joined(parts, shape, kind)
        return found[0] if self._reader.is_one(items) else found

    def _passed(self, part: str, batch: np.ndarray) -> np.ndarray:
        """What a part of the network makes of at most `batch_size` inputs.

        Always computed on a full batch, so that an item gets the same answer whatever comes with it.
        """
        if part not in self._parts:
            import keras

            from kerastk.networks.autoencoder import decoder, encoder

            make = {
                "encoder": encoder,
                "decoder": decoder,
                "autoencoder": lambda model: keras.Model(model.input, model.output["reconstruction"]),
            }
            self._parts[part] = make[part](self.model)
        return of_batch(self._parts[part], batch, self.batch_size)

    def _score(self, error: float) -> Score:
        return Score(float(error), bool(error > self.threshold))


def _joined(parts: list[np.ndarray], shape: tuple[int, ...], kind: type) -> np.ndarray:
    return np.concatenate(parts) if parts else np.zeros((0, *shape), kind)


def _limits(run: Run) -> tuple[float, float]:
    """The threshold of a run, and the share of false alarms that it was set for."""
    with believed(run.metrics_json):
        anomaly = run.metrics["anomaly"]
        return number(anomaly["threshold"], 0, 1e300), number(anomaly["false_alarms"])
