"""Maxout: a layer that learns its activation."""

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="kerastk")
class Maxout(keras.layers.Layer):
    """The largest of `pieces` linear functions a unit: (..., features) -> (..., units), under the layer's policy.

    Goodfellow et al. 2013, arXiv:1302.4389. Piece p of unit u is column u * pieces + p of the kernel. `lecun_normal`
    keeps the mean square of what passes through two pieces as it is. A model that holds this layer is opened by plain
    Keras once `kerastk.networks.maxout` is imported.

    Raises:
        ValueError: `units` is not a whole number from 1, or `pieces` not one from 2.

    >>> Maxout(8, pieces=3)(np.ones((2, 5))).shape
    (2, 8)
    """

    def __init__(
        self,
        units: int,
        pieces: int = 2,
        *,
        use_bias: bool = True,
        kernel_initializer: Any = "lecun_normal",
        bias_initializer: Any = "zeros",
        **layer: Any,
    ):
        super().__init__(**layer)
        if not isinstance(units, int) or units < 1:
            raise ValueError(f"units must be a whole number from 1; got {units!r}.")
        if not isinstance(pieces, int) or pieces < 2:
            raise ValueError(f"pieces must be a whole number from 2 (with one it is a Dense layer); got {pieces!r}.")
        self.units, self.pieces, self.use_bias = units, pieces, use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.supports_masking = True

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Make the kernel (features, units * pieces) and the bias (units * pieces,)."""
        features, columns = input_shape[-1], self.units * self.pieces
        self.kernel = self.add_weight(name="kernel", shape=(features, columns), initializer=self.kernel_initializer)
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(name="bias", shape=(columns,), initializer=self.bias_initializer)
        self.input_spec = keras.layers.InputSpec(min_ndim=2, axes={-1: features})

    def call(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        """See the class."""
        linear = ops.matmul(inputs, self.kernel)
        if self.bias is not None:
            linear = linear + self.bias
        pieces = ops.reshape(linear, (*ops.shape(inputs)[:-1], self.units, self.pieces))
        return ops.max(pieces, axis=-1)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The input's shape with `units` in place of the features."""
        return (*input_shape[:-1], self.units)

    def get_config(self) -> dict[str, Any]:
        """What the constructor takes."""
        return {
            **super().get_config(),
            "units": self.units,
            "pieces": self.pieces,
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
        }
