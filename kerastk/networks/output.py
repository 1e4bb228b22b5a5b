"""What the output layers of taggers share."""

from typing import Any

import keras
from keras import ops


class TagOutput(keras.layers.Layer):
    """From emissions (batch, time, tags) to `tags` (batch, time) int32 and `probabilities` (batch, time, tags).

    Under a mask (batch, time), right-padded, its first column true in any case, tags are -1 and probabilities 0. All
    is computed in float32 under any policy but float64: neither the emissions nor the scores may be rounded to what the
    network computes in.
    """

    def __init__(self, **layer: Any):
        super().__init__(**{**layer, "autocast": False})
        self.supports_masking = True

    def compute_output_spec(
        self, emissions: keras.KerasTensor, mask: keras.KerasTensor | None = None
    ) -> tuple[keras.KerasTensor, keras.KerasTensor]:
        """(batch, time) int32 and (batch, time, tags)."""
        shape = emissions.shape
        return keras.KerasTensor(shape[:2], dtype="int32"), keras.KerasTensor(shape, dtype=self.precision)

    def compute_mask(self, inputs: Any, mask: Any = None) -> list:
        """The mask goes on with both outputs."""
        return [mask, mask]

    def get_config(self) -> dict[str, Any]:
        """What the constructor takes. Keras makes none by itself for a constructor that takes `**layer` alone."""
        return super().get_config()

    @property
    def precision(self) -> str:
        """What it computes in."""
        return "float64" if self.variable_dtype == "float64" else "float32"

    def given(self, emissions: Any, mask: Any) -> tuple[Any, Any]:
        """Both as they are computed with: all words count where there is no mask, a sentence's first in any case."""
        emissions = ops.cast(emissions, self.precision)
        shape = ops.shape(emissions)[:2]
        if mask is None:
            return emissions, ops.ones(shape, "bool")
        return emissions, ops.logical_or(ops.cast(mask, "bool"), ops.arange(shape[1]) == 0)
