"""Images of curves through three random points: data of which it is known that six numbers describe an item.

Made after those of Hinton and Salakhutdinov 2006 (Science 313), whose own were not published: 28 x 28 pixels, curves
"generated from three randomly chosen points in two dimensions", 20,000 images to learn from and 10,000 to test on.

What the paper leaves open is chosen here, and calibrated so that 18 principal components of the training images miss
5.90 of a test image (summed squared error of pixels from 0 to 1), as the paper reports of its images: a parabola
through the three points, which lie in the square of `SPAN` pixels in the middle, drawn by a round pen whose ink is
normally distributed with a deviation of `PEN` pixels.
"""

import hashlib
from pathlib import Path

import numpy as np

from kerastk.storage import atomic_writer

SIDE, TRAINING, TEST, SEED = 28, 20_000, 10_000, 0
SPAN, PEN = 15.0, 0.5
# Places of the pen along a curve: even on the longest they are not much more than a deviation apart.
_PLACES = 64
# Images at a time.
_CHUNK = 1000
# To be raised when the code makes other images of the same numbers.
_EDITION = 1

VERSION = hashlib.sha256(repr((_EDITION, SIDE, TRAINING, TEST, SEED, SPAN, PEN, _PLACES)).encode()).hexdigest()[:10]


def write(path: Path) -> None:
    """The data set as a .npz file: `x_train` and `x_test`, (images, 28, 28) uint8; the file appears whole."""
    with atomic_writer(path, binary=True) as file:
        np.savez_compressed(file, x_train=curves(TRAINING), x_test=curves(TEST, first=TRAINING))


def curves(count: int, *, first: int = 0, seed: int = SEED) -> np.ndarray:
    """The images number `first` and following, (count, 28, 28) uint8, white on black.

    Each follows from seed and number alone.

    >>> curves(2, first=7).shape
    (2, 28, 28)
    """
    drawn = points(count, first=first, seed=seed)
    parts = [_drawn(drawn[start : start + _CHUNK]) for start in range(0, count, _CHUNK)]
    return np.concatenate(parts) if parts else np.empty((0, SIDE, SIDE), np.uint8)


def points(count: int, *, first: int = 0, seed: int = SEED) -> np.ndarray:
    """The three points of each curve, (count, 3, 2) float64 in pixels: column and row, 0 the middle of the first."""
    # A counter stands for four numbers, of which a curve takes two; NumPy keeps this stream as it is.
    raw = np.random.Philox(key=seed, counter=2 * first).random_raw(8 * count).reshape(count, 8)[:, :6]
    shares = (raw >> np.uint64(11)) * 2.0**-53
    return (SIDE - 1 - SPAN) / 2 + SPAN * shares.reshape(count, 3, 2)


def _drawn(ends: np.ndarray) -> np.ndarray:
    """(curves, 3, 2) points as (curves, 28, 28) uint8 images."""
    time = (np.arange(_PLACES) + 0.5) / _PLACES
    # Of the parabola that is at the points at the times 0, 1/2 and 1 (Lagrange), and of its speed.
    weights = np.stack([(2 * time - 1) * (time - 1), 4 * time * (1 - time), time * (2 * time - 1)], axis=1)
    slopes = np.stack([4 * time - 3, 4 - 8 * time, 4 * time - 1], axis=1)
    places = (weights @ ends).astype(np.float32)
    lengths = np.linalg.norm(slopes @ ends, axis=-1) / _PLACES
    # So that the middle of a straight stroke is white.
    ink = (lengths / (PEN * np.sqrt(2 * np.pi))).astype(np.float32)
    pixels = np.arange(SIDE, dtype=np.float32)
    spread = np.exp(-np.square(places[..., None] - pixels) / np.float32(2 * PEN**2))
    columns, rows = spread[:, :, 0], spread[:, :, 1]
    light = (ink[:, :, None] * rows).transpose(0, 2, 1) @ columns
    return np.rint(255 * np.minimum(light, 1)).astype(np.uint8)
