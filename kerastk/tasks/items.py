"""The items that a network learns from: images or rows of numbers, whatever they come from."""

from collections.abc import Iterator

import numpy as np

from kerastk.datasets.array_data import ArrayData, ArrayRows
from kerastk.datasets.augment import policy
from kerastk.datasets.photos import PhotoData
from kerastk.networks.autoencoder import Standard

Data = PhotoData | ArrayData
_BATCH = 256


def shape_of(data: Data) -> tuple[int, ...]:
    """The shape of an item."""
    train = data.train
    return train.shape if isinstance(train, ArrayRows) else (train.image_size, train.image_size, 3)


def standard_of(data: Data) -> Standard | None:
    """Mean and deviation of each number of the training rows; None of images."""
    if len(shape_of(data)) == 3:
        return None
    values = data.train.values[data.train.rows]
    deviation = values.std(axis=0, dtype=np.float64)
    # What is constant in training, if not elsewhere, is left in its own units.
    return Standard(values.mean(axis=0, dtype=np.float64), np.where(deviation > 1e-6, deviation, 1.0))


def learned(data: Data, most: int) -> np.ndarray:
    """Training items as they are, not augmented: all, or where there are more, `most` of them, evenly spread."""
    train = data.train
    numbers = np.unique(np.linspace(0, len(train.photos) - 1, min(most, len(train.photos))).astype(int))
    if isinstance(train, ArrayRows):
        return train.plain(numbers)
    return np.concatenate(list(train.view(numbers.tolist(), policy("none"), 0, 0, batch=_BATCH)))


def examples(rows: "ArrayRows | object", numbers: Iterator[int] | np.ndarray) -> np.ndarray:
    """Some items of a split, by number, as they are without augmentation."""
    if isinstance(rows, ArrayRows):
        return rows.plain(np.asarray(numbers))
    return np.concatenate(list(rows.view([int(each) for each in numbers], policy("none"), 0, 0, batch=_BATCH)))
