"""Normalisation and activations in one kernel each, forward and back, where TensorFlow trains on a CPU.

Keras computes both operation by operation, each of which reads and writes all values. On a CPU that takes about as long
as all else in a small network in bfloat16 (`benchmarks/fused.py`); on a GPU XLA compiles the whole step.
"""

import functools
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

# Those that TensorFlow has no kernel for.
_ACTIVATIONS = (keras.activations.gelu, keras.activations.silu)


def fuse(model: keras.Model) -> None:
    """Let the layers of a flat model learn in fused kernels: each BatchNormalization on maps, and GELU and SiLU.

    Outputs, gradients and moving statistics (Ioffe and Szegedy 2015, arXiv:1502.03167) are the same but for rounding.
    The layers stay Keras's own and are saved as such. As before is a normalisation that is frozen or only asked, or
    that normalises anything else than (batch, height, width, channels) by channel; and all of it on another backend.

    >>> model = keras.applications.EfficientNetB0(weights=None)
    >>> fuse(model)
    """
    if keras.backend.backend() != "tensorflow":
        return
    import tensorflow

    compiles = tensorflow.test.is_built_with_xla()
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization) and _by_channel(layer):
            layer.call = functools.partial(_normalised, layer)
        elif isinstance(layer, keras.layers.Activation) and layer.activation in _ACTIVATIONS and compiles:
            layer.call = functools.partial(_activated, layer)


def _by_channel(layer: keras.layers.BatchNormalization) -> bool:
    of_maps = len(layer.input.shape) == 4 and layer.axis in (-1, 3)
    return of_maps and not layer.renorm and not layer.synchronized


def _normalised(
    layer: keras.layers.BatchNormalization, inputs: Any, training: bool | None = None, mask: Any = None
) -> Any:
    """In place of `BatchNormalization.call`, with its arguments and result."""
    if not training or not layer.trainable or mask is not None:
        return type(layer).call(layer, inputs, training=training, mask=mask)
    import tensorflow as tf

    moving_mean, moving_variance = (ops.cast(each, "float32") for each in (layer.moving_mean, layer.moving_variance))
    outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
        x=inputs,
        scale=ops.cast(layer.gamma, "float32") if layer.scale else ops.ones_like(moving_mean),
        offset=ops.cast(layer.beta, "float32") if layer.center else ops.zeros_like(moving_mean),
        mean=tf.zeros([0]),
        variance=tf.zeros([0]),
        epsilon=layer.epsilon,
        is_training=True,
    )
    # The kernel divides by one less than the count, Keras by the count.
    count = tf.cast(tf.size(inputs) // inputs.shape[-1], "float32")
    variance = variance * (count - 1) / count
    layer.moving_mean.assign(moving_mean * layer.momentum + mean * (1 - layer.momentum))
    layer.moving_variance.assign(moving_variance * layer.momentum + variance * (1 - layer.momentum))
    return outputs


def _activated(layer: keras.layers.Activation, inputs: Any) -> Any:
    """In place of `Activation.call`."""
    return _compiled(layer.activation, inputs.dtype.name)(inputs)


@functools.cache
def _compiled(activation: Callable, dtype: str) -> Callable:
    """An activation, number by number in float32, as one loop that XLA compiles, and its derivative as another."""
    import tensorflow as tf

    # Of no shape, so that one trace serves all layers.
    numbers = tf.TensorSpec([None], dtype)

    @tf.function(input_signature=[numbers], jit_compile=True)
    def forward(values: Any) -> Any:
        return tf.cast(activation(tf.cast(values, "float32")), dtype)

    @tf.function(input_signature=[numbers, numbers], jit_compile=True)
    def backward(values: Any, upstream: Any) -> Any:
        values = tf.cast(values, "float32")
        with tf.GradientTape() as tape:
            tape.watch(values)
            outputs = activation(values)
        return tf.cast(tape.gradient(outputs, values, tf.cast(upstream, "float32")), dtype)

    @tf.custom_gradient
    def call(inputs: Any) -> tuple[Any, Callable]:
        flat = tf.reshape(inputs, [-1])

        def shaped(values: Any) -> Any:
            return tf.ensure_shape(tf.reshape(values, tf.shape(inputs)), inputs.shape)

        return shaped(forward(flat)), lambda upstream: shaped(backward(flat, tf.reshape(upstream, [-1])))

    return call
