"""Whether two runs differ by more than chance, from their answers to what both were tested on."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from itertools import combinations
from typing import Any, TypeVar

import numpy as np

from kerastk.datasets.schemes import PLAIN
from kerastk.datasets.table import csv_cell
from kerastk.evaluation.autoencoder_about import AutoencoderAbout, spelled
from kerastk.evaluation.metrics import mcnemar
from kerastk.evaluation.page import NARROW, counted, points, signed
from kerastk.evaluation.photo_report import PhotoAbout
from kerastk.evaluation.reading import believed
from kerastk.evaluation.tag_report import TagAbout

RESAMPLES = 2000


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two runs (by number) on the test photos that both have: how many each alone classifies correctly.

    `chance` is how likely such a difference is where there is none (McNemar's exact test), corrected for the number of
    pairs; None where they share no test photos.
    """

    first: int
    second: int
    common: int
    first_alone: int
    second_alone: int
    chance: float | None

    @property
    def cells(self) -> dict[str, str]:
        """What a table shows of it, by the columns' heads."""
        return {"only one correct": counted(self.first_alone), "only other correct": counted(self.second_alone)}


@dataclasses.dataclass(frozen=True)
class SentencePair:
    """Two taggers (by number) on the test sentences that both have: by how much the second's score is higher there.

    `interval` holds 95 % of the differences over sentences drawn anew; `chance` is as of `Pair`, by `bootstrap`. Both
    are None where they share no test sentences.
    """

    first: int
    second: int
    common: int
    difference: float
    interval: tuple[float, float] | None
    chance: float | None

    @property
    def cells(self) -> dict[str, str]:
        """What a table shows of it, by the columns' heads."""
        low, high = self.interval or (0.0, 0.0)
        return {"difference": points(self.difference), f"95{NARROW}%": f"{signed(low)} to {signed(high)}"}


@dataclasses.dataclass(frozen=True)
class ItemPair:
    """Two autoencoders (by number) on the normal test items that both have: by how much the second's error is larger.

    `interval` holds the mean difference in 95 of 100 cases; `chance` is as of `Pair`, by `student`. Both are None where
    they share no such items.
    """

    first: int
    second: int
    common: int
    difference: float
    interval: tuple[float, float] | None
    chance: float | None

    @property
    def cells(self) -> dict[str, str]:
        """What a table shows of it, by the columns' heads."""
        low, high = self.interval or (0.0, 0.0)
        return {"difference": _plus(self.difference), f"95{NARROW}%": f"{_plus(low)} to {_plus(high)}"}


def _plus(error: float) -> str:
    return f"+{spelled(error)}" if error > 0 else spelled(error)


Compared = TypeVar("Compared", Pair, SentencePair, ItemPair)


def photo_pairs(abouts: Sequence[PhotoAbout]) -> list[Pair]:
    """Every two of the runs, compared on the test photos that both have."""

    def compared(first: int, second: int, one: list[bool], other: list[bool]) -> Pair:
        first_alone, second_alone, chance = mcnemar(one, other)
        return Pair(first, second, len(one), first_alone, second_alone, chance if one else None)

    return _pairs([_right(about) for about in abouts], compared)


def sentence_pairs(abouts: Sequence[TagAbout]) -> list[SentencePair]:
    """Every two of the taggers, compared on the test sentences that both have with the same truth."""

    def compared(first: int, second: int, one: list, other: list) -> SentencePair:
        if not one:
            return SentencePair(first, second, 0, 0.0, None, None)
        return SentencePair(first, second, len(one), *bootstrap(np.array(one), np.array(other)))

    return _pairs([_counts(about) for about in abouts], compared)


def item_pairs(abouts: Sequence[AutoencoderAbout]) -> list[ItemPair]:
    """Every two of the autoencoders, compared on the normal test items that both have."""

    def compared(first: int, second: int, one: list[float], other: list[float]) -> ItemPair:
        if not one:
            return ItemPair(first, second, 0, 0.0, None, None)
        return ItemPair(first, second, len(one), *student(np.array(one), np.array(other)))

    return _pairs([_errors(about) for about in abouts], compared)


def _pairs(tested: Sequence[dict[Any, Any]], compared: Callable[..., Compared]) -> list[Compared]:
    found = []
    for first, second in combinations(range(len(tested)), 2):
        common = sorted(tested[first].keys() & tested[second].keys())
        one, other = ([tested[number][key] for key in common] for number in (first, second))
        found.append(compared(first, second, one, other))
    return _corrected(found)


def _right(about: PhotoAbout) -> dict[tuple[str, str], bool]:
    """Whether each test photo, by content and label, is classified correctly; nothing without a test split."""
    if "test" not in about.metrics.splits:
        return {}
    rows = about.run.predictions
    with believed(about.run.predictions_csv):
        if [row["truth"] for row in rows] != [csv_cell(label) for _, label in about.data.tested]:
            raise ValueError
        return {key: row["prediction"] == row["truth"] for key, row in zip(about.data.tested, rows, strict=True)}


def _counts(about: TagAbout) -> dict[Hashable, tuple[int, int, int]]:
    """Right, guessed and true spans of each test sentence, by its words and their truth and which copy of it it is;
    nothing without a test split. Where tags are plain each word is a guess."""
    if "test" not in about.metrics.splits:
        return {}
    scheme, copies = about.labels.source_scheme, Counter()
    found = {}
    for each in about.answered:
        if scheme == PLAIN:
            truth, size = each.truth, len(each.words)
            counts = (size - each.errors(scheme), size, size)
        else:
            true, guessed = each.spans(scheme)
            truth, counts = tuple(true), (len(set(true) & set(guessed)), len(guessed), len(true))
        copies[each.words, truth] += 1
        found[each.words, truth, copies[each.words, truth]] = counts
    return found


def _errors(about: AutoencoderAbout) -> dict[str, float]:
    """The error of each normal test item, by its content; nothing without a test split."""
    if "test" not in about.metrics.splits:
        return {}
    rows = zip(about.scored.items, about.scored.errors.tolist(), about.anomalous.tolist(), strict=True)
    return {digest: error for (_, digest, _), error, anomalous in rows if not anomalous}


def student(first: np.ndarray, second: np.ndarray) -> tuple[float, tuple[float, float], float]:
    """Whether the mean errors of the same items differ, (items,) each: Student's test of pairs (1908, Biometrika 6).

    Returns by how much the second's is larger, the 95 % interval of that, and the probability of so large a difference,
    either way, where there is none.
    """
    from scipy.stats import ttest_rel

    differences = second - first
    mean = float(differences.mean())
    if len(differences) < 2 or not differences.std():
        # Of one item nothing is known of the spread; where all differ alike, there is none.
        return mean, (mean, mean), 0.0 if mean and len(differences) > 1 else 1.0
    found = ttest_rel(second, first)
    low, high = found.confidence_interval(0.95)
    return mean, (float(low), float(high)), float(found.pvalue)


def bootstrap(
    first: np.ndarray, second: np.ndarray, *, seed: int = 0, resamples: int = RESAMPLES
) -> tuple[float, tuple[float, float], float]:
    """Whether F1 differs over the same sentences, from their (sentences, 3) counts of right, guessed and true spans.

    Returns how much higher the second's is, the interval of 95 % of the differences over sentences drawn anew, and the
    probability of so large a difference, either way, where there is none: the paired bootstrap (Koehn 2004, EMNLP), its
    differences shifted to a mean of nothing (Berg-Kirkpatrick et al. 2012, EMNLP). It depends on the seed alone.
    """
    random, count = np.random.default_rng(seed), len(first)
    both = np.hstack([first, second]).astype(np.int64)
    seen = _difference(both.sum(axis=0))
    drawn = np.array(
        [
            _difference(np.bincount(random.integers(0, count, count), minlength=count) @ both)
            for _ in range(resamples)
        ]
    )  # fmt: skip
    low, high = np.percentile(drawn, [2.5, 97.5]).tolist()
    extreme = int((np.abs(drawn - seen) >= abs(seen) - 1e-12).sum())
    return seen, (low, high), (1 + extreme) / (1 + resamples)


def _difference(counts: np.ndarray) -> float:
    right, guessed, true, other_right, other_guessed, other_true = counts.tolist()
    one = 2 * right / (guessed + true) if guessed + true else 0.0
    other = 2 * other_right / (other_guessed + other_true) if other_guessed + other_true else 0.0
    return other - one


def _corrected(found: list[Compared]) -> list[Compared]:
    """The pairs with Holm's correction: of many pairs, one differs by chance sooner (S. Holm 1979, SJS 6:65)."""
    order = sorted((pair.chance, number) for number, pair in enumerate(found) if pair.chance is not None)
    corrected, before = list(found), 0.0
    for place, (chance, number) in enumerate(order):
        before = max(before, min(1.0, chance * (len(order) - place)))
        corrected[number] = dataclasses.replace(found[number], chance=before)
    return corrected
