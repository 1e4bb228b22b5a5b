"""A tagger's answers for batches of sentences, and what they say of it after each epoch."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from kerastk.datasets.buckets import SentenceRows
from kerastk.datasets.schemes import PLAIN, Span, spans
from kerastk.evaluation.spans import precision_recall_f1
from kerastk.training.callbacks import Validation


class Tagged(NamedTuple):
    """A sentence's answer: `tags` (words,) int32, and the probability of each of these, (words,) float32."""

    tags: np.ndarray
    probabilities: np.ndarray


def answers(model: keras.Model, rows: SentenceRows) -> Iterator[Tagged]:
    """What the tagger answers for all sentences, in their own order."""
    tags, probabilities = [], []
    for inputs, _ in rows.batches(0, 1):
        found = model.predict_on_batch(inputs)
        tags.append(found["tags"])
        chosen = np.maximum(found["tags"], 0)[..., None]
        probabilities.append(np.take_along_axis(found["probabilities"], chosen, axis=-1)[..., 0])
    for pair in zip(rows.in_order(tags), rows.in_order(probabilities), strict=True):
        yield Tagged(*pair)


class TagValidation(Validation):
    """val_loss, val_accuracy (of tags), val_f1 (of spans) and val_error, which is 1 less the last of them there is.

    A tag that training does not know is never right. Sentences with one have no likelihood: val_loss is that of the
    others, over their words, and not a number where there are none. `model` is the whole tagger, whose layers the
    fitted one shares.
    """

    monitor = "val_error"

    def __init__(self, model: keras.Model, scheme: str):
        super().__init__()
        self._scheme = scheme
        truth = keras.Input((None,), dtype="int32", name="truth")
        scores, output = model.get_layer("head").output, model.get_layer("probabilities")
        self._judge = keras.Model(
            [model.input, truth], [model.output["tags"], _Likelihood(output)(scores, model.input["words"], truth)]
        )
        self._true: tuple[SentenceRows, list[list[Span]]] | None = None

    def figures(self) -> dict[str, float]:
        """Tag all sentences."""
        found, logs, words = [], 0.0, 0
        for inputs, truth in self.rows.batches(0, 1):
            tags, likelihoods = self._judge.predict_on_batch([inputs, truth])
            found.append(tags)
            # Rows that fill the batch up have no tags at all.
            whole = ((truth >= 0) == (inputs["words"] > 0)).all(axis=1)
            logs, words = logs + float(likelihoods[whole].sum()), words + int((truth[whole] >= 0).sum())
        answers = self.rows.in_order(found)
        score = float(np.mean(np.concatenate(answers) == self.rows.truth))
        figures = {"val_loss": -logs / words if words else math.nan, "val_accuracy": score}
        if self._scheme != PLAIN:
            figures["val_f1"] = score = self._f1(answers)
        return {**figures, self.monitor: 1 - score}

    def _f1(self, tags: list[np.ndarray]) -> float:
        classes = self.rows.vocabulary.tags
        if self._true is None or self._true[0] is not self.rows:
            self._true = self.rows, [spans(each.tags, self._scheme) for each in self.rows.sentences]
        guessed = [spans([classes[number] for number in each], self._scheme) for each in tags]
        pairs = list(zip(self._true[1], guessed, strict=True))
        counts = (sum(len(set(one) & set(other)) for one, other in pairs), sum(map(len, guessed)))
        return precision_recall_f1(*counts, sum(map(len, self._true[1])))["f1"]


class _Likelihood(keras.layers.Layer):
    """The log-likelihood (batch,) under an output layer of the tags of sentences that have them all."""

    def __init__(self, layer: keras.layers.Layer):
        super().__init__(dtype="float32")
        self._layer = layer
        self.supports_masking = True

    def call(self, scores: keras.KerasTensor, words: keras.KerasTensor, truth: keras.KerasTensor) -> keras.KerasTensor:
        return self._layer.log_likelihood(scores, ops.maximum(truth, 0), ops.not_equal(words, 0))

    def compute_mask(self, *given: Any) -> None:
        """None goes on."""
