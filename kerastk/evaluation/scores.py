"""What a model gives for photos or activations; training, evaluation and prediction all compute it here."""

from typing import TYPE_CHECKING

import numpy as np

from kerastk.datasets.pipeline import Rows
from kerastk.evaluation.neighbours import Neighbours

if TYPE_CHECKING:
    import keras


def of_rows(model: "keras.Model", rows: Rows, neighbours: Neighbours | None = None) -> np.ndarray:
    """What the model gives for all items of a split in its order, (items, outputs) float32."""
    batches = (of_batch(model, inputs, rows.batch_size, neighbours) for inputs, _ in rows.batches(0, 1))
    return np.concatenate(list(batches))


def of_batch(
    model: "keras.Model", images: np.ndarray, batch_size: int, neighbours: Neighbours | None = None
) -> np.ndarray:
    """Probabilities, (photos, classes) float32, for at most `batch_size` photos (uint8).

    With `neighbours` the model gives the features that these are asked about. Always computed on a full batch, so that
    the same photo gets the same answer whatever comes with it.
    """
    missing = batch_size - len(images)
    if missing:
        images = np.concatenate([images, np.zeros((missing, *images.shape[1:]), images.dtype)])
    found = np.asarray(model.predict_on_batch(images))[: batch_size - missing]
    return found if neighbours is None else neighbours.probabilities(found)
