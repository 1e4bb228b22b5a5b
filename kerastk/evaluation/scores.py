"""A model's probabilities for photos; training, evaluation and prediction all compute them here."""

from typing import TYPE_CHECKING

import numpy as np

from kerastk.datasets.pipeline import Split

if TYPE_CHECKING:
    import keras


def of_split(model: "keras.Model", split: Split) -> np.ndarray:
    """Probabilities for all photos of a split in its order, (photos, classes) float32."""
    return np.concatenate([of_batch(model, images, split.batch_size) for images, _ in split.batches(0, 1)])


def of_batch(model: "keras.Model", images: np.ndarray, batch_size: int) -> np.ndarray:
    """Probabilities, (photos, classes) float32, for at most `batch_size` photos (uint8).

    Always computed on a full batch, so that the same photo gets the same answer whatever comes with it.
    """
    missing = batch_size - len(images)
    if missing:
        images = np.concatenate([images, np.zeros((missing, *images.shape[1:]), images.dtype)])
    return np.asarray(model.predict_on_batch(images))[: batch_size - missing]
