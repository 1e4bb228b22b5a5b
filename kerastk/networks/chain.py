"""Sums over all paths through a sentence's tags, by products of matrices where float32 allows it, else exactly.

A sum of exponentials is a product of matrices once its terms are scaled by the largest. What then falls below the
smallest number of float32 would be lost, though a later word may make just that path the best: where a sum comes near
that, all is computed again with logarithms, one exponential for each pair of tags.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from keras import ops

# Of a sum whose logarithm is above this, what is lost of it to float32 is far below its own rounding.
_SAFE = -69.0


class Sums(NamedTuple):
    """The logarithms of the sums over all paths to and from each tag of each word, less a number for each word.

    `before` (batch, time, tags) is of the paths up to a word, without its own emission, `after` of those behind it;
    both mean nothing where masked. `total` (batch,) is the logarithm of the sum over all paths, with nothing taken off.
    """

    before: Any
    after: Any
    total: Any


def path_sums(emissions: Any, mask: Any, transitions: Any, starts: Any, ends: Any) -> Sums:
    """Both directions in one scan: the way back is the way there of the reversed sentences.

    `emissions` (batch, time, tags) are finite, `mask` (batch, time) is right-padded, its first column true,
    `transitions` (from, to), `starts` and `ends` (tags,) are scores.
    """
    places = _reversal(mask)
    ways = ops.stack([emissions, ops.take_along_axis(emissions, places, axis=1)])
    here, follows = ops.transpose(ways, (2, 0, 1, 3)), ops.transpose(_following(mask))[:, None, :, None]
    both = ops.stack([transitions, ops.transpose(transitions)])
    first = ops.stack([starts, ends])[:, None, :] + ops.zeros_like(here[0])
    largest = ops.max(both)
    factors = ops.exp(both - largest)

    def products(logs: Any) -> Any:
        return ops.log(ops.matmul(ops.exp(logs), factors)) + largest

    def exactly(logs: Any) -> Any:
        return ops.logsumexp(logs[..., None] + both[:, None], axis=2)

    def walk(reach: Callable) -> Any:
        """The sums to each word (time, way, batch, tags), as they come when those to the word before are at most 0."""

        def step(state: Any, number: Any) -> tuple[Any, Any]:
            reached = reach(state[1])
            with_own = reached + here[number]
            new = ops.stack([reached, with_own - ops.max(with_own, axis=-1, keepdims=True)])
            state = ops.where(follows[number], new, state)
            return state, state

        with_own = first + here[0]
        begin = ops.stack([first, with_own - ops.max(with_own, axis=-1, keepdims=True)])
        return _scan(step, begin, mask)[1][:, 0]

    logs = walk(products)
    least = ops.min(ops.where(follows, logs, largest)) - largest
    logs = ops.cond(least > _SAFE, lambda: logs, lambda: walk(exactly))
    tops = ops.max(logs + here, axis=-1, keepdims=True)
    logs = logs - tops
    taken = ops.sum(ops.where(ops.transpose(mask)[..., None], tops[:, 0], 0.0), axis=(0, 2))
    last = ops.sum(ops.cast(mask, "int32"), axis=1) - 1
    final = ops.take_along_axis(logs[:, 0] + here[:, 0], last[None, :, None], axis=0)[0]
    before, after = (ops.transpose(logs[:, way], (1, 0, 2)) for way in (0, 1))
    total = taken + ops.logsumexp(final + ends, axis=-1)
    return Sums(before, ops.take_along_axis(after, places, axis=1), total)


def pair_counts(sums: Sums, emissions: Any, mask: Any, transitions: Any) -> Any:
    """How often each pair of neighbouring tags is expected in a sentence, (batch, from, to)."""
    goes_on = ops.pad(mask[:, 1:], ((0, 0), (0, 1)))[..., None]
    left, right = sums.before + emissions, ops.roll(sums.after + emissions, -1, axis=1)
    left, right = (each - ops.max(each, axis=-1, keepdims=True) for each in (left, right))
    largest = ops.max(transitions)
    factors = ops.exp(transitions - largest)
    coming, going = ops.exp(left), ops.where(goes_on, ops.exp(right), 0.0)
    whole = ops.where(goes_on, ops.sum(ops.matmul(coming, factors) * going, axis=-1, keepdims=True), 1.0)

    def products() -> Any:
        return factors * ops.matmul(ops.transpose(coming / whole, (0, 2, 1)), going)

    def exactly() -> Any:
        def add(number: Any, counted: Any) -> Any:
            logs = left[:, number, :, None] + transitions + right[:, number, None, :]
            pairs = ops.exp(logs - ops.logsumexp(logs, axis=(1, 2), keepdims=True))
            return counted + ops.where(goes_on[:, number, :, None], pairs, 0.0)

        return ops.fori_loop(0, ops.shape(mask)[1], add, ops.zeros_like(left[:, 0, :, None] + transitions))

    return ops.cond(ops.log(ops.min(whole)) > _SAFE, products, exactly)


def best_path(emissions: Any, mask: Any, transitions: Any, starts: Any, ends: Any) -> tuple[Any, Any]:
    """The path of the highest score (batch, time) int32, of no meaning where masked, and that score (batch,)."""
    here, follows = ops.transpose(emissions, (1, 0, 2)), ops.transpose(_following(mask))

    def step(before: Any, number: Any) -> tuple[Any, Any]:
        found = ops.max(before[:, :, None] + transitions, axis=1) + here[number]
        found = ops.where(follows[number][:, None], found, before)
        return found, found

    last, best = _scan(step, here[0] + starts, mask)
    last = last + ends
    # Where a path came from is asked only along the best one: so a step costs tags, not tags squared.
    columns, goes_on = ops.transpose(transitions), ops.roll(follows, -1, axis=0)

    def back(tag: Any, number: Any) -> tuple[Any, Any]:
        came = ops.cast(ops.argmax(best[number] + ops.take(columns, tag, axis=0), axis=-1), "int32")
        came = ops.where(goes_on[number], came, tag)
        return came, came

    _, path = _scan(back, ops.cast(ops.argmax(last, axis=-1), "int32"), mask, reverse=True)
    return ops.transpose(path), ops.max(last, axis=-1)


def _scan(step: Callable, first: Any, mask: Any, *, reverse: bool = False) -> tuple[Any, Any]:
    """`keras.ops.scan` of `step(state, number of the word)` over the words of a batch whose mask this is.

    It goes over numbers: on TensorFlow Keras 3.15 fails with several arrays whose length is not known beforehand.
    """
    return ops.scan(step, first, ops.arange(ops.shape(mask)[1], dtype="int32"), reverse=reverse)


def _following(mask: Any) -> Any:
    """(batch, time) bool: which words come behind another one of their sentence."""
    return ops.logical_and(mask, ops.arange(ops.shape(mask)[1]) > 0)


def _reversal(mask: Any) -> Any:
    """(batch, time, 1) int32: where each word of a sentence stands when its words are read backwards."""
    places = ops.arange(ops.shape(mask)[1], dtype="int32")
    length = ops.sum(ops.cast(mask, "int32"), axis=1, keepdims=True)
    return ops.where(places < length, length - 1 - places, places)[..., None]
