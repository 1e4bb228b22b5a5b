"""The head, solved: a convex problem on the frozen base's features, by scikit-learn, folded into the Dense head.

Features are standardised for the solver and stored as they are: the standardisation goes into kernel and bias.
"""

import copy
import itertools
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from kerastk.evaluation.metrics import equal_classes, log_loss

# Strengths that are tried, from the most regularised on; the path ends where validation gets worse twice.
LOGISTIC_CS = tuple(10.0**power for power in np.arange(-4, 1.5, 0.5))
SVM_CS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
NEIGHBOURS = (1, 3, 5, 9, 15, 25)
_WORSE = 2
# A feature that is dead but for a photo would get a weight of any size.
_FLOOR = 0.1
# The solver's products are narrow; on a busy machine OpenBLAS's threads wait for each other ten times their length.
_THREADS = max(1, (os.cpu_count() or 2) // 2)
# What the solver may take; beyond it the head is trained in minibatches.
MEMORY_BYTES = 2**29
WORK = 4e9


@dataclass(frozen=True)
class Head:
    """A solved linear head: logits = features @ kernel + bias.

    `kernel` (features, classes) and `bias` (classes,) are float32. `estimator` is scikit-learn's, on features minus
    `mean`, divided by `deviation`; `strength` its C.
    """

    kernel: np.ndarray
    bias: np.ndarray
    strength: float
    estimator: Any
    mean: np.ndarray
    deviation: np.ndarray

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """(photos, classes) float64 for (photos, features)."""
        logits = features.astype(np.float64) @ self.kernel + self.bias
        logits -= logits.max(axis=1, keepdims=True)
        return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


def fits(rows: int, features: int, classes: int) -> str | None:
    """Why so large a problem is not to be solved at once; None where it is."""
    needed = 8 * rows * features
    if needed > MEMORY_BYTES:
        return f"the features of {rows:,} photos and views would take {needed / 1e9:.1f} GB"
    if rows * features * classes > WORK:
        return f"{rows:,} photos and views in {classes} classes would take the solver too long"
    return None


def logistic(
    features: np.ndarray, truth: np.ndarray, val_features: np.ndarray, val_truth: np.ndarray, balanced: bool = False
) -> Head:
    """Logistic regression; its strength is the one with the lowest cross-entropy on the validation photos.

    `features` (rows, features) float32 and `truth` (rows,) class numbers; classes are 0 to the largest number. With
    `balanced` every class counts as much as any other.
    """
    from sklearn.linear_model import LogisticRegression

    # Each strength starts from the solution of the one before.
    solver = LogisticRegression(max_iter=300, warm_start=True, class_weight="balanced" if balanced else None)
    weights = equal_classes(val_truth) if balanced else None
    return _best(solver, LOGISTIC_CS, features, truth, lambda head: log_loss(
        head.probabilities(val_features), val_truth, weights))  # fmt: skip


def svm(
    features: np.ndarray, truth: np.ndarray, val_features: np.ndarray, val_truth: np.ndarray, balanced: bool = False
) -> Head:
    """A linear support vector machine, one class against the rest; its strength is that of the fewest wrong answers.

    Its logits are decision values: their order means something, the softmax of them is no probability.
    """
    from sklearn.svm import LinearSVC

    solver = LinearSVC(max_iter=5000, random_state=0, class_weight="balanced" if balanced else None)
    weights = equal_classes(val_truth) if balanced else None
    return _best(solver, SVM_CS, features, truth, lambda head: np.average(
        head.probabilities(val_features).argmax(axis=1) != val_truth, weights=weights))  # fmt: skip


SOLVERS: dict[str, Callable[..., Head]] = {"logistic": logistic, "svm": svm}


def fold(
    coefficients: np.ndarray, intercept: np.ndarray, mean: np.ndarray, deviation: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Kernel (features, classes) and bias (classes,), float32, of a head that takes features as they are.

    Computed in float64. Two classes have one row of coefficients; the first class gets a column of zeros.
    """
    kernel = coefficients.astype(np.float64).T / deviation[:, None]
    bias = intercept - mean @ kernel
    if kernel.shape[1] == 1:
        kernel, bias = np.hstack([np.zeros_like(kernel), kernel]), np.append(0.0, bias)
    return kernel.astype(np.float32), bias.astype(np.float32)


def _best(
    estimator: Any, strengths: tuple[float, ...], features: np.ndarray, truth: np.ndarray, loss: Callable[[Head], float]
) -> Head:
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    mean = features.mean(axis=0, dtype=np.float64)
    deviation = features.std(axis=0, dtype=np.float64)
    deviation = np.maximum(deviation, _FLOOR * deviation.mean()) if deviation.any() else np.ones_like(deviation)
    scaled = features.astype(np.float64)
    scaled -= mean
    scaled /= deviation
    best, lowest, worse = None, np.inf, 0
    for strength in strengths:
        estimator.set_params(C=strength)
        with warnings.catch_warnings(), threadpool_limits(_THREADS, user_api="blas"):
            # A solution that is not exact is judged on the validation split like any other.
            warnings.simplefilter("ignore", ConvergenceWarning)
            estimator.fit(scaled, truth)
        kernel, bias = fold(estimator.coef_, estimator.intercept_, mean, deviation)
        head = Head(kernel, bias, strength, copy.deepcopy(estimator), mean, deviation)
        found = loss(head)
        worse = worse + 1 if found >= lowest else 0
        if found < lowest:
            best, lowest = head, found
        if worse == _WORSE:
            break
    return best


def neighbours(features: np.ndarray, truth: np.ndarray, val_features: np.ndarray, val_truth: np.ndarray) -> Any:
    """The nearest neighbours of the training photos; their number is that of the fewest wrong answers on validation."""
    from kerastk.evaluation.neighbours import Neighbours

    tried = [Neighbours(features, truth, count) for count in itertools.takewhile(len(truth).__ge__, NEIGHBOURS)]
    return min(tried, key=lambda each: np.mean(each.probabilities(val_features).argmax(axis=1) != val_truth))
