"""A phase: what is trained, for how long, and along which learning rate. Every phase compiles afresh."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from kerastk.datasets.pipeline import Vary
from kerastk.networks.classifier import logits_model
from kerastk.networks.cuts import blocks, cache_cut, cut_for, split_at
from kerastk.training import optimizers, schedules


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A phase that is trained: `unfreeze` is `head`, `all` or a number of stages.

    `fresh` means weights that were never trained. With fresh weights batch statistics are live; with pretrained ones
    every BatchNormalization stays frozen. `manifold_mixup` mixes what the frozen part makes of the photos, `mixup` and
    `cutmix` the photos themselves: strengths, 0 for none.
    """

    name: str
    epochs: int
    unfreeze: str | int
    # None until a range test has found it.
    learning_rate: float | None
    warmup_epochs: float
    fresh: bool = False
    schedule: str = "cosine"
    # Of the schedule.
    numbers: Mapping[str, Any] = field(default_factory=dict)
    manifold_mixup: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    # What is done to each batch, where none of these does.
    vary: Vary | None = None
    # What its optimizer has other than the recipe says.
    optimisation: Mapping[str, Any] = field(default_factory=dict)
    # What is done with the model at its end, in place of going back to the best weights. The figures of such a phase
    # choose no model.
    closing: Callable[[keras.Model], None] | None = None

    @property
    def blends(self) -> bool:
        """Whether the photos of a batch are mixed."""
        return self.mixup > 0 or self.cutmix > 0


@dataclass(frozen=True, kw_only=True)
class Probe:
    """A phase that is solved, not trained: the head on frozen features; `kind` is one of `probe.SOLVERS`, or knn."""

    kind: str
    name: str = "probe"
    epochs: int = 0
    unfreeze: str = "head"


def release(model: keras.Model) -> None:
    """Make every layer trainable again: what a phase froze would be saved with the model."""
    model.trainable = True
    for layer in model.layers:
        layer.trainable = True


class FrozenPrefix(keras.Model):
    """A frozen part in inference mode (dropout and batch statistics too) in front of a part that is trained.

    The frozen part is `below` and `between`, either of which may be missing. In between activations are mixed: Manifold
    Mixup (Verma et al. 2018, arXiv:1806.05236).
    """

    def __init__(self, below: keras.Model | None, between: keras.Model | None, tail: keras.Model):
        super().__init__(name="frozen_prefix")
        self.below, self.between, self.tail = below, between, tail

    def call(self, inputs: Any, training: bool | None = None) -> keras.KerasTensor:
        """Photos (or activations, without `below`) -> (batch, classes) logits.

        In place of photos there may be (photos, partner, share), as `datasets.pipeline.paired` gives them: each
        activation is then `share` of its own and the rest of its partner's.
        """
        values, *mixing = inputs if isinstance(inputs, tuple | list) else (inputs,)
        if self.below is not None:
            # Functional.call would hand training=True down to a frozen Dropout.
            values = self.below(values, training=False)
        if mixing:
            partner, share = mixing
            share = keras.ops.reshape(share, (-1, *[1] * (len(values.shape) - 1)))
            values = keras.ops.cast(values, "float32")
            values = share * values + (1 - share) * keras.ops.take(values, partner, axis=0)
        if self.between is not None:
            values = self.between(values, training=False)
        return self.tail(values, training=training)


def prepare(model: keras.Model, phase: Phase | Probe, start: keras.KerasTensor | None = None) -> keras.Model:
    """The model to fit in this phase: from photos to logits, with what the phase does not train frozen.

    Shares the layers of `model`, so training it trains `model`. With `start`, a tensor at or below the phase's cut, it
    takes that tensor's values in place of photos. Manifold Mixup mixes at `cache_cut`, whatever it starts from.
    """
    model.trainable = True
    fresh = isinstance(phase, Phase) and phase.fresh
    for layer in model.layers:
        layer.trainable = fresh or not isinstance(layer, keras.layers.BatchNormalization)
    logits = logits_model(model)
    cut = cut_for(model, phase.unfreeze)
    if cut is None:
        return logits
    prefix, tail = split_at(logits, cut)
    prefix.trainable = False
    mixup = isinstance(phase, Phase) and phase.manifold_mixup > 0
    if start is cut and not mixup:
        return tail
    deepest = cut if not mixup or start is not None else cache_cut(model, cut).tensor
    middle = deepest if start is None else start
    below = keras.Model(model.input, middle, name="below") if start is None else None
    between = None if middle is cut else keras.Model(middle, cut, name="between")
    return FrozenPrefix(below, between, tail)


def regularise(model: keras.Model, l1: float, l2: float) -> None:
    """Add l1 * sum(|w|) + l2 * sum(w^2) over the trainable kernels of `model` to its loss; both: the elastic net.

    Biases and what normalisation scales with are spared. It is a trait of the variables: nothing of it is saved.
    """
    for weight in model.trainable_weights:
        if weight.name.endswith("kernel"):
            weight.regularizer = keras.regularizers.L1L2(l1, l2)


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


def schedule(
    phase: Phase, steps_per_epoch: int, share: float = 1.0
) -> keras.optimizers.schedules.LearningRateSchedule | float:
    """Linear warm-up to `share` of the phase's learning rate, then the phase's schedule.

    With `plateau` a number: what lowers it, and warms it up, is a callback (`callbacks.Plateau`).
    """
    peak, total = share * phase.learning_rate, phase.epochs * steps_per_epoch
    if phase.schedule == "plateau":
        return peak
    warmup = warmup_steps(phase, steps_per_epoch)
    return schedules.schedule(phase.schedule, peak=peak, total_steps=total, warmup_steps=warmup, **phase.numbers)


def warmup_steps(phase: Phase, steps_per_epoch: int) -> int:
    """Steps of the phase in which the learning rate rises; at least its last one is none of them."""
    return min(round(phase.warmup_epochs * steps_per_epoch), phase.epochs * steps_per_epoch - 1)


def optimizer(
    phase: Phase,
    steps_per_epoch: int,
    *,
    clipnorm: float,
    precision: str,
    layer_decay: float | None = None,
    model: keras.Model | None = None,
    name: str = "adamw",
    ema: float | None = None,
    curve: Callable[[float], keras.optimizers.schedules.LearningRateSchedule] | None = None,
    **numbers: Any,
) -> keras.optimizers.Optimizer:
    """The phase's optimizer (`optimizers.optimizer`, which takes `numbers`) along its schedule, or along `curve`.

    With `ema` averages of the weights are kept beside them; unlike Keras's own they stay there when a fit ends, since
    a phase may take two (`callbacks.Averaged` looks at them).

    With `layer_decay` the learning rate of each block of `model` is that of the block above times this factor, the
    head's being the phase's own (arXiv:1801.06146 and 2106.08254).

    With float16 the loss is scaled (arXiv:1710.03740), and clipping works on the unscaled gradients. Keras does so by
    itself only for models whose own policy is float16; here it is the layers'.
    """

    def plain(share: float, clip: float) -> keras.optimizers.Optimizer:
        rate = schedule(phase, steps_per_epoch, share) if curve is None else curve(share)
        made = optimizers.optimizer(name, rate, clipnorm=clip or None, ema=ema, **numbers)
        if ema is not None:
            made.finalize_variable_values = lambda variables: None
        return made

    if layer_decay is None:
        made = plain(1.0, clipnorm)
    else:
        by_path = keras.optimizers.OptimizerMap(plain(1.0, 0.0))
        for depth, names in enumerate(blocks(model)):
            inner = plain(layer_decay**depth, 0.0)
            for weight in (weight for name in names - {"head"} for weight in _trained(model, name)):
                by_path[weight.path] = inner
        made = ClippedMultiOptimizer(by_path, clipnorm)
    return keras.optimizers.LossScaleOptimizer(made) if precision == "float16" else made


class ClippedMultiOptimizer(keras.optimizers.MultiOptimizer):
    """Several optimizers whose gradients are clipped by their norm over all of them; 0 leaves them as they are.

    Each inner optimizer's own `global_clipnorm` would see its own gradients alone.
    """

    def __init__(self, optimizer_map: keras.optimizers.OptimizerMap, global_norm: float):
        super().__init__(optimizer_map)
        self._global_norm = global_norm

    def apply(self, grads: list, trainable_variables: list | None = None) -> None:
        """Clip, then hand each variable's gradient to its optimizer."""
        if self._global_norm:
            norm = keras.ops.sqrt(sum(keras.ops.sum(keras.ops.square(grad)) for grad in grads))
            share = self._global_norm / keras.ops.maximum(norm, self._global_norm)
            grads = [grad * share for grad in grads]
        super().apply(grads, trainable_variables)


def learning_rate(made: keras.optimizers.Optimizer) -> float:
    """The optimizer's learning rate now; the largest of several (the head's)."""
    return max(float(each.learning_rate) for each in inner_optimizers(made))


def highest_rate(made: keras.optimizers.Optimizer) -> float:
    """The highest learning rate so far, which after a warm-up or near the end of a schedule is not that of now."""
    return max(_highest(each) for each in inner_optimizers(made))


def _highest(made: keras.optimizers.Optimizer) -> float:
    rate = made._learning_rate
    if not isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
        return float(made.learning_rate)
    steps = np.linspace(0, int(made._iterations), 100, dtype=int)
    return max(float(rate(int(step))) for step in np.unique(steps))


def inner_optimizers(made: keras.optimizers.Optimizer) -> list[keras.optimizers.Optimizer]:
    """Those that have a learning rate of their own: the optimizer itself, or what it is made of."""
    made = getattr(made, "inner_optimizer", made)
    return list(getattr(made, "optimizers", [made]))


def _trained(model: keras.Model, name: str) -> list[keras.Variable]:
    """The trainable weights of a layer of the model; of an operation without weights, none."""
    found = [layer for layer in model.layers if layer.name == name]
    return [weight for layer in found for weight in layer.trainable_weights]
