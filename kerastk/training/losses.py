"""Losses by name. All compute in float32, whatever the precision of the network."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from kerastk.errors import DataError, RecipeError

# Pixels of a side of the windows that SSIM compares.
_WINDOW = 11
# Below this, 1 - p is no more than float32's rounding of p, and a power of it has no usable slope.
_SMALLEST = 1e-7
CLASSIFYING = ("cross_entropy", "focal")
LOSSES = {
    "mse": keras.losses.MeanSquaredError,
    "mae": keras.losses.MeanAbsoluteError,
    "huber": keras.losses.Huber,
}
NAMES = (*CLASSIFYING, *LOSSES)


def loss(
    name: str,
    *,
    label_smoothing: float = 0.0,
    class_weights: Sequence[float] | None = None,
    gamma: float | None = None,
) -> keras.losses.Loss:
    """The loss of this name, a mean over the batch.

    `cross_entropy` and `focal` compare (batch, classes) labels, one-hot or soft, with logits; `mse`, `mae` and `huber`
    (quadratic up to an error of 1) compare values as they are. `gamma` is focal's, 2 where it is None.

    Raises:
        RecipeError: no loss of this name, a number out of its range, or one that the loss would not use.
    """
    if name not in NAMES:
        raise RecipeError(f"loss must be one of {', '.join(NAMES)}; got {name!r}.")
    if gamma is not None and name != "focal":
        raise RecipeError(f"gamma belongs to the loss focal; {name} would not use it.")
    if name not in CLASSIFYING:
        if label_smoothing or class_weights is not None:
            unused = "label_smoothing" if label_smoothing else "class_weights"
            raise RecipeError(
                f"{unused} would not be used by the loss {name}; it belongs to {' and '.join(CLASSIFYING)}."
            )
        return LOSSES[name]()
    if not 0 <= label_smoothing < 1:
        raise RecipeError(f"label_smoothing must be from 0 to less than 1; got {label_smoothing}.")
    if class_weights is not None and not all(0 <= each < float("inf") for each in class_weights):
        raise RecipeError(f"class_weights must be numbers from 0; got {[float(each) for each in class_weights]}.")
    if name == "cross_entropy" and class_weights is None:
        return keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=label_smoothing)
    if name == "focal":
        gamma = 2.0 if gamma is None else gamma
        if not 0 <= gamma < float("inf"):
            raise RecipeError(f"gamma must be 0 or more; got {gamma}.")
    return FocalCrossEntropy(gamma=gamma or 0.0, label_smoothing=label_smoothing, class_weights=class_weights)


def class_weights(counts: Sequence[int]) -> np.ndarray:
    """(classes,) float64 weights by inverse frequency, whose mean over the photos is 1, from photos per class.

    What scikit-learn calls `balanced`: photos / (classes * count).

    Raises:
        DataError: a class has no photo.
    """
    counts = np.asarray(counts, np.float64)
    if len(counts) == 0 or not (counts > 0).all():
        empty = f"class {int(np.argmin(counts))} has {counts.min():g}" if len(counts) else "there are no classes"
        raise DataError(f"class weights need at least one photo of each class; {empty}.")
    return counts.sum() / (len(counts) * counts)


@keras.saving.register_keras_serializable(package="kerastk")
class FocalCrossEntropy(keras.losses.Loss):
    """Cross-entropy of logits, each class weighted, in which what is known already counts less.

    The sum over the classes c of weight_c y_c (1 - p_c)^gamma (-log p_c), with p the softmax of the logits and y the
    smoothed label, one-hot or soft: Lin et al. 2017, arXiv:1708.02002. With gamma 0 it is the weighted cross-entropy.

    `keras.losses.CategoricalFocalCrossentropy` clips p at 1e-7, so a photo that is wrong by 17 logits or more has no
    gradient there; and it has no weights without their scale of 0.25.

    >>> FocalCrossEntropy(gamma=2.0)(np.array([[1.0, 0.0]]), np.array([[0.0, 0.0]]))  # 0.25 log 2
    0.1733
    """

    def __init__(
        self,
        *,
        gamma: float,
        label_smoothing: float = 0.0,
        class_weights: Sequence[float] | None = None,
        name: str = "focal_cross_entropy",
        **loss: Any,
    ):
        super().__init__(name=name, **loss)
        self.gamma, self.label_smoothing = gamma, label_smoothing
        self.class_weights = None if class_weights is None else [float(each) for each in class_weights]

    def call(self, y_true: keras.KerasTensor, y_pred: keras.KerasTensor) -> keras.KerasTensor:
        """(batch, classes) labels and logits -> (batch,)."""
        if self.label_smoothing:
            y_true = y_true * (1 - self.label_smoothing) + self.label_smoothing / y_pred.shape[-1]
        logarithm = ops.log_softmax(y_pred, axis=-1)
        terms = -y_true * logarithm
        if self.gamma:
            terms *= ops.maximum(-ops.expm1(logarithm), _SMALLEST) ** self.gamma
        if self.class_weights is not None:
            if len(self.class_weights) != y_pred.shape[-1]:
                raise RecipeError(
                    f"class_weights must hold one number for each of {y_pred.shape[-1]} classes; got "
                    f"{len(self.class_weights)}."
                )
            terms *= ops.convert_to_tensor(self.class_weights, terms.dtype)
        return ops.sum(terms, axis=-1)

    def get_config(self) -> dict[str, Any]:
        """What the constructor takes."""
        own = {"gamma": self.gamma, "label_smoothing": self.label_smoothing, "class_weights": self.class_weights}
        return {**super().get_config(), **own}


def ssim(one: keras.KerasTensor, other: keras.KerasTensor) -> keras.KerasTensor:
    """The structural similarity of images, (batch, height, width, channels) from 0 to 1 -> (batch,), at most 1.

    Wang et al. 2004, IEEE TIP 13(4): Gaussian windows of deviation 1.5 and 11 pixels, as far as they lie inside.

    Raises:
        RecipeError: the images are smaller than a window.
    """
    one, other = ops.convert_to_tensor(one), ops.convert_to_tensor(other)
    channels = one.shape[-1]
    if min(one.shape[1:3]) < _WINDOW:
        raise RecipeError(f"ssim needs images of at least {_WINDOW} pixels; got {one.shape[1]} x {one.shape[2]}.")
    places = np.arange(_WINDOW) - _WINDOW // 2
    line = np.exp(-(places**2) / (2 * 1.5**2))
    window = np.outer(line, line) / line.sum() ** 2
    kernel = ops.convert_to_tensor(np.repeat(window[:, :, None, None], channels, axis=2), dtype=one.dtype)

    def mean(values: keras.KerasTensor) -> keras.KerasTensor:
        return ops.depthwise_conv(values, kernel, padding="valid", data_format="channels_last")

    first, second = mean(one), mean(other)
    both, spread = mean(one * other) - first * second, mean(one**2 + other**2) - first**2 - second**2
    light = (2 * first * second + 0.01**2) / (first**2 + second**2 + 0.01**2)
    return ops.mean(light * (2 * both + 0.03**2) / (spread + 0.03**2), axis=(1, 2, 3))
