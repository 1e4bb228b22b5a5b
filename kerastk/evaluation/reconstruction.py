"""The figures of an autoencoder: what its reconstructions miss, beside principal components; anomalies; artefacts."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import keras

    from kerastk.datasets.pipeline import Rows
    from kerastk.networks.autoencoder import Standard

# Of a normal distribution, on either side of its mean, between which 95 % lie.
_SIGMAS = 1.96


@dataclass(frozen=True)
class Answers:
    """What an autoencoder makes of items, in their order: `codes` (items, latent) float32, `errors` (items,) float64.

    An error is the sum of squared differences, of pixels between 0 and 1 or of numbers in standard deviations.
    """

    codes: np.ndarray
    errors: np.ndarray


def scaled(items: np.ndarray, standard: "Standard | None") -> np.ndarray:
    """Items as errors measure them, (items, values) float32: pixels from 0 to 1, numbers in standard deviations."""
    if standard is None:
        return items.reshape(len(items), -1).astype(np.float32) / np.float32(255)
    return (items - standard.mean) / standard.deviation


def answers(model: "keras.Model", batches: Iterable[np.ndarray], standard: "Standard | None") -> Answers:
    """What a model makes of batches of items."""
    codes, errors = [], []
    for items in batches:
        found = model.predict_on_batch(items)
        codes.append(np.asarray(found["code"], np.float32))
        errors.append(item_errors(items, np.asarray(found["reconstruction"]), standard))
    return Answers(np.concatenate(codes), np.concatenate(errors))


def item_errors(items: np.ndarray, made: np.ndarray, standard: "Standard | None") -> np.ndarray:
    """(items,) float64: the summed squared error of each reconstruction, as a model gives it."""
    made = made.reshape(len(made), -1) if standard is None else (made - standard.mean) / standard.deviation
    difference = scaled(items, standard) - made
    return np.square(difference, dtype=np.float64).sum(axis=1)


def items_of(rows: "Rows") -> Iterable[np.ndarray]:
    """The items of all batches of a split, once, in its order."""
    return (items for items, _ in rows.batches(0, 1))


def figures(errors: np.ndarray, values: int) -> dict[str, Any]:
    """The figures of a split from its errors: the mean with its 95 % interval, that per value, and PSNR.

    `values` is the number of values of an item. The peak of the signal-to-noise ratio, in decibels, is 1: of pixels
    the whole range.
    """
    mean = float(errors.mean())
    reach = _SIGMAS * float(errors.std(ddof=1)) / math.sqrt(len(errors)) if len(errors) > 1 else 0.0
    return {
        "items": len(errors),
        "error": mean,
        "error_95": [max(0.0, mean - reach), mean + reach],
        "error_per_value": mean / values,
        "psnr": psnr(mean / values),
    }


def psnr(squared: float) -> float:
    """Decibels of the peak signal-to-noise ratio of values from 0 to 1, from their mean squared error."""
    return float(-10 * np.log10(max(squared, 1e-12)))


def threshold(normal: np.ndarray, false_alarms: float) -> float:
    """The score above which an item is called an anomaly, from the scores of normal ones that were not learned.

    Of fresh normal items at most `false_alarms` lie above it, on average (split conformal prediction: Vovk et al. 2005;
    Laxhammar and Falkman 2011). Where there are too few to tell, it is the largest score: see `least_false_alarms`.
    """
    ordered = np.sort(normal)
    place = math.ceil((len(ordered) + 1) * (1 - false_alarms))
    return float(ordered[min(place, len(ordered)) - 1])


def least_false_alarms(count: int) -> float:
    """The smallest share of false alarms that a threshold can be set for on so many normal items."""
    return 1 / (count + 1)


def false_alarm_interval(fresh: int, calibrated: int, false_alarms: float) -> tuple[float, float]:
    """Between which shares the false alarms among `fresh` normal items lie in 95 of 100 cases.

    The threshold itself is an estimate from `calibrated` items, so their number is beta-binomial.
    """
    from scipy.stats import betabinom

    above = calibrated + 1 - min(math.ceil((calibrated + 1) * (1 - false_alarms)), calibrated)
    spread = betabinom(fresh, above, calibrated + 1 - above)
    return float(spread.ppf(0.025)) / fresh, float(spread.ppf(0.975)) / fresh


def detection(scores: np.ndarray, anomalous: np.ndarray, limit: float) -> dict[str, Any]:
    """How well scores tell anomalies from normal items: AUROC and average precision, and what `limit` makes of it.

    `anomalous` is (items,) bool; with neither or both sorts there, figures that need both are left out.
    """
    from sklearn.metrics import average_precision_score, roc_auc_score

    above = scores > limit
    found: dict[str, Any] = {"normal": int((~anomalous).sum()), "anomalies": int(anomalous.sum())}
    if found["normal"]:
        found["false_alarms"] = float(above[~anomalous].mean())
    if found["anomalies"]:
        found["found"] = float(above[anomalous].mean())
    if found["normal"] and found["anomalies"]:
        found["auroc"] = float(roc_auc_score(anomalous, scores))
        found["average_precision"] = float(average_precision_score(anomalous, scores))
    return found


def checkerboard(images: np.ndarray) -> float:
    """How far patterns of period 2 stand out in images, (images, height, width, channels) from 0 to 1, in decibels.

    The mean power at the highest frequency across, down and both, against that of the frequencies just below; 0 means
    that nothing stands out. Enlarging by uneven overlaps leaves such a pattern (Odena et al. 2016, Distill).
    """
    height, width = (side - side % 2 for side in images.shape[1:3])
    values = images[:, :height, :width].astype(np.float64).mean(axis=-1)
    values = values - values.mean(axis=(1, 2), keepdims=True)
    power = np.square(np.abs(np.fft.fft2(values))).mean(axis=0) + 1e-12
    middle, centre = height // 2, width // 2
    down = power[middle].mean() / power[middle - 2 : middle].mean()
    across = power[:, centre].mean() / power[:, centre - 2 : centre].mean()
    return float(10 * np.log10(np.sqrt(down * across)))


def describe_prior(codes: np.ndarray, log_variances: np.ndarray) -> dict[str, Any]:
    """How the codes of a variational autoencoder lie to the standard normal distribution that they are drawn to.

    `mean` and `deviation` of all codes together (the aggregated posterior) should be 0 and 1 for each number; `active`
    counts the numbers whose means vary by more than 0.01 from item to item (Burda et al. 2015, arXiv:1509.00519).
    """
    spread = np.sqrt(codes.var(axis=0) + np.exp(log_variances).mean(axis=0))
    return {
        "active": int((codes.var(axis=0) > 0.01).sum()),
        "numbers": codes.shape[1],
        "mean": float(np.abs(codes.mean(axis=0)).mean()),
        "deviation": float(spread.mean()),
    }
