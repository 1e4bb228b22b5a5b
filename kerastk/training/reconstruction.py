"""What is fitted of an autoencoder: a network that answers with its own loss, and what that says after each epoch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from kerastk.datasets.pipeline import Rows, Varied, Vary
from kerastk.networks.autoencoder import scaler, to_head
from kerastk.training.callbacks import Validation
from kerastk.training.losses import ssim

# Of the normal distributions by which the change of a code is estimated, in the units of what the network sees.
_STEP = 0.01
# Keeps draws for validation apart from those of training.
_VALIDATION = 0x76616C


@dataclass(frozen=True, kw_only=True)
class Objective:
    """What an autoencoder is trained for; see `Reconstructing`. `sparsity` is (kind, share, weight)."""

    loss: str
    sparsity: tuple[str, float, float] | None = None
    contraction: float | None = None
    beta: float | None = None
    free_bits: float = 0.0

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the numbers that an item is answered with; the first is what is made small."""
        return (
            "loss", "error", *(("nats", "kl") if self.beta is not None else ()),
            *(("sparsity",) if self.sparsity is not None else ()),
            *(("contraction",) if self.contraction is not None else ()),
        )  # fmt: skip


class Reconstructing(keras.Model):
    """Asks an autoencoder for a reconstruction and answers with what it cost, (batch, columns) float32.

    It shares the layers of `network` (`networks.autoencoder`). The inputs are those of `datasets.damage`: `item`,
    `target`, maybe `weight`, and `draws`: standard normal numbers, (batch, latent) for a variational code, of the shape
    of the items for a contractive one.

    The columns (`Objective.columns`):

    - `loss`: per value of an item, the reconstruction's plus the penalties.
    - `error`: summed squared error, of pixels between 0 and 1 or of standardised numbers.
    - `nats`: of a variational code, minus the log-likelihood of the target: of pixels as probabilities with bce; with
      mse that of a normal distribution whose variance is the batch's mean squared error (Rybkin et al. 2021,
      arXiv:2006.13202).
    - `kl`: nats between the code's distribution and the standard normal one; minus `nats` minus `kl` is the evidence
      lower bound. What of each number is below `free_bits` costs nothing (Kingma et al. 2016, arXiv:1606.04934).
    - `sparsity`: the sum of the absolute values of a code, or of the divergences between the share of the batch in
      which a unit is on and the wanted one (Ng 2011, CS294A).
    - `contraction`: the squared Frobenius norm of the code's derivatives (Rifai et al. 2011, ICML), estimated by the
      change of the code along one random direction.
    """

    def __init__(self, network: keras.Model, objective: Objective):
        super().__init__(name="reconstructing", dtype="float32")
        self.objective = objective
        codes = {name: each for name, each in network.output.items() if name != "reconstruction"}
        self.scaler, self.head = scaler(network), to_head(network)
        self.encoder = keras.Model(network.get_layer("scaled").output, codes, name="scaled_to_code")
        self.shape = tuple(network.input.shape[1:])
        self.values, self.is_image = int(np.prod(self.shape)), len(self.shape) == 3
        self.built = True

    def call(self, inputs: dict[str, Any], training: bool | None = None) -> keras.KerasTensor:
        """See the class."""
        objective = self.objective
        item, target = self.scaler(inputs["item"]), self.scaler(inputs["target"])
        found = self.encoder(item, training=training)
        code = found["code"]
        if objective.beta is not None:
            code = code + ops.exp(found["log_variance"] / 2) * inputs["draws"]
        raw = ops.reshape(ops.cast(self.head(code, training=training), "float32"), (-1, *self.shape))
        made = ops.sigmoid(raw) if self.is_image else raw
        columns = {"error": _summed(ops.square(made - target))}
        cost = self._cost(raw, made, target)
        cost = _summed(cost * inputs["weight"] if "weight" in inputs else cost)
        loss = cost / self.values
        if objective.beta is not None:
            columns |= self._likelihood(cost, columns["error"], found["code"], found["log_variance"])
            loss = (columns["nats"] + objective.beta * columns.pop("priced")) / self.values
        if objective.sparsity is not None:
            kind, share, weight = objective.sparsity
            columns["sparsity"] = _summed(ops.abs(code)) if kind == "l1" else ops.zeros_like(loss) + _idle(code, share)
            loss = loss + weight * columns["sparsity"]
        if objective.contraction is not None:
            near = self.encoder(item + _STEP * inputs["draws"], training=training)["code"]
            columns["contraction"] = _summed(ops.square((near - code) / _STEP))
            loss = loss + objective.contraction * columns["contraction"]
        columns["loss"] = loss
        return ops.stack([columns[name] for name in objective.columns], axis=-1)

    def _cost(self, raw: keras.KerasTensor, made: keras.KerasTensor, target: keras.KerasTensor) -> keras.KerasTensor:
        """What each value of a reconstruction costs, (batch, ...): their mean is the loss."""
        difference = made - target
        match self.objective.loss:
            case "bce":
                # The cross-entropy of logits, in a form that never overflows.
                return ops.softplus(raw) - target * raw
            case "mse":
                return ops.square(difference)
            case "mae":
                return ops.abs(difference)
            case "huber":
                size = ops.abs(difference)
                return ops.where(size < 1, ops.square(difference) / 2, size - 0.5)
            case "ssim":
                # One number an image; as much for each of its values.
                return (1 - ssim(made, target))[:, None] * ops.full((1, self.values), 1.0)
        raise ValueError(self.objective.loss)

    def _likelihood(
        self,
        cost: keras.KerasTensor,
        error: keras.KerasTensor,
        mean: keras.KerasTensor,
        log_variance: keras.KerasTensor,
    ) -> dict[str, keras.KerasTensor]:
        """`nats` and `kl` of each item, and what of the latter is `priced`."""
        nats = cost
        if self.objective.loss == "mse":
            variance = ops.mean(error) / self.values + 1e-8
            nats = (self.values * ops.log(2 * np.pi * variance) + error / variance) / 2
        distance = (ops.square(mean) + ops.exp(log_variance) - 1 - log_variance) / 2
        kl = priced = ops.sum(distance, axis=-1)
        if self.objective.free_bits:
            least = ops.maximum(ops.mean(distance, axis=0), self.objective.free_bits)
            priced = ops.zeros_like(kl) + ops.sum(least)
        return {"nats": nats, "kl": kl, "priced": priced}


def _summed(values: keras.KerasTensor) -> keras.KerasTensor:
    """(batch, ...) -> (batch,)."""
    return ops.sum(values, axis=tuple(range(1, len(values.shape))))


def _idle(code: keras.KerasTensor, share: float) -> keras.KerasTensor:
    """The divergence of the shares in which units are on from the wanted one, summed over the units."""
    on = ops.clip(ops.mean(code, axis=0), 1e-6, 1 - 1e-6)
    return ops.sum(share * ops.log(share / on) + (1 - share) * ops.log((1 - share) / (1 - on)))


@keras.saving.register_keras_serializable(package="kerastk")
class FirstColumn(keras.losses.Loss):
    """The mean of the first column of what a network answers; there is no truth beside it."""

    def call(self, y_true: Any, y_pred: keras.KerasTensor) -> keras.KerasTensor:
        """(batch, columns) -> (batch,)."""
        return y_pred[:, 0]


@keras.saving.register_keras_serializable(package="kerastk")
class Column(keras.metrics.Mean):
    """The mean of one column of what a network answers."""

    def __init__(self, number: int, name: str, **mean: Any):
        super().__init__(name=name, **mean)
        self.number = number

    def update_state(self, y_true: Any, y_pred: keras.KerasTensor, sample_weight: Any = None) -> None:
        """Count (batch, columns)."""
        super().update_state(y_pred[:, self.number])

    def get_config(self) -> dict[str, Any]:
        """What the constructor takes."""
        return {**super().get_config(), "number": self.number}


def compiled(columns: Sequence[str]) -> dict[str, Any]:
    """What `compile` gets for a network that answers with its loss: see `Reconstructing`."""
    return {"loss": FirstColumn(), "metrics": [Column(number, name) for number, name in enumerate(columns) if number]}


class ReconstructionValidation(Validation):
    """The means of the columns over the validation split, with val_ in front; val_elbo of a variational code.

    What is damaged or drawn is the same each time.
    """

    monitor = "val_loss"

    def __init__(self, columns: Sequence[str], seed: int):
        super().__init__()
        self.columns, self.seed = tuple(columns), seed

    def figures(self) -> dict[str, float]:
        """Ask for all validation items."""
        found = means(self.model, self.rows, self.vary, columns=self.columns, seed=self.seed)
        return {f"val_{name}": value for name, value in found.items()}


def means(fitted: keras.Model, rows: Rows, vary: Vary, *, columns: Sequence[str], seed: int) -> dict[str, float]:
    """The mean of each column of what `fitted` answers for the items of a split, by name.

    With `elbo`, the evidence lower bound in nats, where there are `nats` and `kl`: from one drawn code an item.
    """
    total, count = np.zeros(len(columns)), 0
    for inputs, _ in Varied(rows.batches(0, 1), vary, seed ^ _VALIDATION, 0):
        found = np.asarray(fitted.predict_on_batch(inputs), np.float64)
        total, count = total + found.sum(axis=0), count + len(found)
    figures = dict(zip(columns, (total / count).tolist(), strict=True))
    if "kl" in figures:
        figures["elbo"] = -figures["nats"] - figures["kl"]
    return figures
