"""A phase: what is trained, for how long, and along which learning rate. Every phase compiles afresh."""

from dataclasses import dataclass

import keras

from kerastk.networks.classifier import logits_model
from kerastk.networks.cuts import cut_for, split_at


@dataclass(frozen=True, kw_only=True)
class Phase:
    """`unfreeze` is `head`, `all` or a number of stages; `fresh` means weights that were never trained.

    With fresh weights batch statistics are live; with pretrained ones every BatchNormalization stays frozen.
    """

    name: str
    epochs: int
    unfreeze: str | int
    learning_rate: float
    warmup_epochs: float
    fresh: bool = False


def release(model: keras.Model) -> None:
    """Make every layer trainable again: what a phase froze would be saved with the model."""
    for layer in model.layers:
        layer.trainable = True


class FrozenPrefix(keras.Model):
    """A frozen part in inference mode (dropout and batch statistics too) in front of a part that is trained."""

    def __init__(self, prefix: keras.Model, tail: keras.Model):
        super().__init__(name="frozen_prefix")
        self.prefix = prefix
        self.tail = tail

    def call(self, photos: keras.KerasTensor, training: bool | None = None) -> keras.KerasTensor:
        """(batch, size, size, 3) uint8 -> (batch, classes) logits."""
        # Functional.call would hand training=True down to a frozen Dropout.
        return self.tail(self.prefix(photos, training=False), training=training)


def prepare(model: keras.Model, phase: Phase) -> keras.Model:
    """The model to fit in this phase: from photos to logits, with what the phase does not train frozen.

    Shares the layers of `model`, so training it trains `model`.
    """
    model.trainable = True
    for layer in model.layers:
        layer.trainable = phase.fresh or not isinstance(layer, keras.layers.BatchNormalization)
    logits = logits_model(model)
    cut = cut_for(model, phase.unfreeze)
    if cut is None:
        return logits
    prefix, tail = split_at(logits, cut)
    prefix.trainable = False
    return FrozenPrefix(prefix, tail)


def quicken_statistics(model: keras.Model, steps_per_epoch: int) -> dict[str, float]:
    """Let moving statistics forget 99 % within an epoch, where the layers' own momentum would take longer.

    Returns the layers' own momenta by name, to be put back after the training.

    With Keras's 0.99, a net trained from random weights on few photos is judged by the statistics of its first steps
    for many epochs, and early stopping ends it.
    """
    layers = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    momenta = {layer.name: layer.momentum for layer in layers}
    for layer in layers:
        layer.momentum = min(layer.momentum, 0.01 ** (1 / steps_per_epoch))
    return momenta


def schedule(phase: Phase, steps_per_epoch: int) -> keras.optimizers.schedules.LearningRateSchedule:
    """Linear warm-up to the phase's learning rate, then half a cosine to zero (arXiv:1608.03983, without restarts)."""
    total = phase.epochs * steps_per_epoch
    warmup = min(round(phase.warmup_epochs * steps_per_epoch), total - 1)
    if warmup == 0:
        return keras.optimizers.schedules.CosineDecay(phase.learning_rate, total)
    return keras.optimizers.schedules.CosineDecay(
        0.0, total - warmup, warmup_target=phase.learning_rate, warmup_steps=warmup
    )


def optimizer(
    phase: Phase, steps_per_epoch: int, *, weight_decay: float, clipnorm: float, precision: str
) -> keras.optimizers.Optimizer:
    """AdamW (arXiv:1711.05101) for the phase; decay spares biases and the scales of normalisation.

    With float16 the loss is scaled (arXiv:1710.03740), and clipping works on the unscaled gradients. Keras does so by
    itself only for models whose own policy is float16; here it is the layers'.
    """
    made = keras.optimizers.AdamW(
        schedule(phase, steps_per_epoch), weight_decay=weight_decay, global_clipnorm=clipnorm or None
    )
    made.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return keras.optimizers.LossScaleOptimizer(made) if precision == "float16" else made
