"""Figures of a classifier, with their uncertainty."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp


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


def reliability(truth: np.ndarray, probabilities: np.ndarray, bins: int = 15) -> list[dict[str, Any]]:
    """Photos, mean confidence and accuracy in each equal-width bin of confidence that has photos (arXiv:1706.04599).

    `truth` is (photos,) class numbers, `probabilities` (photos, classes). A bin is named by its number from 0.
    """
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == truth
    which = np.minimum((confidence * bins).astype(int), bins - 1)
    return [
        {
            "bin": int(each),
            "photos": int((which == each).sum()),
            "confidence": float(confidence[which == each].mean()),
            "accuracy": float(right[which == each].mean()),
        }
        for each in np.unique(which)
    ]


def expected_calibration_error(truth: np.ndarray, probabilities: np.ndarray, bins: int = 15) -> float:
    """Mean gap between confidence and accuracy over the bins of `reliability`, weighted by their photos."""
    rows = reliability(truth, probabilities, bins)
    return sum(abs(row["accuracy"] - row["confidence"]) * row["photos"] for row in rows) / len(truth)


def uncalibrated(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """What (photos, classes) probabilities were before their logits were divided by the temperature, float32.

    The logits are their logarithms, up to a constant that softmax takes no notice of.
    """
    logits = temperature * np.log(np.maximum(probabilities.astype(np.float64), 1e-300))
    return np.exp(logits - logsumexp(logits, axis=1, keepdims=True)).astype(np.float32)


def before_calibration(truth: np.ndarray, probabilities: np.ndarray, temperature: float) -> dict[str, Any]:
    """The figures that the temperature changes, as they were without it."""
    probabilities = uncalibrated(probabilities, temperature)
    return {
        "cross_entropy": log_loss(probabilities, truth),
        "expected_calibration_error": expected_calibration_error(truth, probabilities),
        "reliability": reliability(truth, probabilities),
    }


def cross_entropy(logits: np.ndarray, truth: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Mean cross-entropy, in nats, of (photos, classes) logits and (photos,) class numbers; `weights` (photos,)."""
    logits = logits.astype(np.float64)
    return float(np.average(logsumexp(logits, axis=1) - logits[np.arange(len(truth)), truth], weights=weights))


def log_loss(probabilities: np.ndarray, truth: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Mean cross-entropy, in nats, of (photos, classes) probabilities and class numbers; `weights` (photos,)."""
    of_truth = probabilities[np.arange(len(truth)), truth].astype(np.float64)
    return float(np.average(-np.log(np.maximum(of_truth, 1e-12)), weights=weights))


def equal_classes(truth: np.ndarray) -> np.ndarray:
    """(photos,) weights under which every class that is there counts as much as any other; their mean is 1."""
    counts = np.bincount(truth)
    return len(truth) / (np.count_nonzero(counts) * counts[truth])


def temperature(logits: np.ndarray, truth: np.ndarray, weights: np.ndarray | None = None) -> float:
    """The number to divide logits by so that their softmax fits best, between 1/20 and 20 (arXiv:1706.04599).

    `logits` (photos, classes), `truth` and `weights` (photos,). As in Platt's scaling (1999) each photo counts as a
    little of every other class, as much as so few photos cannot rule out; else a few right answers would ask for
    certainty.
    """
    logits, (count, classes) = logits.astype(np.float64), logits.shape
    doubt = 1 / (count + classes)
    aims = np.where(np.eye(classes)[truth] == 1, 1 - doubt * (classes - 1), doubt)

    def loss(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        return float(np.average(logsumexp(scaled, axis=1) - (aims * scaled).sum(axis=1), weights=weights))

    if not np.isfinite(logits).all():
        return 1.0
    return float(np.exp(minimize_scalar(loss, bounds=(-math.log(20), math.log(20)), method="bounded").x))


def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> tuple[int, int, float]:
    """Whether two classifiers differ on the same photos, from whether each is right about each.

    Returns how many the first alone has right, how many the second alone, and the probability of so uneven a count, or
    a more uneven one, where they are equally good: McNemar's test (1947, Psychometrika 12:153), exact.

    >>> mcnemar([True] * 5 + [False], [False] * 5 + [True])
    (5, 1, 0.21875)
    """
    from scipy.stats import binomtest

    only_first = sum(one and not other for one, other in zip(first, second, strict=True))
    only_second = sum(other and not one for one, other in zip(first, second, strict=True))
    if only_first + only_second == 0:
        return 0, 0, 1.0
    return only_first, only_second, float(binomtest(only_first, only_first + only_second).pvalue)


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
    figures: dict[str, Any] = {
        "photos": len(truth),
        "accuracy": hits / len(truth),
        "accuracy_95": [low, high],
        "cross_entropy": log_loss(probabilities, truth),
    }
    if len(classes) > 5:
        best = np.argsort(-probabilities, axis=1, kind="stable")[:, :5]
        figures["top5_accuracy"] = float((best == truth[:, None]).any(axis=1).mean())
    figures["expected_calibration_error"] = expected_calibration_error(truth, probabilities)
    figures["reliability"] = reliability(truth, probabilities)
    precision, recall, f1, support = precision_recall_fscore_support(truth, guess, labels=numbers, zero_division=0.0)
    figures["macro_f1"] = float(f1[support > 0].mean())
    figures["majority_share"] = float(support.max() / len(truth))
    figures["classes"] = {
        name: {"precision": float(p), "recall": float(r), "f1": float(f), "photos": int(s)}
        for name, p, r, f, s in zip(classes, precision, recall, f1, support, strict=True)
    }
    figures["confusion"] = confusion_matrix(truth, guess, labels=numbers).tolist()
    return figures
