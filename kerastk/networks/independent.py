"""The softmax output of a tagger, with what a CRF has."""

import keras
from keras import ops

from kerastk.networks.output import TagOutput


@keras.saving.register_keras_serializable(package="kerastk")
class Independent(TagOutput):
    """Each word's tag by itself: emissions (batch, time, tags) -> tags and probabilities, as `CRF` gives them.

    `tags` (batch, time) int32 are the most probable ones, -1 where masked; `probabilities` (batch, time, tags) the
    softmax, 0 where masked. All in float32 under any policy but float64.
    """

    def call(
        self, emissions: keras.KerasTensor, mask: keras.KerasTensor | None = None
    ) -> tuple[keras.KerasTensor, keras.KerasTensor]:
        """See the class."""
        emissions, mask = self.given(emissions, mask)
        tags = ops.where(mask, ops.cast(ops.argmax(emissions, axis=-1), "int32"), -1)
        return tags, ops.where(mask[..., None], ops.softmax(emissions, axis=-1), 0.0)

    def log_likelihood(
        self, emissions: keras.KerasTensor, tags: keras.KerasTensor, mask: keras.KerasTensor | None = None
    ) -> keras.KerasTensor:
        """The logarithm of the probability of all `tags` (batch, time) of a sentence, (batch,)."""
        emissions, mask = self.given(emissions, mask)
        tags = ops.where(mask, ops.cast(tags, "int32"), 0)
        found = ops.one_hot(tags, emissions.shape[-1], dtype=emissions.dtype) * ops.log_softmax(emissions, axis=-1)
        return ops.sum(ops.where(mask, ops.sum(found, axis=-1), 0.0), axis=1)
