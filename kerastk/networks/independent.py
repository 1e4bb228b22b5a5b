"""The softmax output of a tagger, with what a CRF has."""

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="kerastk")
class Independent(keras.layers.Layer):
    """Each word's tag by itself: emissions (batch, time, tags) -> tags and probabilities, as `CRF` gives them.

    `tags` (batch, time) int32 are the most probable ones, -1 where masked; `probabilities` (batch, time, tags) the
    softmax, 0 where masked. All in float32 under any policy but float64.
    """

    def __init__(self, **layer: Any):
        super().__init__(**{**layer, "autocast": False})
        self.supports_masking = True

    def call(
        self, emissions: keras.KerasTensor, mask: keras.KerasTensor | None = None
    ) -> tuple[keras.KerasTensor, keras.KerasTensor]:
        """See the class."""
        emissions, mask = self._given(emissions, mask)
        tags = ops.where(mask, ops.cast(ops.argmax(emissions, axis=-1), "int32"), -1)
        return tags, ops.where(mask[..., None], ops.softmax(emissions, axis=-1), 0.0)

    def log_likelihood(
        self, emissions: keras.KerasTensor, tags: keras.KerasTensor, mask: keras.KerasTensor | None = None
    ) -> keras.KerasTensor:
        """The logarithm of the probability of all `tags` (batch, time) of a sentence, (batch,)."""
        emissions, mask = self._given(emissions, mask)
        tags = ops.where(mask, ops.cast(tags, "int32"), 0)
        found = ops.one_hot(tags, emissions.shape[-1], dtype=emissions.dtype) * ops.log_softmax(emissions, axis=-1)
        return ops.sum(ops.where(mask, ops.sum(found, axis=-1), 0.0), axis=1)

    def compute_output_spec(
        self, emissions: keras.KerasTensor, mask: keras.KerasTensor | None = None
    ) -> tuple[keras.KerasTensor, keras.KerasTensor]:
        """(batch, time) int32 and (batch, time, tags)."""
        shape = emissions.shape
        return keras.KerasTensor(shape[:2], dtype="int32"), keras.KerasTensor(shape, dtype=self._precision)

    def compute_mask(self, inputs: Any, mask: Any = None) -> list:
        """The mask goes on with both outputs."""
        return [mask, mask]

    def get_config(self) -> dict[str, Any]:
        """What the constructor takes."""
        return super().get_config()

    @property
    def _precision(self) -> str:
        return "float64" if self.variable_dtype == "float64" else "float32"

    def _given(self, emissions: Any, mask: Any) -> tuple[Any, Any]:
        emissions = ops.cast(emissions, self._precision)
        shape = ops.shape(emissions)[:2]
        return emissions, ops.ones(shape, "bool") if mask is None else ops.cast(mask, "bool")
