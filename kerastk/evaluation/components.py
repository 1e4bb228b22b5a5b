"""Principal components beside an autoencoder: what a linear code of the same size makes of the same items."""

from dataclasses import dataclass

import numpy as np

# Values (items times features) on which the components are fitted at most; of more items so many are drawn.
MOST_VALUES = 150_000_000
# Logistic components are fitted on so many values: each of their iterations costs about as much as plain ones.
MOST_LOGISTIC = 6_000_000
_ITERATIONS = 80
_SATURATED = 12.0


@dataclass(frozen=True)
class Components:
    """A linear code: `axes` (features, size) and `mean` (features,). Of a `logistic` one these are of log-odds."""

    mean: np.ndarray
    axes: np.ndarray
    items: int
    logistic: bool = False

    @property
    def size(self) -> int:
        """Numbers of a code."""
        return self.axes.shape[1]

    def reconstruct(self, values: np.ndarray) -> np.ndarray:
        """(items, features) float32 through the code and back."""
        if not self.logistic:
            return (values - self.mean) @ self.axes @ self.axes.T + self.mean
        code = np.zeros((len(values), self.size), np.float32)
        for _ in range(_ITERATIONS):
            guess = _odds(code @ self.axes.T + self.mean)
            # The axes are orthonormal, so the best step of the quadratic bound is a projection.
            code += 4 * (values - guess) @ self.axes
        return _odds(code @ self.axes.T + self.mean)


def principal(values: np.ndarray, size: int, *, seed: int = 0) -> Components:
    """Principal components of (items, features) float32, as scikit-learn finds them.

    Of data that is too large for it a part is drawn (`Components.items` says how many). `size` may be at most the
    number of items and of features.
    """
    from sklearn.decomposition import PCA

    chosen = _drawn(values, MOST_VALUES, seed)
    found = PCA(size, svd_solver="auto", random_state=seed).fit(chosen)
    return Components(found.mean_.astype(np.float32), found.components_.T.astype(np.float32), len(chosen))


def logistic(values: np.ndarray, size: int, *, seed: int = 0) -> Components:
    """Logistic components of (items, features) float32 from 0 to 1: log-odds of low rank that make the values likely.

    Collins et al. 2001, NIPS 14; by majorisation, each step of which is a singular value decomposition (de Leeuw 2006,
    Computational Statistics and Data Analysis 50).
    """
    from sklearn.utils.extmath import randomized_svd

    chosen = _drawn(values, MOST_LOGISTIC, seed)
    shares = np.clip(chosen.mean(axis=0), 1e-4, 1 - 1e-4)
    mean = np.log(shares / (1 - shares)).astype(np.float32)
    odds = np.tile(mean, (len(chosen), 1))
    axes = np.zeros((chosen.shape[1], size), np.float32)
    for _ in range(_ITERATIONS):
        target = odds + 4 * (chosen - _odds(odds))
        mean = target.mean(axis=0)
        left, strength, axes = randomized_svd(target - mean, size, n_iter=2, random_state=seed)
        odds = np.clip((left * strength) @ axes + mean, -_SATURATED, _SATURATED).astype(np.float32)
    return Components(mean.astype(np.float32), axes.T.astype(np.float32), len(chosen), logistic=True)


def _drawn(values: np.ndarray, most: int, seed: int) -> np.ndarray:
    count = max(1, most // values.shape[1])
    if len(values) <= count:
        return values
    return values[np.random.default_rng(seed).choice(len(values), count, replace=False)]


def _odds(values: np.ndarray) -> np.ndarray:
    """Log-odds as probabilities."""
    return 1 / (1 + np.exp(-np.clip(values, -30, 30)))
