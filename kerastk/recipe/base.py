"""What the recipes of all tasks share: their fields, and how a value is checked."""

import dataclasses
import functools
import math
import os
import re
import types
import typing
from dataclasses import dataclass
from typing import Any, ClassVar

from kerastk.errors import RecipeError
from kerastk.notation import (
    OPTIMIZERS,
    PLATEAU_PATIENCE,
    SCHEDULES,
    profile_steps,
    schedule_numbers,
    seconds,
    shown,
    split_fractions,
)

GROUPS = ("data", "network", "training", "output")
# What None stands for where it is needed before the rest can be resolved.
SPLIT = "70/15/15"


def option(
    default: Any,
    help: str,
    *,
    group: str,
    auto: str = "",
    unit: str = "",
    low: float | None = None,
    high: float | None = None,
    below: float | None = None,
    choices: tuple[str, ...] = (),
    common: bool = False,
    several: bool = False,
) -> Any:
    """A recipe's field. `auto` says in words what None becomes; `below` is an exclusive upper bound.

    With `several` a list of texts is taken too, as one text with commas between.
    """
    metadata = {
        "help": help, "group": group, "auto": auto, "unit": unit, "low": low, "high": high, "below": below,
        "choices": choices, "common": common, "several": several,
    }  # fmt: skip
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The fields that all tasks share. Use a task's own class, such as `Finetune`."""

    task: ClassVar[str] = ""

    data: str | None = option(
        None,
        "What to learn from: a folder of class folders (or of train/, val/ and test/), a .zip or .tar of one, "
        "a CSV or Parquet file with path,label[,split], or tfds:NAME.",
        group="data", common=True,
    )  # fmt: skip
    split: str | None = option(
        None, "Percent of the photos for training, validation and, if wanted, test.",
        group="data", auto=SPLIT, common=True,
    )  # fmt: skip
    split_seed: int | None = option(
        None, "Another number gives another split.", group="data", auto="0", low=0, high=2**32 - 1
    )
    epochs: int | None = option(
        None, "Passes over the training data in the main phase.", group="training",
        auto="16; 30 with --weights none", unit="epochs", low=1, high=100_000, common=True,
    )  # fmt: skip
    batch_size: int = option(32, "Photos a step.", group="training", low=1, high=65_536, common=True)
    learning_rate: float | str | None = option(
        None, "Peak learning rate of the main phase; auto finds one (`kerastk lr-find`).", group="training",
        auto="0.0003 for one stage, 0.0001 for more; 0.001 with --weights none", low=1e-9, high=10, common=True,
    )  # fmt: skip
    schedule: str | None = option(
        None, "The learning rate's course after the warm-up: " + ", ".join(SCHEDULES) + "; with numbers of its own, "
        "like step:factor=0.2:at=0.6/0.8.", group="training", auto="cosine",
    )  # fmt: skip
    warmup_epochs: float | None = option(
        None, "Linear rise of the learning rate at the start of the main phase.", group="training",
        auto="1, or a tenth of a shorter phase", unit="epochs", low=0, high=1000,
    )  # fmt: skip
    optimizer: str | None = option(
        None, "What turns gradients into steps.", group="training", choices=tuple(OPTIMIZERS), auto="adamw"
    )
    momentum: float | None = option(
        None, "Momentum of sgd, rmsprop and muon.", group="training", auto="0.9; 0 for rmsprop, 0.95 for muon",
        low=0, below=1,
    )  # fmt: skip
    nesterov: bool | None = option(None, "Nesterov's momentum, of sgd and muon.", group="training", auto="on for muon")
    accumulate: int | None = option(
        None, "Batches whose gradients make one step: a batch size that the memory has no room for. It goes over the "
        "ends of epochs; what is left at the end of a phase makes no step.",
        group="training", auto="1", low=1, high=10_000,
    )  # fmt: skip
    ema: float | None = option(
        None, "Judge and keep an average of the weights over the steps, with this momentum, like 0.99.",
        group="training", auto="no average", low=0, below=1,
    )  # fmt: skip
    weight_decay: float | None = option(
        None, "Decoupled weight decay of all optimizers but adam; it spares biases and normalisation.",
        group="training", auto="0.05, in proportion to the optimizer's usual learning rate", low=0, high=10,
    )  # fmt: skip
    clipnorm: float | None = option(
        None, "Largest global norm of the gradients; 0 leaves them as they are.",
        group="training", auto="1", low=0, high=1e6,
    )  # fmt: skip
    l1: float | None = option(
        None, "Penalty on the sum of the trained kernels' absolute values.", group="training", auto="0", low=0, high=10
    )
    l2: float | None = option(
        None, "Penalty on the sum of the trained kernels' squares; with l1, the elastic net.", group="training",
        auto="0", low=0, high=10,
    )  # fmt: skip
    epoch_parts: int | None = option(
        None, "Checkpoints an epoch, evenly spaced; more than one pays where epochs are long.", group="training",
        auto="1", low=1, high=10_000,
    )  # fmt: skip
    patience: int | None = option(
        None, "Stop a phase after so many epochs without a better validation cross-entropy.",
        group="training", auto="5; with --weights none 15, or half of the epochs where that is more", unit="epochs",
        low=1, high=100_000,
    )  # fmt: skip
    min_delta: float | None = option(
        None, "What counts as better: a validation cross-entropy lower by more than this.", group="training", auto="0",
        low=0, high=100,
    )  # fmt: skip
    start_from_epoch: int | None = option(
        None, "Epochs of a phase before the patience counts.", group="training", auto="0", unit="epochs",
        low=0, high=100_000,
    )  # fmt: skip
    time: str | None = option(
        None, "Stop training so that the whole run, its test included, takes no longer: 90s, 10m, 1h30m. The time "
        "before an interruption counts.", group="training", auto="no limit",
    )  # fmt: skip
    on_nan: str | None = option(
        None, "What to do when the loss is no longer a number: stop with the best model before that, or roll back to "
        "the last checkpoint at half the learning rate, at most three times.", group="training",
        choices=("stop", "rollback"), auto="stop",
    )  # fmt: skip
    precision: str = option(
        "auto", "Arithmetic of the layers. auto: bfloat16 on a GPU that has it, float16 on an older one, float32 on "
        "a CPU.", group="training", choices=("auto", "float32", "bfloat16", "float16"),
    )  # fmt: skip
    device: str = option("auto", "Where to compute: auto, cpu, gpu or gpu:N.", group="training")
    seed: int = option(
        0, "Order, augmentation, first weights and dropout follow from it.", group="training", low=0, high=2**32 - 1
    )
    deterministic: bool = option(
        False, "Equal seeds give equal weights, bit for bit, on one machine; slower on a GPU.", group="training"
    )
    name: str | None = option(
        None, "The run's name; must be new.", group="output", auto="<data>-<base>-<n>", common=True
    )
    runs: str = option("runs", "The folder of runs.", group="output")
    keep_last: bool = option(
        False, "Keep the model of the last epoch too, as last.keras beside the best one.", group="output"
    )
    histograms: bool = option(
        False, "Show TensorBoard the distribution of each trained weight after each epoch.", group="output"
    )
    gradient_norms: bool = option(
        False, "Show TensorBoard the gradients' norms, of all and of each stage, and say where they vanish or explode.",
        group="output",
    )  # fmt: skip
    profile: str | None = option(
        None, "Trace these of the run's steps, like 10:20, for TensorBoard's profiler.", group="output", auto="none",
        unit="from:to",
    )  # fmt: skip

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, checked(field, kinds_of(type(self), field), getattr(self, field.name)))
        if self.split is not None:
            split_fractions(self.split)
        if isinstance(self.learning_rate, str) and self.learning_rate != "auto":
            raise RecipeError(f"learning_rate must be a number or auto; got {shown(self.learning_rate)}.")
        if self.time is not None:
            seconds(self.time)
        if self.schedule is not None:
            name, numbers = schedule_numbers(self.schedule)
            patience = numbers.get("patience", PLATEAU_PATIENCE) if name == "plateau" else 0
            if self.patience is not None and patience >= self.patience:
                raise RecipeError(f"schedule {self.schedule} lowers nothing before patience {self.patience} ends it.")
        if self.profile is not None:
            profile_steps(self.profile)
        for name in ("momentum", "nesterov", "weight_decay"):
            if getattr(self, name) is not None and name not in OPTIMIZERS[self.optimizer or "adamw"][1]:
                takers = [each for each, (_, numbers) in OPTIMIZERS.items() if name in numbers]
                raise RecipeError(f"the optimizer {self.optimizer or 'adamw'} takes no {name}; {', '.join(takers)} do.")
        if self.nesterov and self.momentum == 0:
            raise RecipeError("nesterov is a kind of momentum; momentum must be more than 0.")
        kind, _, number = self.device.partition(":")
        if kind not in ("auto", "cpu", "gpu") or (number and not (kind == "gpu" and number.isdecimal())):
            raise RecipeError(f"device must be auto, cpu, gpu or gpu:N; got {shown(self.device)}.")
        if self.device == "cpu" and self.precision == "float16":
            raise RecipeError("precision float16 is 4 times slower than float32 on a CPU; use float32 or bfloat16.")
        if self.name is not None and (self.name in ("", ".", "..") or "/" in self.name or os.sep in self.name):
            raise RecipeError(f"name must be a folder's name without slashes; got {shown(self.name)}.")
        if self.name is not None and len(self.name.encode("utf-8", "surrogatepass")) > 255:
            raise RecipeError(f"name must be at most 255 bytes; got {shown(self.name)}.")

    def optimisation(self, *, patience: int) -> dict[str, Any]:
        """The automatic values of what is trained by steps; `patience` is the task's."""
        scale, numbers = OPTIMIZERS[self.optimizer or "adamw"]
        values = {
            "epoch_parts": given_or(self.epoch_parts, 1),
            "patience": given_or(self.patience, patience),
            "min_delta": given_or(self.min_delta, 0.0),
            "start_from_epoch": given_or(self.start_from_epoch, 0),
            "l1": given_or(self.l1, 0.0),
            "l2": given_or(self.l2, 0.0),
            "schedule": given_or(self.schedule, "cosine"),
            "optimizer": given_or(self.optimizer, "adamw"),
            "on_nan": given_or(self.on_nan, "stop"),
            "accumulate": given_or(self.accumulate, 1),
            "clipnorm": given_or(self.clipnorm, 1.0),
        }
        if "weight_decay" in numbers:
            values["weight_decay"] = given_or(self.weight_decay, 0.05 / scale)
        return values

    def refuse(self, names: tuple[str, ...], reason: str) -> None:
        """Refuse, with a RecipeError, fields that are given and would not be used."""
        for name in names:
            # Of what is on or off, on is given.
            if getattr(self, name) is not None and getattr(self, name) is not False:
                raise RecipeError(f"{name} has no effect {reason}; leave it out.")


def fresh_patience(epochs: int) -> int:
    """The automatic patience from random weights, whose validation swings for long while the learning rate is high."""
    return max(15, epochs // 2)


def given_or(value: Any, automatic: Any) -> Any:
    """What was given; where nothing was, the automatic value."""
    return automatic if value is None else value


def kinds_of(owner: type[Recipe], field: dataclasses.Field) -> tuple[type, ...]:
    """The types a field takes, without None."""
    hint = _hints(owner)[field.name]
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    return tuple(kind for kind in kinds if kind is not type(None))


@functools.cache
def _hints(owner: type[Recipe]) -> dict[str, Any]:
    return typing.get_type_hints(owner)


def checked(field: dataclasses.Field, kinds: tuple[type, ...], value: Any) -> Any:
    """The value in the field's own type, within its range; anything else is an error that says what would work."""
    if value is None:
        if field.default is None:
            return None
        raise RecipeError(f"{field.name} must be given; leave the key out for its default, {field.default!r}.")
    limits = field.metadata
    if isinstance(value, os.PathLike) and str in kinds:
        value = os.fspath(value)
    if limits["several"] and isinstance(value, list | tuple) and all(isinstance(each, str) for each in value):
        value = ",".join(value)
    if kinds == (float,) and isinstance(value, str) and re.fullmatch(r"\d{1,9}(\.\d{1,9})?%", value):
        value = float(value[:-1]) / 100
    if float in kinds and isinstance(value, int) and not isinstance(value, bool):
        # What is beyond all floats is beyond all ranges, too.
        value = float(value) if abs(value) < 2**1000 else math.inf * (1 if value > 0 else -1)
    if not any(type(value) is kind for kind in kinds):
        wanted = " or ".join({int: "a whole number", float: "a number", str: "text", bool: "true or false"}[kind]
                             for kind in kinds)  # fmt: skip
        raise RecipeError(f"{field.name} must be {wanted}; got {shown(value)}.")
    if limits["choices"] and value not in limits["choices"]:
        raise RecipeError(f"{field.name} must be one of {', '.join(limits['choices'])}; got {shown(value)}.")
    if isinstance(value, int | float) and not isinstance(value, bool):
        low, high, below = limits["low"], limits["high"], limits["below"]
        if (isinstance(value, float) and not math.isfinite(value)) or (low is not None and value < low):
            raise RecipeError(f"{field.name} must be {_range(limits)}; got {shown(value)}.")
        if (high is not None and value > high) or (below is not None and value >= below):
            raise RecipeError(f"{field.name} must be {_range(limits)}; got {shown(value)}.")
    if isinstance(value, str) and "\0" in value:
        raise RecipeError(f"{field.name} must not hold a NUL character.")
    return value


def _range(limits: Any) -> str:
    upper = f"below {limits['below']:g}" if limits["below"] is not None else f"at most {limits['high']:g}"
    return f"at least {limits['low']:g} and {upper}" + (f" {limits['unit']}" if limits["unit"] else "")
