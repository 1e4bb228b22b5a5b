"""Learning-rate schedules by name, each over a whole training and in steps of the optimizer."""

import difflib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops
from keras.optimizers import schedules as keras_schedules

from kerastk.errors import RecipeError

Curve = keras_schedules.LearningRateSchedule


@dataclass(frozen=True)
class Number:
    """A number of a schedule: its default, and the range that it may have; `at` holds several that rise."""

    default: float | tuple[float, ...]
    low: float
    high: float
    whole: bool = False


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How a schedule is made of (peak, steps behind the warm-up, its numbers), and what its row in the docs says.

    In `formula` t runs from 0 at the end of the warm-up to 1 at the end; the peak is left out.
    """

    make: Callable[..., Curve]
    numbers: dict[str, Number]
    formula: str
    use: str
    source: str


def schedule(name: str, *, peak: float, total_steps: int, warmup_steps: int = 0, **numbers: Any) -> Curve:
    """The schedule of this name: optimizer steps from 0 -> learning rate, a float32 scalar.

    The learning rate rises linearly from 0 for `warmup_steps` (Goyal et al. 2017, arXiv:1706.02677); what the schedule
    does it does over the rest of `total_steps`. `peak` is its highest value. `numbers` are the schedule's own
    (`SCHEDULES`), in shares of `peak` and of the steps behind the warm-up; beyond the last step nothing rises again.
    With gradient accumulation Keras counts batches here, not updates.

    Raises:
        RecipeError: no schedule of this name, a number that it does not have, or one out of range.

    >>> float(schedule("polynomial", peak=0.1, total_steps=110, warmup_steps=10)(60))
    0.05
    """
    if name not in SCHEDULES:
        raise RecipeError(f"schedule must be one of {', '.join(SCHEDULES)}; got {name!r}.")
    row = SCHEDULES[name]
    for key in numbers:
        if key not in row.numbers:
            has = f"it has {', '.join(row.numbers)}" if row.numbers else "it has none"
            near = difflib.get_close_matches(key, row.numbers, 1)
            raise RecipeError(
                f"the schedule {name} has no number {key}; {f'did you mean {near[0]}?' if near else has}."
            )
    if not 0 < peak < math.inf:
        raise RecipeError(f"the learning rate must be more than 0; got {peak}.")
    if not 0 <= warmup_steps < total_steps:
        raise RecipeError(f"the warm-up must end before the last of {total_steps} steps; got {warmup_steps}.")
    settled = {key: _checked(f"{key} of the schedule {name}", number, numbers) for key, number in row.numbers.items()}
    steps = total_steps - warmup_steps
    if name == "cosine":
        # Keras's own warm-up: runs of before are to go on bit for bit.
        return _cosine(peak, steps, warmup_steps, **settled)
    # At its very end a further cycle would begin.
    last = steps - 1 if name == "restarts" else steps
    return Warmed(row.make(peak, steps, **settled), warmup_steps=warmup_steps, last=last)


def _checked(shown: str, number: Number, given: dict[str, Any]) -> Any:
    """The number that was given, or its default; RecipeError where it is out of range."""
    value = given.get(shown.split()[0], number.default)
    several = isinstance(number.default, tuple)
    parts = tuple(value) if several and isinstance(value, tuple | list) else (value,)
    fits = all(isinstance(part, int | float) and number.low <= part <= number.high for part in parts)
    rises = list(parts) == sorted(set(parts)) if fits else False
    if not rises or (number.whole and value != int(value)):
        kind = "whole, " if number.whole else "rising numbers, " if several else ""
        raise RecipeError(f"{shown} must be {kind}from {number.low:g} to {number.high:g}; got {value!r}.")
    return parts if several else value


@keras.saving.register_keras_serializable(package="kerastk")
class Warmed(Curve):
    """A schedule behind a linear warm-up, held where it is at step `last` of its own.

    During the first `warmup_steps` it is the schedule's own first value, times step / warmup_steps.
    """

    def __init__(self, after: Curve | dict[str, Any], *, warmup_steps: int, last: int):
        self.after = keras_schedules.deserialize(after) if isinstance(after, dict) else after
        self.warmup_steps, self.last = warmup_steps, last

    def __call__(self, step: Any) -> keras.KerasTensor:
        """The learning rate at a step."""
        step = ops.cast(step, "float32")
        # Rounding takes PolynomialDecay to -2e-9 at its end when JAX compiles it.
        rate = ops.maximum(self.after(ops.clip(step - self.warmup_steps, 0.0, float(self.last))), 0.0)
        return rate * ops.minimum(step / self.warmup_steps, 1.0) if self.warmup_steps else rate

    def get_config(self) -> dict[str, Any]:
        """What the constructor takes."""
        after = keras_schedules.serialize(self.after)
        return {"after": after, "warmup_steps": self.warmup_steps, "last": self.last}


@keras.saving.register_keras_serializable(package="kerastk")
class OneCycle(Curve):
    """Linear from `start` to `peak`, back as slowly, and down to `final` in what is left of `steps`.

    `rise` steps go up and as many down. Smith and Topin 2017, arXiv:1708.07120; the momentum is left as it is.
    """

    def __init__(self, *, start: float, peak: float, final: float, rise: float, steps: float):
        self.start, self.peak, self.final, self.rise, self.steps = start, peak, final, rise, steps

    def __call__(self, step: Any) -> keras.KerasTensor:
        """The learning rate at a step."""
        step = ops.cast(step, "float32")
        cycle = self.start + (self.peak - self.start) * (1 - ops.abs(step / self.rise - 1))
        left = max(self.steps - 2 * self.rise, 1e-6)
        share = ops.clip((step - 2 * self.rise) / left, 0.0, 1.0)
        return ops.where(step <= 2 * self.rise, cycle, self.start + (self.final - self.start) * share)

    def get_config(self) -> dict[str, Any]:
        """What the constructor takes."""
        names = ("start", "peak", "final", "rise", "steps")
        return {name: getattr(self, name) for name in names}


def _cosine(peak: float, steps: int, warmup_steps: int, *, final: float) -> Curve:
    if warmup_steps == 0:
        return keras_schedules.CosineDecay(peak, steps, alpha=final)
    return keras_schedules.CosineDecay(0.0, steps, alpha=final, warmup_target=peak, warmup_steps=warmup_steps)


def _constant(peak: float, steps: int) -> Curve:
    return keras_schedules.ExponentialDecay(peak, steps, 1.0)


def _step(peak: float, steps: int, *, factor: float, at: tuple[float, ...]) -> Curve:
    # Keras keeps the old value at the boundary itself; rounded, or 0.1 * 140 would end a step later.
    boundaries = [math.ceil(round(share * steps, 6)) - 1 for share in at]
    return keras_schedules.PiecewiseConstantDecay(boundaries, [peak * factor**power for power in range(len(at) + 1)])


def _exponential(peak: float, steps: int, *, final: float) -> Curve:
    return keras_schedules.ExponentialDecay(peak, steps, final)


def _inverse_time(peak: float, steps: int, *, final: float) -> Curve:
    return keras_schedules.InverseTimeDecay(peak, steps, 1 / final - 1)


def _restarts(peak: float, steps: int, *, cycles: int, growth: float, shrink: float) -> Curve:
    first = steps / sum(growth**cycle for cycle in range(int(cycles)))
    return keras_schedules.CosineDecayRestarts(peak, first, t_mul=float(growth), m_mul=shrink)


def _one_cycle(peak: float, steps: int, *, start: float, rise: float, final: float) -> Curve:
    return OneCycle(start=start * peak, peak=peak, final=final * peak, rise=rise * steps, steps=steps)


def _polynomial(peak: float, steps: int, *, power: float, final: float) -> Curve:
    return keras_schedules.PolynomialDecay(peak, steps, end_learning_rate=final * peak, power=power)


SCHEDULES = {
    "constant": Schedule(
        make=_constant, numbers={}, formula="1", source="",
        use="short trainings, and to compare learning rates",
    ),
    "step": Schedule(
        make=_step, numbers={"factor": Number(0.1, 1e-6, 1.0), "at": Number((0.5, 0.75), 0.01, 0.99)},
        formula="factor^n behind the n-th share of `at`", source="He et al. 2015, arXiv:1512.03385, section 4.2",
        use="with SGD and many epochs; a tenth at 1/2 and 3/4, as ResNets on CIFAR-10 are trained",
    ),
    "exponential": Schedule(
        make=_exponential, numbers={"final": Number(0.01, 1e-6, 1.0)},
        formula="final^t", source="Tan and Le 2019, arXiv:1905.11946",
        use="with RMSProp, as EfficientNets are trained",
    ),
    "inverse_time": Schedule(
        make=_inverse_time, numbers={"final": Number(0.1, 1e-6, 1.0)},
        formula="1 / (1 + (1/final - 1) t)", source="Robbins and Monro 1951, doi:10.1214/aoms/1177729586",
        use="convex problems, as a head alone is one: quick at first, with a long tail",
    ),
    "cosine": Schedule(
        make=_cosine, numbers={"final": Number(0.0, 0.0, 1.0)},
        formula="final + (1 - final) (1 + cos πt) / 2", source="Loshchilov and Hutter 2016, arXiv:1608.03983",
        use="what kerastk takes by default: little to set, and low for long at the end",
    ),
    "restarts": Schedule(
        make=_restarts,
        numbers={
            "cycles": Number(3, 1, 20, whole=True), "growth": Number(2.0, 1.0, 10.0), "shrink": Number(1.0, 0.01, 1.0),
        },
        formula="shrink^n (1 + cos πu) / 2; cycle n is `growth` times as long as the one before, u its own share",
        source="Loshchilov and Hutter 2016, arXiv:1608.03983",
        use="when the training may be stopped early, or each cycle's end is kept for an ensemble",
    ),
    "one_cycle": Schedule(
        make=_one_cycle,
        numbers={"start": Number(0.1, 1e-6, 1.0), "rise": Number(0.45, 0.01, 0.5), "final": Number(0.001, 0.0, 1.0)},
        formula="linear: start at 0, 1 at `rise`, start at 2 `rise`, final at 1",
        source="Smith and Topin 2017, arXiv:1708.07120",
        use="few epochs from random weights, its peak near the highest rate that does not diverge; it warms up itself",
    ),
    "polynomial": Schedule(
        make=_polynomial, numbers={"power": Number(1.0, 0.1, 10.0), "final": Number(0.0, 0.0, 1.0)},
        formula="final + (1 - final) (1 - t)^power", source="Chen et al. 2016, arXiv:1606.00915",
        use="linear to zero with power 1, as transformers are fine-tuned; 0.9 for segmentation",
    ),
}  # fmt: skip
