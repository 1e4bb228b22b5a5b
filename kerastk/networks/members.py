"""Several networks in one, and how they learn side by side."""

from typing import Any

import keras
from keras import ops


class Members(keras.Model):
    """A classifier of several members (`networks.convnets`), each of which learns as it would alone.

    Its answer is the mean of the members' logits, whose cross-entropy is no mean of theirs. For any labels the two
    differ by the mean of the members' log-sum-exp less that of the answer, which is added to the loss here: it is the
    mean of the members' losses. What learns has `members` times its gradient, and so that of a member's own loss; only
    the bias of the head is one for all.
    """

    def __init__(self, model: keras.Model, members: int):
        super().__init__(name="members")
        self.head = model.get_layer("head")
        self.body = keras.Model(model.input, self.head.input)
        self.members = members

    def call(self, inputs: Any, training: bool | None = None) -> keras.KerasTensor:
        """Images -> (batch, classes) logits."""
        features = self.body(inputs, training=training)
        if not training:
            return self.head(features)
        members = self.members
        features = _steeper(ops.cast(features, "float32"), members)
        kernel = _steeper(ops.convert_to_tensor(self.head.kernel, "float32"), members)
        size = kernel.shape[0] // members
        # Of a member's features the head's kernel has the rows that belong to it.
        each, rows = ops.reshape(features, (-1, members, size)), ops.reshape(kernel, (members, size, -1))
        apart = members * ops.einsum("nmf,mfc->nmc", each, rows) + self.head.bias
        logits = ops.mean(apart, axis=1)
        sums = ops.mean(ops.logsumexp(apart, axis=-1), axis=-1)
        self.add_loss(ops.mean(sums - ops.logsumexp(logits, axis=-1)))
        return logits


def _steeper(values: Any, times: int) -> Any:
    """The same values, with so many times their gradient."""
    return times * values - ops.stop_gradient((times - 1) * values)
