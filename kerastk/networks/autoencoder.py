"""Autoencoders: an item through a narrow code and back; builders of uncompiled models.

Names: `item` (input), `scaled` (what a reconstruction is compared with), `code`, `head` (logits of pixels, or
standardised numbers) and `reconstruction`. A model answers with {"code", "reconstruction"}; a variational one with
{"log_variance"}, too, its code being the mean.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from kerastk.networks.activations import activation as activation_layer
from kerastk.networks.initializers import initializer

UPSAMPLERS = ("transpose", "subpixel", "resize")


@dataclass(frozen=True)
class Standard:
    """Mean and deviation of each of the numbers of an item, (features,) float32: the units in which it is learned."""

    mean: np.ndarray
    deviation: np.ndarray


def autoencoder(
    shape: Sequence[int],
    *,
    kind: str,
    widths: Sequence[int],
    latent: int,
    activation: str,
    start: str = "he",
    upsample: str | None = None,
    sigmoid_code: bool = False,
    variational: bool = False,
    standard: Standard | None = None,
) -> keras.Model:
    """An uncompiled autoencoder of images (batch, height, width, channels) uint8, or rows (batch, features) float32.

    Its code is (batch, latent) float32; the reconstruction has the shape of the items: images as float32 from 0 to 1,
    rows in the units that they came in.

    `kind` is dense (Hinton and Salakhutdinov 2006, Science 313) with `widths` units a layer, or conv, which halves an
    image once for each of the `widths` filters and enlarges it again by `upsample`, one of UPSAMPLERS. `start` is the
    initialiser of dense kernels. Of rows `standard` says how they are scaled.

    A variational one (Kingma and Welling 2013, arXiv:1312.6114) has the log of the code's variance, too.

    Raises:
        ValueError: convolutions of rows, or an unknown kind or upsampler.

    >>> autoencoder((28, 28, 1), kind="dense", widths=(512,), latent=30, activation="swish").output["code"].shape
    (None, 30)
    """
    is_image = len(shape) == 3
    if kind not in ("dense", "conv") or (kind == "conv" and (not is_image or upsample not in UPSAMPLERS)):
        raise ValueError(f"no autoencoder of kind {kind!r} with upsample {upsample!r} for items of shape {shape}.")
    item = keras.Input(tuple(shape), dtype="uint8" if is_image else "float32", name="item")
    values = _scaled(item, standard)
    sizes = [tuple(shape[:2])]
    if kind == "dense":
        hidden = keras.layers.Flatten(name="flat")(values) if is_image else values
        for number, units in enumerate(widths, start=1):
            hidden = _dense(hidden, units, activation, start, f"encoder_{number}")
    else:
        hidden = values
        for number, filters in enumerate(widths, start=1):
            hidden = _halved(hidden, filters, activation, f"encoder_{number}")
            sizes.append(tuple(hidden.shape[1:3]))
        bottom = hidden.shape[1:]
        hidden = keras.layers.Flatten(name="flat")(hidden)
    # The code is linear; its kernel has no activation to make up for.
    code_start = start if start != "he" else "glorot"
    code = keras.layers.Dense(
        latent, activation="sigmoid" if sigmoid_code else None, kernel_initializer=initializer(code_start), name="code",
        dtype="float32",
    )(hidden)  # fmt: skip
    outputs = {"code": code}
    if variational:
        outputs["log_variance"] = keras.layers.Dense(
            latent, kernel_initializer=initializer("normal"), name="log_variance", dtype="float32"
        )(hidden)
    if kind == "dense":
        hidden = code
        for number, units in enumerate(reversed(widths), start=1):
            hidden = _dense(hidden, units, activation, start, f"decoder_{number}")
        head = keras.layers.Dense(
            math.prod(shape), kernel_initializer=initializer(code_start), name="head", dtype="float32"
        )(hidden)
    else:
        hidden = _dense(code, math.prod(bottom), activation, start, "decoder_0")
        hidden = keras.layers.Reshape(bottom, name="unflat")(hidden)
        filters = [widths[0], *widths]
        for number, (size, below) in enumerate(zip(sizes[-2::-1], filters[-2::-1], strict=True), start=1):
            hidden = _enlarged(hidden, below, size, upsample, activation, f"decoder_{number}")
        head = keras.layers.Conv2D(
            shape[2], 3, padding="same", kernel_initializer=initializer("glorot"), name="head", dtype="float32"
        )(hidden)
    outputs["reconstruction"] = _unscaled(head, tuple(shape), standard)
    return keras.Model(item, outputs, name="autoencoder")


def _scaled(item: keras.KerasTensor, standard: Standard | None) -> keras.KerasTensor:
    if standard is None:
        return keras.layers.Rescaling(1 / 255, dtype="float32", name="scaled")(item)
    scale = (1 / standard.deviation).tolist()
    offset = (-standard.mean / standard.deviation).tolist()
    return keras.layers.Rescaling(scale, offset=offset, dtype="float32", name="scaled")(item)


def _unscaled(head: keras.KerasTensor, shape: tuple[int, ...], standard: Standard | None) -> keras.KerasTensor:
    if standard is not None:
        return keras.layers.Rescaling(
            standard.deviation.tolist(), offset=standard.mean.tolist(), dtype="float32", name="reconstruction"
        )(head)
    pixels = keras.layers.Reshape(shape, dtype="float32", name="image")(head)
    return keras.layers.Activation("sigmoid", dtype="float32", name="reconstruction")(pixels)


def _dense(values: keras.KerasTensor, units: int, activation: str, start: str, name: str) -> keras.KerasTensor:
    layer = keras.layers.Dense(units, kernel_initializer=initializer(start), name=name)
    return _active(layer(values), activation, name)


def _active(values: keras.KerasTensor, activation: str, name: str) -> keras.KerasTensor:
    layer = activation_layer(activation)
    layer.name = f"{name}_{activation}"
    return layer(values)


def _halved(values: keras.KerasTensor, filters: int, activation: str, name: str) -> keras.KerasTensor:
    """A convolution that halves height and width (rounded up), and one that keeps them."""
    for part, strides in (("halve", 2), ("keep", 1)):
        layer = keras.layers.Conv2D(
            filters, 3, strides=strides, padding="same", kernel_initializer=initializer("he"), name=f"{name}_{part}"
        )
        values = _active(layer(values), activation, f"{name}_{part}")
    return values


def _enlarged(
    values: keras.KerasTensor, filters: int, size: tuple[int, int], upsample: str, activation: str, name: str
) -> keras.KerasTensor:
    """Height and width doubled, then cut to `size`."""
    if upsample == "transpose":
        layer = keras.layers.Conv2DTranspose(
            filters, 3, strides=2, padding="same", kernel_initializer=initializer("he"), name=name
        )
        values = layer(values)
    elif upsample == "subpixel":
        # Shi et al. 2016, arXiv:1609.05158.
        layer = keras.layers.Conv2D(4 * filters, 3, padding="same", kernel_initializer=ICNR(), name=name)
        values = ops.depth_to_space(layer(values), 2)
    else:
        # Odena et al. 2016, Distill, "Deconvolution and Checkerboard Artifacts".
        values = keras.layers.UpSampling2D(2, interpolation="nearest", name=f"{name}_nearest")(values)
        layer = keras.layers.Conv2D(filters, 3, padding="same", kernel_initializer=initializer("he"), name=name)
        values = layer(values)
    values = _active(values, activation, name)
    surplus = [have - want for have, want in zip(values.shape[1:3], size, strict=True)]
    if any(surplus):
        crop = tuple((0, each) for each in surplus)
        values = keras.layers.Cropping2D(crop, name=f"{name}_crop")(values)
    return values


@keras.saving.register_keras_serializable(package="kerastk")
class ICNR(keras.initializers.Initializer):
    """Of a sub-pixel convolution by 2: all four pixels of a block start equal, so that it begins as nearest neighbours.

    Aitken et al. 2017, arXiv:1707.02937; what the four share is He's normal distribution.
    """

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> Any:
        """A kernel (height, width, inputs, 4 * outputs) for `ops.depth_to_space`: blocks lie along the last axis."""
        *rest, outputs = shape
        if outputs % 4:
            raise ValueError(f"a sub-pixel kernel has a multiple of 4 outputs; got {outputs}.")
        return ops.tile(initializer("he")((*rest, outputs // 4), dtype), (*[1] * len(rest), 4))

    def get_config(self) -> dict[str, Any]:
        """There is nothing to configure."""
        return {}


def encoder(model: keras.Model) -> keras.Model:
    """The first half: items -> (batch, latent) codes; shares the layers of `model`."""
    return keras.Model(model.input, model.output["code"], name="encoder")


def decoder(model: keras.Model) -> keras.Model:
    """The second half: (batch, latent) codes -> reconstructions; shares the layers of `model`."""
    return keras.Model(model.output["code"], model.output["reconstruction"], name="decoder")


def scaler(model: keras.Model) -> keras.Model:
    """Items as the reconstruction of a code is compared with them: pixels from 0 to 1, or standardised numbers."""
    return keras.Model(model.input, model.get_layer("scaled").output, name="scaler")


def to_head(model: keras.Model) -> keras.Model:
    """(batch, latent) codes -> (batch, ...) logits of pixels, or standardised numbers; shares the layers of `model`."""
    return keras.Model(model.output["code"], model.get_layer("head").output, name="to_head")


def dense_pairs(model: keras.Model) -> list[tuple[keras.layers.Dense, keras.layers.Dense]]:
    """The dense layers of an autoencoder of kind dense from the outside in, each with the one that undoes it."""
    layers = [layer for layer in model.layers if isinstance(layer, keras.layers.Dense) and layer.name != "log_variance"]
    half = len(layers) // 2
    return list(zip(layers[:half], reversed(layers[half:]), strict=True))


def parts(model: keras.Model) -> dict[str, list[str]]:
    """The names of the model's operations by part: each layer of the encoder, the code, each of the decoder."""
    found: dict[str, list[str]] = {"input": []}
    for operation in model.operations:
        name = operation.name
        begins = name in ("code", "head") or name.startswith(("encoder_", "decoder_"))
        part = "_".join(name.split("_")[:2]) if begins else ""
        if begins and part not in found:
            found[part] = []
        found[list(found)[-1]].append(name)
    return {part: names for part, names in found.items() if names}
