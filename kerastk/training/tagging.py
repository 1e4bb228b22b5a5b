"""A tagger's answers for batches of sentences, and what they say of it after each epoch."""

from collections.abc import Iterator
from typing import NamedTuple

import keras
import numpy as np

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

    `model` is the whole tagger, whose layers the fitted one shares.
    """

    monitor = "val_error"

    def __init__(self, model: keras.Model, scheme: str):
        super().__init__()
        self._scheme = scheme
        self._decoder = keras.Model(
            model.input, {"tags": model.output["tags"], "scores": model.get_layer("head").output}
        )
        self._true: tuple[SentenceRows, list[list[Span]]] | None = None

    def figures(self) -> dict[str, float]:
        """Tag all sentences."""
        found, loss, words, right = [], 0.0, 0, 0
        for inputs, truth in self.rows.batches(0, 1):
            answer = self._decoder.predict_on_batch(inputs)
            real = truth >= 0
            loss += float(self.model.compute_loss(None, truth, answer["scores"])) * int(real.sum())
            words, right = words + int(real.sum()), right + int((answer["tags"] == truth)[real].sum())
            found.append(answer["tags"])
        figures = {"val_loss": loss / words, "val_accuracy": right / words}
        score = figures["val_accuracy"]
        if self._scheme != PLAIN:
            figures["val_f1"] = score = self._f1(self.rows.in_order(found))
        return {**figures, self.monitor: 1 - score}

    def _f1(self, tags: list[np.ndarray]) -> float:
        classes = self.rows.vocabulary.tags
        if self._true is None or self._true[0] is not self.rows:
            self._true = self.rows, [spans(each.tags, self._scheme) for each in self.rows.sentences]
        guessed = [spans([classes[number] for number in each], self._scheme) for each in tags]
        pairs = list(zip(self._true[1], guessed, strict=True))
        right = sum(len(set(one) & set(other)) for one, other in pairs)
        return precision_recall_f1(right, sum(len(other) for _, other in pairs), sum(len(one) for one, _ in pairs))[
            "f1"
        ]
