"""Restricted Boltzmann machines, layer by layer over the weights of a dense autoencoder."""

from typing import Any

import keras
import numpy as np
from keras import ops

KINDS = ("binary", "gaussian")


class RBM(keras.Model):
    """A restricted Boltzmann machine on the weights of two dense layers, which it trains (Hinton 2002, Neural
    Computation 14; Hinton 2010, "A Practical Guide to Training Restricted Boltzmann Machines").

    Its kernel (visible, hidden) and its hidden biases are those of `up`, its visible biases those of `down`. Units are
    binary, or Gaussian with variance 1. `below` makes of an item what the machine sees, (batch, visible): it is not
    trained.

    Called with {"item", "draws"}, of which `draws` (batch, steps, hidden) float32 are uniform from 0 to 1 for binary
    hidden units and standard normal for Gaussian ones, it answers with (batch, columns) float32: the difference of the
    free energies of what it sees and of what `steps` steps of Gibbs sampling make of that, whose gradient is that of
    contrastive divergence; the summed squared error of the first reconstruction; and zeros.

    Hidden units are drawn; for visible ones their means stand, which is less noisy (section 3.2 of the guide).
    """

    def __init__(
        self, below: keras.Model, up: keras.layers.Dense, down: keras.layers.Dense, *, visible: str, hidden: str,
        columns: int = 2,
    ):  # fmt: skip
        super().__init__(name="rbm", dtype="float32")
        if visible not in KINDS or hidden not in KINDS:
            raise ValueError(f"units must be {' or '.join(KINDS)}; got {visible!r} and {hidden!r}.")
        self.below = below
        # Not `below.trainable`, which reaches the layers only where it changes.
        for layer in below.layers:
            layer.trainable = False
        self.visible, self.hidden, self.columns = visible, hidden, columns
        self.weight, self.hidden_bias, self.visible_bias = up.kernel, up.bias, down.bias
        self.built = True

    def call(self, inputs: dict[str, Any], training: bool | None = None) -> keras.KerasTensor:
        """See the class."""
        seen, draws = self.below(inputs["item"], training=False), inputs["draws"]
        seen = ops.stop_gradient(ops.reshape(ops.cast(seen, "float32"), (-1, self.visible_bias.shape[0])))
        chain, first = seen, None
        for step in range(draws.shape[1]):
            chain = self._back(self._drawn(chain, draws[:, step]))
            first = chain if first is None else first
        gap = self.free_energy(seen) - self.free_energy(ops.stop_gradient(chain))
        error = ops.sum(ops.square(seen - first), axis=-1)
        empty = [ops.zeros_like(gap)] * (self.columns - 2)
        return ops.stack([gap, error, *empty], axis=-1)

    def free_energy(self, visible: keras.KerasTensor) -> keras.KerasTensor:
        """(batch, visible) -> (batch,): minus the log of the unnormalised probability of what is visible."""
        inputs = ops.matmul(visible, self.weight) + self.hidden_bias
        hidden = ops.softplus(inputs) if self.hidden == "binary" else ops.square(inputs) / 2
        below = -ops.matmul(visible, self.visible_bias)
        if self.visible == "gaussian":
            below = ops.sum(ops.square(visible - self.visible_bias), axis=-1) / 2
        return below - ops.sum(hidden, axis=-1)

    def _drawn(self, visible: keras.KerasTensor, draws: keras.KerasTensor) -> keras.KerasTensor:
        inputs = ops.matmul(visible, self.weight) + self.hidden_bias
        if self.hidden == "gaussian":
            return inputs + draws
        return ops.cast(draws < ops.sigmoid(inputs), "float32")

    def _back(self, hidden: keras.KerasTensor) -> keras.KerasTensor:
        inputs = ops.matmul(hidden, ops.transpose(self.weight)) + self.visible_bias
        return inputs if self.visible == "gaussian" else ops.sigmoid(inputs)


def unroll(up: keras.layers.Dense, down: keras.layers.Dense) -> None:
    """Let `down` undo what `up` does: its kernel is the other's, turned over."""
    down.kernel.assign(np.array(up.kernel).T)
