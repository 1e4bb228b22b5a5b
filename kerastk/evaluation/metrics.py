"""Figures of a classifier, with their uncertainty."""

import math
from typing import Any

import numpy as np


def interval(hits: int, total: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share (E. B. Wilson 1927, JASA 22:209).

    >>> [round(bound, 3) for bound in interval(90, 100)]
    [0.826, 0.945]
    """
    if total == 0:
        return 0.0, 1.0
    z = 1.959963984540054
    share, z2 = hits / total, z * z
    centre = (share + z2 / (2 * total)) / (1 + z2 / total)
    half = z * math.sqrt(share * (1 - share) / total + z2 / (4 * total * total)) / (1 + z2 / total)
    return max(0.0, centre - half), min(1.0, centre + half)


def expected_calibration_error(truth: np.ndarray, probabilities: np.ndarray, bins: int = 15) -> float:
    """Mean gap between confidence and accuracy over equal-width bins of confidence (arXiv:1706.04599).

    `truth` is (photos,) class numbers, `probabilities` (photos, classes).
    """
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == truth
    which = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [abs(right[which == b].mean() - confidence[which == b].mean()) * (which == b).mean() for b in set(which)]
    return float(sum(gaps))


def classification(truth: np.ndarray, probabilities: np.ndarray, classes: list[str]) -> dict[str, Any]:
    """The figures of a split: accuracy with its 95 % interval, top-5 beyond 5 classes, per-class figures, calibration.

    `truth` is (photos,) class numbers, `probabilities` (photos, classes) float32 whose rows add up to 1. Macro F1 is
    the mean over the classes that have photos.
    """
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    guess = probabilities.argmax(axis=1)
    numbers = list(range(len(classes)))
    hits = int((guess == truth).sum())
    low, high = interval(hits, len(truth))
    of_truth = probabilities[np.arange(len(truth)), truth].astype(np.float64)
    figures: dict[str, Any] = {
        "photos": len(truth),
        "accuracy": hits / len(truth),
        "accuracy_95": [low, high],
        "cross_entropy": float(-np.log(np.maximum(of_truth, 1e-12)).mean()),
    }
    if len(classes) > 5:
        best = np.argsort(-probabilities, axis=1, kind="stable")[:, :5]
        figures["top5_accuracy"] = float((best == truth[:, None]).any(axis=1).mean())
    figures["expected_calibration_error"] = expected_calibration_error(truth, probabilities)
    precision, recall, f1, support = precision_recall_fscore_support(truth, guess, labels=numbers, zero_division=0.0)
    figures["macro_f1"] = float(f1[support > 0].mean())
    figures["majority_share"] = float(support.max() / len(truth))
    figures["classes"] = {
        name: {"precision": float(p), "recall": float(r), "f1": float(f), "photos": int(s)}
        for name, p, r, f, s in zip(classes, precision, recall, f1, support, strict=True)
    }
    figures["confusion"] = confusion_matrix(truth, guess, labels=numbers).tolist()
    return figures
