"""Gradients checked by numbers: of a Keras layer or loss, on any backend, in float64.

from kerastk.testing import check_gradients
check_gradients(MyLayer(8), np.random.default_rng(0).normal(size=(2, 5)))
"""

import contextlib
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from kerastk.errors import GradientError, RecipeError

_FLOATS = ("float16", "bfloat16", "float32", "float64")


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The largest relative error of a check, where it is, and both numbers there; `compared` counts all numbers."""

    error: float
    place: str
    automatic: float
    numeric: float
    compared: int


def check_gradients(
    layer_or_loss: Any,
    inputs: Any,
    *,
    training: bool = False,
    tolerance: float = 1e-5,
    step: float = 1e-5,
    most: int = 100,
    seed: int = 0,
) -> Comparison:
    """Compare the backend's gradients with central differences (f(x + step) - f(x - step)) / 2 step, in float64.

    A layer is called with `inputs`: an array, a list of arrays as its one argument, or a tuple of several arguments.
    What it gives is made one number by random weights, whose gradients by all floating-point inputs and trainable
    variables are compared; an integer input has none. A loss (a `keras.losses.Loss` or a function) is called with
    `inputs = (y_true, y_pred)`, and its gradient by `y_pred` is compared. Of an array with more than `most` elements
    that many are drawn, by `seed`.

    The layer itself is left alone: it is rebuilt from its configuration in float64, with its weights where it has any.
    Random draws and moving statistics start from the same state in each call, so Dropout can be checked with
    `training=True`.

    An error is relative to the larger of both numbers, but to no less than 1e-4 of the largest gradient, of the result,
    or of 1: smaller ones are lost in rounding. At a kink (relu at 0, a tie in a maximum) the difference is the mean of
    both slopes and the automatic gradient one of them: neither is wrong. Choose inputs that are further from it than
    `step`. A layer that computes in float32 somewhere inside (Keras's attention does on JAX) is too coarse and fails.

    Raises:
        GradientError: two numbers differ by more than `tolerance`; it says where.
        RecipeError: it cannot be checked: it cannot be rebuilt, draws numbers that no seed holds, or leaves float64.

    >>> check_gradients(keras.layers.Dense(3), np.ones((2, 4))).error < 1e-5
    True
    """
    import keras
    import numpy as np

    shown = getattr(layer_or_loss, "name", None) or getattr(layer_or_loss, "__name__", type(layer_or_loss).__name__)
    with _float64():
        if isinstance(layer_or_loss, keras.Layer):
            function, points = _of_layer(layer_or_loss, inputs, training, shown)
        else:
            function, points = _of_loss(layer_or_loss, inputs)
        if not points:
            raise RecipeError(f"{shown} has no floating-point input and no trainable variable to check.")
        names, values = list(points), [np.array(each, np.float64) for each in points.values()]
        random = np.random.default_rng(seed)
        scalar = _projected(function, values, random, shown)
        value_of, gradients_of = _compiled(scalar)
        base, gradients = gradients_of(values)
        if not np.isclose(value_of(values), base, rtol=1e-9, atol=1e-9, equal_nan=True):
            raise RecipeError(
                f"{shown} gives another result each time it is called: give its random draws a "
                "keras.random.SeedGenerator of its own, or training=False."
            )
        floor = 1e-4 * max(1.0, abs(base), *(float(np.abs(each).max(initial=0)) for each in gradients))
        worst, compared = None, 0
        for number, name in enumerate(names):
            for place in _places(values[number].shape, most, random):
                found = _compare(value_of, values, number, place, step, gradients[number][place], floor)
                compared += 1
                if worst is None or not found[0] <= worst[0]:
                    worst = (*found, name, place)
    if worst is None:
        raise RecipeError(f"{shown} was given empty arrays: there is no gradient to check.")
    error, automatic, numeric, left, right, name, place = worst
    where = name + (str([int(each) for each in place]) if place else "")
    if not error <= tolerance:
        kink = f" (slopes {left:.9g} to the left and {right:.9g} to the right: a kink?)" * (
            abs(left - right) > 0.01 * max(abs(left), abs(right), floor)
        )
        raise GradientError(
            f"the gradient of {shown} by {where} is {automatic:.9g}, but central differences give {numeric:.9g}{kink}: "
            f"relative error {error:.2g}, tolerance {tolerance:g}."
        )
    return Comparison(error=error, place=where, automatic=automatic, numeric=numeric, compared=compared)


@contextlib.contextmanager
def _float64() -> Iterator[None]:
    """Keras, and JAX beneath it, in float64 by default."""
    import keras
    from keras.src.backend.common import dtypes

    floatx, policy = keras.config.floatx(), keras.config.dtype_policy()
    with contextlib.ExitStack() as stack:
        if keras.backend.backend() == "jax":
            import jax

            stack.enter_context(jax.enable_x64(True))
        # Everywhere but on TensorFlow this table of Keras 3.15 makes float32 of what two float64 give.
        narrowed = dict(dtypes.BIT64_TO_BIT32_DTYPE)
        stack.callback(dtypes.BIT64_TO_BIT32_DTYPE.update, narrowed)
        dtypes.BIT64_TO_BIT32_DTYPE["float64"] = "float64"
        stack.callback(keras.config.set_dtype_policy, policy)
        stack.callback(keras.config.set_floatx, floatx)
        keras.config.set_floatx("float64")
        keras.config.set_dtype_policy("float64")
        yield


def _of_layer(layer: Any, inputs: Any, training: bool, shown: str) -> tuple[Callable, dict[str, Any]]:
    """(what gives the layer's outputs for values of inputs and variables, the given values by name)."""
    import keras
    import numpy as np

    several = isinstance(inputs, tuple)
    structure = list(inputs) if several else [inputs]
    given = [np.asarray(each) for each in keras.tree.flatten(structure)]
    moving = [number for number, each in enumerate(given) if each.dtype.name in _FLOATS]
    new = _rebuilt(layer, shown)

    def arguments(values: list) -> list:
        flat = [each if number not in moving else None for number, each in enumerate(given)]
        for number, value in zip(moving, values, strict=True):
            flat[number] = value
        tensors = [keras.ops.convert_to_tensor(each) for each in flat]
        return keras.tree.pack_sequence_as(structure, tensors)

    takes_training = {"training": training} if "training" in inspect.signature(new.call).parameters else {}
    start = [given[number].astype(np.float64) for number in moving]
    new(*arguments(start), **takes_training)
    if layer.built:
        for ours, theirs in zip(new.variables, layer.variables, strict=True):
            ours.assign(keras.ops.convert_to_numpy(theirs))
    variables = new.trainable_variables
    state = [keras.ops.convert_to_numpy(each) for each in new.non_trainable_variables]

    def function(values: list) -> Any:
        fixed = [keras.ops.convert_to_tensor(each) for each in state]
        arrays, weights = values[: len(moving)], values[len(moving) :]
        outputs, _ = new.stateless_call(weights, fixed, *arguments(arrays), **takes_training)
        return outputs

    names = ["inputs" if len(given) == 1 else f"inputs[{number}]" for number in moving]
    points = dict(zip(names, start, strict=True))
    for variable in variables:
        name = variable.path if variable.path not in points else f"{variable.path} ({len(points)})"
        points[name] = keras.ops.convert_to_numpy(variable)
    return function, points


def _of_loss(loss: Any, inputs: Any) -> tuple[Callable, dict[str, Any]]:
    """(what gives the loss for values of `y_pred`, the given `y_pred` by name)."""
    import keras
    import numpy as np

    if not isinstance(inputs, tuple | list) or len(inputs) != 2:
        raise RecipeError("a loss is checked with inputs=(y_true, y_pred).")
    truth, predicted = np.asarray(inputs[0]), np.asarray(inputs[1])
    if truth.dtype.name in _FLOATS:
        truth = truth.astype(np.float64)
    if isinstance(loss, keras.losses.Loss):
        loss = _rebuilt(loss, loss.name)
    return lambda values: loss(keras.ops.convert_to_tensor(truth), values[0]), {"y_pred": predicted}


def _rebuilt(layer_or_loss: Any, shown: str) -> Any:
    """A new one of the same configuration whose own and inner precision is float64; layers are unbuilt."""
    try:
        new = type(layer_or_loss).from_config(_in_float64(layer_or_loss.get_config()))
    except Exception as error:
        # Whatever a stranger's constructor may raise.
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise RecipeError(
            f"{shown} cannot be rebuilt in float64 from its get_config(), which must hold what its constructor takes: "
            f"{reason}"
        ) from None
    return new


def _in_float64(config: Any) -> Any:
    """The configuration with each floating-point dtype and precision policy, at any depth, replaced by float64."""
    if isinstance(config, list | tuple):
        return type(config)(map(_in_float64, config))
    if not isinstance(config, dict):
        return config
    if str(config.get("class_name")).endswith("DTypePolicy"):
        return "float64"
    new = {key: _in_float64(value) for key, value in config.items()}
    if isinstance(new.get("dtype"), str) and new["dtype"].removeprefix("mixed_") in _FLOATS:
        new["dtype"] = "float64"
    return new


def _projected(function: Callable, values: list, random: Any, shown: str) -> Callable:
    """The sum of all outputs of `function`, each times a random weight, as a function of the same values."""
    import keras

    tensors = [keras.ops.convert_to_tensor(each) for each in values]
    outputs = keras.tree.flatten(function(tensors))
    kinds = [keras.backend.standardize_dtype(each.dtype) for each in outputs]
    if kind := next((kind for kind in kinds if kind in _FLOATS[:-1]), None):
        raise RecipeError(f"{shown} gives {kind} though all it was given is float64: it casts to {kind} by itself.")
    used = [number for number, kind in enumerate(kinds) if kind == "float64"]
    if not used:
        raise RecipeError(f"{shown} gives no floating-point output; it gives {', '.join(kinds) or 'nothing'}.")
    weights = [
        keras.ops.convert_to_tensor(random.normal(size=tuple(outputs[number].shape)), "float64") for number in used
    ]

    def scalar(values: list) -> Any:
        outputs = keras.tree.flatten(function(values))
        parts = [keras.ops.sum(outputs[number] * weight) for number, weight in zip(used, weights, strict=True)]
        return sum(parts[1:], parts[0])

    return scalar


def _compiled(scalar: Callable) -> tuple[Callable[[list], float], Callable[[list], tuple[float, list]]]:
    """The function of tensors as two of arrays: its value; and its value again with its gradients by each of them."""
    import keras
    import numpy as np

    tensors = keras.ops.convert_to_tensor
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        traced = tf.function(scalar)

        @tf.function
        def derived(values: list) -> tuple:
            with tf.GradientTape() as tape:
                tape.watch(values)
                result = scalar(values)
            return result, tape.gradient(result, values, unconnected_gradients=tf.UnconnectedGradients.ZERO)

    elif keras.backend.backend() == "jax":
        import jax

        traced, derived = jax.jit(scalar), jax.jit(jax.value_and_grad(scalar))
    else:
        import torch

        traced = scalar

        def derived(values: list) -> tuple:
            values = [each.clone().requires_grad_() for each in values]
            result = scalar(values)
            return result, torch.autograd.grad(result, values, allow_unused=True, materialize_grads=True)

    def gradients(values: list) -> tuple[float, list]:
        result, found = derived([tensors(each) for each in values])
        # An embedding's gradient is a sparse one.
        return float(result), [np.asarray(keras.ops.convert_to_numpy(tensors(each))) for each in found]

    return lambda values: float(traced([tensors(each) for each in values])), gradients


def _places(shape: tuple[int, ...], most: int, random: Any) -> list[tuple]:
    """The index of every element, or of `most` that are drawn."""
    import numpy as np

    size = int(np.prod(shape))
    chosen = np.sort(random.choice(size, most, replace=False)) if size > most else range(size)
    return [np.unravel_index(number, shape) for number in chosen]


def _compare(
    value_of: Callable, values: list, number: int, place: tuple, step: float, automatic: float, floor: float
) -> tuple[float, float, float, float, float]:
    """(relative error, automatic gradient, central difference, left slope, right slope) at one element."""
    array = values[number]
    kept = float(array[place])
    size = step * max(1.0, abs(kept))
    found = []
    for moved in (kept - size, kept, kept + size):
        array[place] = moved
        found.append((moved, value_of(values)))
    array[place] = kept
    (low, below), (middle, here), (high, above) = found
    numeric = (above - below) / (high - low)
    automatic = float(automatic)
    error = abs(automatic - numeric) / max(abs(automatic), abs(numeric), floor)
    return error, automatic, numeric, (here - below) / (middle - low), (above - here) / (high - middle)
