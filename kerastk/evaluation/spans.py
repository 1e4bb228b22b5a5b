"""Figures of a tagger: spans found, missed and mistaken, with their uncertainty; and the share of right tags.

Spans are read as the script conlleval of CoNLL-2000 reads them (https://www.clips.uantwerpen.be/conll2000/chunking/),
or strictly: see `datasets.schemes.spans`. A span counts as found where both its ends and its type are right.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from kerastk.datasets.schemes import PLAIN, Span, spans
from kerastk.evaluation.metrics import interval

Tags = Sequence[Sequence[str]]
# An entity by what is written: its tokens and its type.
Surface = tuple[tuple[str, ...], str]

RESAMPLES = 1000
OUTSIDE = "O"


def precision_recall_f1(right: int, guessed: int, true: int) -> dict[str, float]:
    """Precision, recall and their harmonic mean, each 0 where it is 0 of 0.

    >>> precision_recall_f1(2, 4, 2)
    {'precision': 0.5, 'recall': 1.0, 'f1': 0.6666666666666666}
    """
    return {
        "precision": right / guessed if guessed else 0.0,
        "recall": right / true if true else 0.0,
        "f1": 2 * right / (guessed + true) if guessed + true else 0.0,
    }


def surfaces(sentences: Iterable[tuple[Sequence[str], Sequence[str]]], scheme: str) -> set[Surface]:
    """All entities of (tokens, tags) sentences, by what is written."""
    return {
        (tuple(tokens[span.start : span.end]), span.label) for tokens, tags in sentences for span in spans(tags, scheme)
    }


def tagging(
    truth: Tags,
    guess: Tags,
    scheme: str,
    *,
    strict: bool = False,
    tokens: Tags | None = None,
    seen: set[Surface] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """The figures of a split: its true and guessed tags, sentence by sentence, both in `scheme`.

    With the `tokens` and the entities of the training data (`seen`, by `surfaces`) also those of seen and of unseen
    entities. Plain labels have no spans: their figures are the accuracy of tags, with a 95 % interval, and of each
    label.
    """
    check_lengths(truth, guess)
    pairs = Counter(pair for one, other in zip(truth, guess, strict=True) for pair in zip(one, other, strict=True))
    total, hits = pairs.total(), sum(count for (one, other), count in pairs.items() if one == other)
    figures: dict[str, Any] = {
        "sentences": len(truth),
        "tokens": total,
        "token_accuracy": hits / total if total else 0.0,
    }
    if scheme == PLAIN:
        right = np.array([sum(a == b for a, b in zip(*each, strict=True)) for each in zip(truth, guess, strict=True)])
        sizes = np.array([len(each) for each in truth])
        figures["token_accuracy_95"] = list(interval(hits, total))
        figures["sentence_accuracy"] = float((right == sizes).mean()) if len(sizes) else 0.0
        figures["labels"] = _labels(pairs)
        figures["confusion"] = _confusion(pairs)
        return figures
    true = [spans(tags, scheme, strict=strict) for tags in truth]
    guessed = [spans(tags, scheme, strict=strict) for tags in guess]
    figures |= span_figures(true, guessed, seed=seed)
    if tokens is not None and seen is not None:
        figures["seen"] = of_seen(true, guessed, tokens, seen)
    return figures


def span_figures(true: Sequence[Sequence[Span]], guessed: Sequence[Sequence[Span]], *, seed: int = 0) -> dict[str, Any]:
    """Precision, recall and F1 of spans, sentence by sentence: of all (with the 95 % interval of F1) and of each
    type, the kinds of errors, and which type is taken for which."""
    counts = np.array([_counts(one, other) for one, other in zip(true, guessed, strict=True)], np.int64).reshape(-1, 3)
    kinds: dict[str, Counter[str]] = defaultdict(Counter)
    for one, other in zip(true, guessed, strict=True):
        for what, found in (("right", set(one) & set(other)), ("guessed", other), ("true", one)):
            for span in found:
                kinds[span.label][what] += 1
    right, all_guessed, all_true = counts.sum(axis=0).tolist()
    pairs, errors = _mistakes(true, guessed)
    return {
        **precision_recall_f1(right, all_guessed, all_true),
        "f1_95": bootstrap_f1(counts, seed=seed),
        "spans": all_true,
        "guessed": all_guessed,
        "right": right,
        "types": {label: _row(**kinds[label]) for label in sorted(kinds)},
        "errors": errors,
        "confusion": _confusion(pairs),
    }


def bootstrap_f1(counts: np.ndarray, *, seed: int = 0, resamples: int = RESAMPLES) -> list[float]:
    """The 95 % interval of F1 from (sentences, 3) counts of right, guessed and true spans, by drawing sentences anew.

    Percentiles of the bootstrap (Efron 1979, Annals of Statistics 7:1), which depends on the seed alone.
    """
    if not len(counts):
        return [0.0, 1.0]
    random = np.random.default_rng(seed)
    found = []
    for _ in range(resamples):
        weights = np.bincount(random.integers(0, len(counts), len(counts)), minlength=len(counts))
        right, guessed, true = weights @ counts
        found.append(2 * right / (guessed + true) if guessed + true else 0.0)
    return [float(each) for each in np.percentile(found, [2.5, 97.5])]


def of_seen(
    true: Sequence[Sequence[Span]], guessed: Sequence[Sequence[Span]], tokens: Tags, seen: set[Surface]
) -> dict[str, dict[str, float]]:
    """Figures of the entities that the training data has with the same type and spelling, and of those that it has not.

    A true and a guessed span are each judged by what is written at their place.
    """
    found = {"seen": Counter(), "unseen": Counter()}
    for one, other, words in zip(true, guessed, tokens, strict=True):
        both = set(one) & set(other)
        for what, group in (("right", both), ("guessed", other), ("true", one)):
            for span in group:
                known = (tuple(words[span.start : span.end]), span.label) in seen
                found["seen" if known else "unseen"][what] += 1
    return {name: _row(**counts) for name, counts in found.items()}


def errors_of(true: Sequence[Span], guessed: Sequence[Span]) -> list[tuple[str, Span | None, Span | None]]:
    """What is wrong in a sentence: (kind, true span, guessed span), in order of their places.

    Kinds: `type`, where only the type is wrong; `boundary`, where only the ends are; `both`; `missed`, where nothing
    was guessed at a true span's place; `spurious`, where something was guessed and nothing is true. A true span of
    several overlapping guesses is compared with the one of its type, else with the first.
    """
    right = set(true) & set(guessed)
    found: list[tuple[str, Span | None, Span | None]] = []
    touched: set[Span] = set()
    for one in true:
        if one in right:
            continue
        overlapping = [other for other in guessed if other.start < one.end and one.start < other.end]
        touched.update(overlapping)
        if not overlapping:
            found.append(("missed", one, None))
            continue
        same_place = [other for other in overlapping if other[:2] == one[:2]]
        same_type = [other for other in overlapping if other.label == one.label]
        kind = "type" if same_place else "boundary" if same_type else "both"
        found.append((kind, one, (same_place or same_type or overlapping)[0]))
    found += [("spurious", None, other) for other in guessed if other not in right and other not in touched]
    return sorted(found, key=lambda error: error[1] or error[2])


ERRORS = ("type", "boundary", "both", "missed", "spurious")


def check_lengths(truth: Tags, guess: Tags) -> None:
    """Refuse answers that are not one tag a token.

    Raises:
        ValueError: other numbers of sentences or tags.
    """
    if len(truth) != len(guess):
        raise ValueError(f"{len(truth)} sentences, but answers for {len(guess)}")
    for number, (one, other) in enumerate(zip(truth, guess, strict=True)):
        if len(one) != len(other):
            raise ValueError(f"sentence {number}: {len(one)} tokens, but {len(other)} tags")


def _counts(true: Sequence[Span], guessed: Sequence[Span]) -> tuple[int, int, int]:
    return len(set(true) & set(guessed)), len(guessed), len(true)


def _row(right: int = 0, guessed: int = 0, true: int = 0) -> dict[str, float]:
    return {**precision_recall_f1(right, guessed, true), "spans": true, "guessed": guessed, "right": right}


def _mistakes(true: Iterable[Sequence[Span]], guessed: Iterable[Sequence[Span]]) -> tuple[Counter, dict[str, int]]:
    """Pairs of (true, guessed) types over all spans, and the number of errors of each kind."""
    pairs: Counter[tuple[str, str]] = Counter()
    errors = dict.fromkeys(ERRORS, 0)
    for one, other in zip(true, guessed, strict=True):
        pairs.update((span.label, span.label) for span in set(one) & set(other))
        for kind, right, wrong in errors_of(one, other):
            errors[kind] += 1
            pairs[right.label if right else OUTSIDE, wrong.label if wrong else OUTSIDE] += 1
    return pairs, errors


def _confusion(pairs: Counter[tuple[str, str]]) -> dict[str, dict[str, int]]:
    """What each label was taken for, the most frequent first: {truth: {answer: count}}."""
    found: dict[str, dict[str, int]] = {}
    by_count: Callable[[tuple], tuple] = lambda item: (item[0][0], -item[1], item[0][1])  # noqa: E731
    for (one, other), count in sorted(pairs.items(), key=by_count):
        found.setdefault(one, {})[other] = count
    return found


def _labels(pairs: Counter[tuple[str, str]]) -> dict[str, dict[str, float]]:
    """Precision, recall and F1 of each plain label."""
    right, guessed, true = Counter(), Counter(), Counter()
    for (one, other), count in pairs.items():
        true[one] += count
        guessed[other] += count
        right[one] += count * (one == other)
    return {
        label: {**precision_recall_f1(right[label], guessed[label], true[label]), "tokens": true[label]}
        for label in sorted(true | guessed)
    }
