"""Optimizers by name, all of them Keras's own.

What Keras 3.15.1 does with two options that it has for all of them, found by running it on TensorFlow and JAX:

`gradient_accumulation_steps=k` (here `accumulate`): gradients of k batches are averaged, and only with the k-th are
they clipped, the weights decayed and moved; to rounding, that is one step on a batch k times as large. A schedule is
asked at each batch, not at each update. `iterations` counts updates, `_iterations` batches. What is left of an
incomplete k at the end of an epoch goes on in the next one, and at the end of training is lost. Inside
LossScaleOptimizer a batch whose gradients are not finite is skipped and not counted; inside MultiOptimizer each
optimizer accumulates for itself, so a norm over all of them (`phases.ClippedMultiOptimizer`) is that of a batch, not
of the average.

`use_ema` (here `ema`): beside the weights an average of them is kept, from the first update on and at each *batch*;
so with accumulation a momentum of m acts k times an update, which `optimizer` takes back. The model is trained, and
validated, with its own weights; at the end of `fit`, also one that `stop_training` ended, the averages overwrite
them. The averages are among `optimizer.variables`, each inner optimizer's own inside MultiOptimizer, and
LossScaleOptimizer changes nothing. Moving statistics of BatchNormalization are not averaged.
`keras.callbacks.SwapEMAWeights` puts the averages in for each validation; on TensorFlow it swaps by additions, after
which the weights differ in their last bit.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
from keras import optimizers as keras_optimizers

from kerastk.errors import RecipeError
from kerastk.training.schedules import Number

# Parts of a variable's name: decay spares biases and the scales of normalisation.
UNDECAYED = ("bias", "gamma", "beta")
_NEARLY_1 = 0.999999


@dataclass(frozen=True, kw_only=True)
class Kind:
    """An optimizer: how it is made, its numbers, and the learning rate that does about what 1 does for AdamW.

    Weight decay acts times the learning rate, so divide it by `rate_scale` where it is to stay as strong.
    """

    make: Callable[..., keras.Optimizer]
    numbers: dict[str, Number]
    rate_scale: float
    source: str


def optimizer(
    name: str,
    rate: float | keras_optimizers.schedules.LearningRateSchedule,
    *,
    momentum: float | None = None,
    nesterov: bool | None = None,
    rho: float | None = None,
    beta_1: float | None = None,
    beta_2: float | None = None,
    epsilon: float | None = None,
    weight_decay: float | None = None,
    clipnorm: float | None = None,
    accumulate: int = 1,
    ema: float | None = None,
    adamw_layers: Sequence[str] = ("head",),
) -> keras.Optimizer:
    """The optimizer of this name at a learning rate or schedule; None means its default in `OPTIMIZERS`.

    `weight_decay` is decoupled (arXiv:1711.05101) and spares biases and the scales of normalisation; Adam has none,
    and is AdamW with it. `clipnorm` bounds the norm of the gradients over all weights. The gradients of `accumulate`
    batches make one update. `ema` is the momentum per update of averaged weights, which replace the model's when
    `fit` ends.

    Muon is for matrices alone. Keras gives AdamW to every other weight, all kernels of convolutions (1x1 and depthwise
    too, which Muon's authors flatten) among them, to embeddings, and here to the layers `adamw_layers`. Of the bases
    only ConvNeXt has matrices below its head (93 % of its weights): elsewhere Muon is AdamW.

    Raises:
        RecipeError: no optimizer of this name, a number that it does not take, or one out of range.

    >>> optimizer("sgd", 0.01, momentum=0.9, nesterov=True).nesterov
    True
    """
    if name not in OPTIMIZERS:
        raise RecipeError(f"optimizer must be one of {', '.join(OPTIMIZERS)}; got {name!r}.")
    kind = OPTIMIZERS[name]
    given = {
        "momentum": momentum, "nesterov": nesterov, "rho": rho, "beta_1": beta_1, "beta_2": beta_2, "epsilon": epsilon,
        "weight_decay": weight_decay,
    }  # fmt: skip
    for key, value in given.items():
        if value is not None and key not in kind.numbers:
            others = [other for other in OPTIMIZERS if key in OPTIMIZERS[other].numbers]
            raise RecipeError(
                f"{name} takes no {key}; it takes {', '.join(kind.numbers)}. {key} is taken by {', '.join(others)}."
            )
    settled = {key: _settled(f"{key} of {name}", given[key], number) for key, number in kind.numbers.items()}
    if settled.get("nesterov") and not settled["momentum"]:
        raise RecipeError(f"nesterov is a kind of momentum; give {name} a momentum of more than 0.")
    if isinstance(rate, int | float) and not 0 < rate < float("inf"):
        raise RecipeError(f"the learning rate must be more than 0; got {rate}.")
    if accumulate < 1 or accumulate != int(accumulate):
        raise RecipeError(f"accumulate must be a whole number of batches from 1; got {accumulate}.")
    common = {
        "global_clipnorm": None if clipnorm is None else _settled("clipnorm", clipnorm, Number(1.0, 1e-6, 1e6)),
        "gradient_accumulation_steps": int(accumulate) if accumulate > 1 else None,
    }
    if ema is not None:
        momentum = _settled("ema", ema, Number(0.99, 0.0, _NEARLY_1))
        # Keras averages at each batch, also where nothing moved.
        common |= {"use_ema": True, "ema_momentum": momentum ** (1 / accumulate)}
    if name == "muon":
        # A keyword alone would be found in multi_head_attention too.
        common["exclude_layers"] = [f"(^|/){layer}/" for layer in adamw_layers]
    made = kind.make(float(rate) if isinstance(rate, int) else rate, **settled, **common)
    made.exclude_from_weight_decay(var_names=list(UNDECAYED))
    return made


def _settled(shown: str, given: Any, number: Number) -> Any:
    """The number that was given, or its default; RecipeError where it is out of range."""
    if given is None:
        return number.default
    if not isinstance(given, int | float) or not number.low <= given <= number.high:
        raise RecipeError(f"{shown} must be from {number.low:g} to {number.high:g}; got {given!r}.")
    return type(number.default)(given)


def _muon(rate: Any, *, beta_1: float, beta_2: float, weight_decay: float, **given: Any) -> keras.Optimizer:
    adam = {"adam_beta_1": beta_1, "adam_beta_2": beta_2, "adam_weight_decay": weight_decay}
    return keras_optimizers.Muon(rate, weight_decay=weight_decay, **adam, **given)


_MOMENTUM, _NESTEROV = Number(0.9, 0.0, _NEARLY_1), Number(False, 0, 1)
_BETA_1, _BETA_2, _RHO = Number(0.9, 0.0, _NEARLY_1), Number(0.999, 0.0, _NEARLY_1), Number(0.9, 0.0, _NEARLY_1)
_EPSILON, _DECAY = Number(1e-7, 1e-12, 1.0), Number(0.0, 0.0, 10.0)
_ADAM = {"beta_1": _BETA_1, "beta_2": _BETA_2, "epsilon": _EPSILON}

# Rates beside AdamW's are rules of thumb: where a source gives one it is taken against AdamW's usual 1e-3.
OPTIMIZERS = {
    "sgd": Kind(
        make=keras_optimizers.SGD,
        numbers={"momentum": _MOMENTUM, "nesterov": _NESTEROV, "weight_decay": _DECAY},
        rate_scale=30.0, source="Sutskever et al. 2013, PMLR 28(3):1139",
    ),
    "rmsprop": Kind(
        make=keras_optimizers.RMSprop,
        numbers={"rho": _RHO, "momentum": Number(0.0, 0.0, _NEARLY_1), "epsilon": _EPSILON, "weight_decay": _DECAY},
        rate_scale=1.0, source="Tieleman and Hinton 2012, lecture 6.5 of Neural Networks for Machine Learning",
    ),
    "adagrad": Kind(
        make=keras_optimizers.Adagrad, numbers={"epsilon": _EPSILON, "weight_decay": _DECAY},
        rate_scale=10.0, source="Duchi et al. 2011, JMLR 12:2121",
    ),
    "adadelta": Kind(
        make=keras_optimizers.Adadelta,
        numbers={"rho": Number(0.95, 0.0, _NEARLY_1), "epsilon": _EPSILON, "weight_decay": _DECAY},
        rate_scale=1000.0, source="Zeiler 2012, arXiv:1212.5701",
    ),
    "adam": Kind(
        make=keras_optimizers.Adam, numbers=_ADAM, rate_scale=1.0, source="Kingma and Ba 2014, arXiv:1412.6980",
    ),
    "nadam": Kind(
        make=keras_optimizers.Nadam, numbers={**_ADAM, "weight_decay": _DECAY},
        rate_scale=1.0, source="Dozat 2016, ICLR workshop, openreview OM0jvwB8jIp57ZJjtNEZ",
    ),
    "adamw": Kind(
        make=keras_optimizers.AdamW, numbers={**_ADAM, "weight_decay": _DECAY},
        rate_scale=1.0, source="Loshchilov and Hutter 2017, arXiv:1711.05101",
    ),
    "lion": Kind(
        make=keras_optimizers.Lion,
        numbers={
            "beta_1": Number(0.9, 1e-6, _NEARLY_1), "beta_2": Number(0.99, 0.0, _NEARLY_1), "weight_decay": _DECAY,
        },
        rate_scale=0.2, source="Chen et al. 2023, arXiv:2302.06675",
    ),
    "muon": Kind(
        make=_muon,
        numbers={
            "momentum": Number(0.95, 0.0, _NEARLY_1), "nesterov": Number(True, 0, 1), **_ADAM, "weight_decay": _DECAY,
        },
        rate_scale=1.0, source="Jordan et al. 2024; with AdamW's rate by Liu et al. 2025, arXiv:2502.16982",
    ),
}  # fmt: skip
