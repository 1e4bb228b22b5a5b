"""The nearest neighbours among the training photos as a classifier, kept as plain arrays."""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kerastk.datasets.files import run_zip
from kerastk.errors import RunError
from kerastk.storage import atomic_writer

_LEAST_DISTANCE = 1e-6
MAX_BYTES = 64 * 2**30


def _nearness(distances: np.ndarray) -> np.ndarray:
    return 1 / np.maximum(distances, _LEAST_DISTANCE)


@dataclass(frozen=True)
class Neighbours:
    """The `count` nearest training photos by the cosine of features vote, each by its nearness.

    `features` is (photos, features) float32, `truth` (photos,) int64 class numbers, each class with a photo or more.
    """

    features: np.ndarray
    truth: np.ndarray
    count: int

    @property
    def classes(self) -> int:
        """How many classes vote."""
        return int(self.truth.max()) + 1

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """Shares of the votes, (photos, classes) float32, for (photos, features)."""
        return self._fitted.predict_proba(features.astype(np.float64)).astype(np.float32)

    @functools.cached_property
    def _fitted(self) -> Any:
        from sklearn.neighbors import KNeighborsClassifier

        # In float64, and with a floor under the distance: copies of a photo must not be told apart by rounding.
        made = KNeighborsClassifier(self.count, weights=_nearness, metric="cosine")
        return made.fit(self.features.astype(np.float64), self.truth)

    def save(self, path: Path) -> None:
        """Write an .npz file of plain arrays."""
        with atomic_writer(path, binary=True) as file:
            np.savez(file, features=self.features, truth=self.truth, count=np.int64(self.count))

    @classmethod
    def load(cls, path: Path) -> "Neighbours":
        """What `save` wrote. Raises RunError where the file is missing or damaged, or holds anything but this."""
        try:
            run_zip(path, MAX_BYTES)
            with np.load(path, allow_pickle=False) as file:
                found = cls(file["features"], file["truth"], int(file["count"]))
        except RunError:
            raise
        except Exception as error:
            # NumPy raises zipfile's errors, ValueError, KeyError, EOFError and more.
            raise RunError(f"cannot read {path}: {' '.join(str(error).split())[:160]}") from None
        features, truth = found.features, found.truth
        good = features.dtype.kind == "f" and features.ndim == 2 and truth.dtype.kind in "iu"
        good = good and truth.shape == (len(features),) and 1 <= found.count <= len(features)
        numbers = np.unique(truth)
        if not good or not np.isfinite(features).all() or not np.array_equal(numbers, np.arange(len(numbers))):
            raise RunError(f"{path} is damaged.")
        return found
