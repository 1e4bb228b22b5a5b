"""A linear-chain conditional random field: what a sentence's tags say of each other."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from kerastk.networks.chain import Sums, best_path, pair_counts, path_sums
from kerastk.networks.output import TagOutput

# The score of what is ruled out. Finite, so that no difference of two of them is NaN; so large that no sum of weights
# outweighs it, and so small that a thousand of them stay finite in float32.
_FORBIDDEN = -1e30


@keras.saving.register_keras_serializable(package="kerastk")
class CRF(TagOutput):
    """Tags that fit together: emissions (batch, time, tags) -> the best path and the probability of each tag.

    The score of a path is the sum of its emissions, of a transition score for each pair of neighbours, and of a start
    and an end score; its probability is the exponential of that, over the sum of all paths' (Lafferty et al. 2001;
    above a recurrent network Lample et al. 2016, arXiv:1603.01360). Called, it gives `tags` (batch, time) int32, the
    path of the highest score, -1 where masked, and `probabilities` (batch, time, tags), the marginals, 0 where masked.
    It is trained by `log_likelihood`.

    `transitions` (from, to), `starts` and `ends` are boolean arrays: what they rule out is in no path and has
    probability 0, whatever the weights, up to 1e27 in size. A mask (batch, time) is right-padded and its first column
    counts as true. All is computed in float32 under any policy but float64.

    Raises:
        ValueError: an array of another shape, or one that leaves a sentence of some length without any path.

    >>> tags, probabilities = CRF(5)(np.zeros((2, 7, 5)))
    >>> tags.shape, probabilities.shape
    ((2, 7), (2, 7, 5))
    """

    def __init__(
        self,
        tags: int,
        *,
        transitions: np.ndarray | Sequence[str] | None = None,
        starts: np.ndarray | str | None = None,
        ends: np.ndarray | str | None = None,
        **layer: Any,
    ):
        super().__init__(**layer)
        if not isinstance(tags, int) or tags < 1:
            raise ValueError(f"tags must be a whole number from 1; got {tags!r}.")
        self.tags = tags
        self.transitions = _allowed("transitions", transitions, (tags, tags))
        self.starts = _allowed("starts", starts, (tags,))
        self.ends = _allowed("ends", ends, (tags,))
        self._check_paths()

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Make the scores: transitions (tags, tags), start (tags,), end (tags,), all 0 at first."""
        if input_shape[-1] != self.tags:
            raise ValueError(f"the emissions must have {self.tags} scores a word; got shape {tuple(input_shape)}.")
        kind = {"initializer": "zeros", "dtype": self.precision, "autocast": False}
        self.transition_scores = self.add_weight(name="transitions", shape=(self.tags, self.tags), **kind)
        self.start_scores = self.add_weight(name="starts", shape=(self.tags,), **kind)
        self.end_scores = self.add_weight(name="ends", shape=(self.tags,), **kind)
        self.input_spec = keras.layers.InputSpec(ndim=3, axes={-1: self.tags})

    def call(
        self, emissions: keras.KerasTensor, mask: keras.KerasTensor | None = None
    ) -> tuple[keras.KerasTensor, keras.KerasTensor]:
        """See the class."""
        tags, _ = self.viterbi(emissions, mask)
        return tags, self.marginals(emissions, mask)

    def log_likelihood(
        self, emissions: keras.KerasTensor, tags: keras.KerasTensor, mask: keras.KerasTensor | None = None
    ) -> keras.KerasTensor:
        """The logarithm of the paths' probabilities (batch,), for `tags` (batch, time), of any value where masked.

        A path that is ruled out has about -1e30, and a gradient all the same. It can be derived once, not twice: its
        gradient is made of the marginals, not by going back through the scan, which XLA does not compile.
        """
        emissions, mask = self.given(emissions, mask)
        return self._score(emissions, tags, mask) - self._log_partition(emissions, mask)

    def viterbi(
        self, emissions: keras.KerasTensor, mask: keras.KerasTensor | None = None
    ) -> tuple[keras.KerasTensor, keras.KerasTensor]:
        """The path of the highest score (batch, time) int32, -1 where masked, and that score (batch,)."""
        emissions, mask = self.given(emissions, mask)
        path, score = best_path(emissions, mask, *self._scores())
        return ops.where(mask, path, -1), score

    def marginals(self, emissions: keras.KerasTensor, mask: keras.KerasTensor | None = None) -> keras.KerasTensor:
        """The probability of each tag of each word over all paths, (batch, time, tags); 0 where masked."""
        emissions, mask = self.given(emissions, mask)
        return _marginals(path_sums(emissions, mask, *self._scores()), emissions, mask)

    def get_config(self) -> dict[str, Any]:
        """What the constructor takes; a boolean array as a text of 0 and 1 a row."""
        config = super().get_config()
        return {
            **config,
            "tags": self.tags,
            "transitions": [_text(row) for row in self.transitions],
            "starts": _text(self.starts),
            "ends": _text(self.ends),
        }

    def _scores(self) -> tuple[Any, Any, Any]:
        """Transitions, starts and ends, each with what is ruled out."""
        pairs = (
            (self.transition_scores, self.transitions),
            (self.start_scores, self.starts),
            (self.end_scores, self.ends),
        )
        forbidden = ops.cast(_FORBIDDEN, self.precision)
        # JAX's where takes no Keras variable while it traces.
        tensor = ops.convert_to_tensor
        return tuple(ops.where(tensor(allowed), tensor(scores), forbidden) for scores, allowed in pairs)

    def _score(self, emissions: Any, tags: Any, mask: Any) -> Any:
        transitions, starts, ends = self._scores()
        tags = ops.where(mask, ops.cast(tags, "int32"), 0)
        real = ops.cast(mask, self.precision)
        own = ops.sum(emissions * ops.one_hot(tags, self.tags, dtype=self.precision), axis=-1)
        pairs = ops.take(ops.reshape(transitions, (-1,)), tags[:, :-1] * self.tags + tags[:, 1:])
        last = ops.cast(ops.sum(real, axis=1, keepdims=True), "int32") - 1
        final = ops.take_along_axis(tags, last, axis=1)[:, 0]
        inner = ops.sum(own * real, axis=1) + ops.sum(pairs * real[:, 1:], axis=1)
        return inner + ops.take(starts, tags[:, 0]) + ops.take(ends, final)

    def _log_partition(self, emissions: Any, mask: Any) -> Any:
        # JAX derives no loop of fori_loop, and must not try.
        still = ops.stop_gradient(emissions)
        transitions, starts, ends = (ops.stop_gradient(each) for each in self._scores())
        sums = path_sums(still, mask, transitions, starts, ends)
        pairs = pair_counts(sums, still, mask, transitions)
        probabilities = _marginals(sums, still, mask)
        real = ops.cast(mask, self.precision)[..., None]
        final = real - ops.pad(real[:, 1:], ((0, 0), (0, 1), (0, 0)))
        # The derivative by each score is how often it is expected to be used.
        uses = (
            (emissions, probabilities, (1, 2)),
            (ops.convert_to_tensor(self.transition_scores), pairs, (1, 2)),
            (ops.convert_to_tensor(self.start_scores), probabilities[:, 0], 1),
            (ops.convert_to_tensor(self.end_scores), ops.sum(probabilities * final, axis=1), 1),
        )
        slope = sum(ops.sum(each * expected, axis=axes) for each, expected, axes in uses)
        return sums.total + (slope - ops.stop_gradient(slope))

    def _check_paths(self) -> None:
        """A sentence of every length up to the number of tags must have a path."""
        reached = self.starts
        for length in range(1, self.tags + 1):
            if not (reached & self.ends).any():
                raise ValueError(f"no path of {length} words is left by transitions, starts and ends.")
            reached = self.transitions[reached].any(axis=0)


def _marginals(sums: Sums, emissions: Any, mask: Any) -> Any:
    probabilities = ops.softmax(sums.before + emissions + sums.after, axis=-1)
    return ops.where(mask[..., None], probabilities, 0.0)


def _allowed(name: str, given: Any, shape: tuple[int, ...]) -> np.ndarray:
    """The boolean array, all true where none is given."""
    if given is None:
        return np.ones(shape, bool)
    if isinstance(given, str):
        given = [each == "1" for each in given]
    elif len(given) and isinstance(given[0], str):
        given = [[each == "1" for each in row] for row in given]
    array = np.asarray(given)
    if array.dtype != bool or array.shape != shape:
        raise ValueError(f"{name} must be a boolean array of shape {shape}; got {array.dtype} of {array.shape}.")
    return array


def _text(row: np.ndarray) -> str:
    return "".join("01"[int(each)] for each in row)
