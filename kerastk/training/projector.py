"""What TensorBoard's projector shows of a run: the features of photos, their labels, and a sprite of the photos."""

import math
from collections.abc import Collection, Sequence

import keras
import numpy as np

from kerastk.datasets.images import photo_grid, thumbnail, to_jpeg
from kerastk.networks.classifier import features
from kerastk.screen import printable

# So many photos are shown at most.
POINTS = 2000
# Pixels of a photo's side; TensorBoard takes a square of 8,192 for all of them.
SIDE = 48


class Observer:
    """Stands for a classifier where photos pass through it, and keeps features and thumbnails of some of them.

    `wanted` are their numbers, in the order in which photos pass; when all of them have passed it only answers. Their
    features cost no second pass: the network gives both.
    """

    def __init__(self, model: keras.Model, wanted: Collection[int]):
        self._network = keras.Model(model.input, {"features": features(model), "answer": model.output})
        self._wanted = set(wanted)
        self._passed = 0
        self._features: list[np.ndarray] = []
        self.thumbnails: list[np.ndarray] = []

    @property
    def features(self) -> np.ndarray:
        """(photos, features) float32 of those that were wanted and have passed."""
        return np.stack(self._features)

    def predict_on_batch(self, images: np.ndarray) -> np.ndarray:
        """What the classifier answers."""
        found = self._network.predict_on_batch(images)
        for image, row in zip(images, found["features"], strict=True) if self._wanted else ():
            if self._passed in self._wanted:
                self._wanted.remove(self._passed)
                self._features.append(row)
                self.thumbnails.append(thumbnail(image, min(SIDE, len(image))))
            self._passed += 1
        return found["answer"]


def projector_files(
    features: np.ndarray, thumbnails: Sequence[np.ndarray] | None, columns: dict[str, Sequence[str]],
    what: str = "features of the validation photos",
) -> dict[str, str | bytes]:  # fmt: skip
    """The files of the projector by name, in the order in which to write them.

    `features` is (photos, features) float32, called `what`; `columns`, two or more, what is written beside each photo,
    by head. Without `thumbnails` points are dots.
    """
    from google.protobuf import text_format
    from tensorboard.plugins.projector import ProjectorConfig

    config = ProjectorConfig()
    shown = config.embeddings.add(
        tensor_name=what, tensor_shape=features.shape, tensor_path="features.bytes",
        metadata_path="photos.tsv",
    )  # fmt: skip
    sprite: dict[str, str | bytes] = {}
    if thumbnails is not None:
        shown.sprite.image_path = "photos.jpg"
        shown.sprite.single_image_dim.extend([len(thumbnails[0])] * 2)
        sprite["photos.jpg"] = to_jpeg(photo_grid(thumbnails, math.ceil(math.sqrt(len(thumbnails)))))
    # A name may hold a tab or a line's end.
    rows = [list(columns), *([printable(text) for text in row] for row in zip(*columns.values(), strict=True))]
    return {
        "features.bytes": _no_text(features.astype("<f4").tobytes()),
        "photos.tsv": "".join("\t".join(row) + "\n" for row in rows),
        **sprite,
        "projector_config.pbtxt": text_format.MessageToString(config),
    }


def _no_text(numbers: bytes) -> bytes:
    """The bytes of numbers with the last bits of the first one so that they are no UTF-8.

    TensorBoard takes a file for text, and fails on it, up to the first line that is none.
    """
    return b"\x80" + numbers[1:]
