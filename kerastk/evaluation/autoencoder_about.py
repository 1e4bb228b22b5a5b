"""All that is known of the run of an autoencoder, and its figures as they are read."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from kerastk.evaluation import page
from kerastk.evaluation.autoencoder_reading import CodeLabels, Gallery, ItemData, Limits, Scored
from kerastk.evaluation.listing import network
from kerastk.evaluation.reading import Epoch
from kerastk.recipe import Autoencode

# Of a normal distribution, on either side of its mean, between which 95 % lie.
_SIGMAS = 1.96
# What the names of phases begin with that train restricted Boltzmann machines.
_MACHINE = "rbm-"


@dataclass(frozen=True)
class Missed:
    """The mean error of some items with its 95 % interval, None of a single one."""

    error: float
    interval: tuple[float, float] | None


def missed(errors: np.ndarray) -> Missed:
    """From (items,) errors."""
    mean = float(errors.mean())
    if len(errors) < 2:
        return Missed(mean, None)
    reach = _SIGMAS * float(errors.std(ddof=1)) / math.sqrt(len(errors))
    return Missed(mean, (max(0.0, mean - reach), mean + reach))


@dataclass(frozen=True, kw_only=True)
class AutoencoderAbout(page.About):
    """All that a page about the run of an autoencoder is made of. `scored` are the items that it is judged by."""

    recipe: Autoencode
    labels: CodeLabels
    data: ItemData
    limits: Limits
    scored: Scored
    gallery: Gallery | None

    measure: ClassVar[str] = "error"
    compared: ClassVar[dict[str, str]] = {"val_error": "Error"}

    @property
    def noun(self) -> str:
        """What an item is."""
        return "image" if self.labels.of_images else "row"

    @property
    def items(self) -> str:
        """What the run is judged on; errors of items of another size are others."""
        if self.labels.of_images:
            return f"images of {' x '.join(map(str, self.labels.shape))}"
        return f"rows of {self.labels.values} numbers"

    @property
    def network(self) -> str:
        """What answers, in a word."""
        return network(self.recipe)

    @property
    def columns(self) -> dict[str, str]:
        """Further figures for a table, by their heads; – for those that a run has not."""
        judged = self.judged
        auroc = judged.anomalies.auroc
        pca = None if judged.anomalies.anomalies else judged.rivals.get("PCA")
        return {
            "PSNR": f"{decibels(self.missed.error / self.labels.values):.1f} dB" if self.labels.of_images else "–",
            "PCA": "–" if pca is None else spelled(pca.error),
            "ELBO": "–" if judged.evidence is None else spelled(judged.evidence.elbo),
            "AUROC": "–" if auroc is None else f"{auroc:.3f}",
            f"{self.noun}s": self.judged_on(judged.items),
        }

    @property
    def anomalous(self) -> np.ndarray:
        """(items,) bool: which of the items that the run is judged by are of no normal class."""
        normal = self.recipe.normal_classes
        return np.array([bool(normal) and label not in normal for _, _, label in self.scored.items])

    @property
    def missed(self) -> Missed:
        """What reconstructions miss of the normal items, the only ones of which they are to miss little."""
        found = self.judged.anomalies
        if not found.anomalies or not found.normal:
            return Missed(self.judged.error, self.judged.interval)
        return missed(self.scored.errors[~self.anomalous])

    @property
    def trained(self) -> list[Epoch]:
        """The epochs of the whole network, without those of machines, whose figures are of what each of them sees."""
        return [row for row in self.epochs if not row.phase.startswith(_MACHINE)]

    @property
    def linear(self) -> str:
        """The split on which linear codes stand beside this one: that of the judged which has no anomalies."""
        return "validation" if self.judged.anomalies.anomalies else self.metrics.judged


def spelled(value: float) -> str:
    """A figure that is no share, as it is read: 1 234, 10.72, 0.0312."""
    size = abs(value)
    if size >= 1000:
        return page.counted(round(value)).replace("-", "−")
    return (f"{value:.2f}" if size >= 1 or not size else f"{value:.3g}").replace("-", "−")


def decibels(squared: float) -> float:
    """The peak signal-to-noise ratio of values from 0 to 1, from their mean squared error."""
    return -10 * math.log10(max(squared, 1e-12))
