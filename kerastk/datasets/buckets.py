"""Sentences as batches of few fixed shapes: sentences of about equal length together, padded on the right.

The order of batches and what is in them depend on (seed, epoch) alone, the words that are dropped from a sentence on
(seed, epoch, the sentence's hash) alone.
"""

import functools
import itertools
from collections.abc import Iterable, Sequence

import grain
import numpy as np

from kerastk.datasets.pipeline import Rows, Timed, epoch_order
from kerastk.datasets.schemes import PLAIN, convert, prefix_of
from kerastk.datasets.sentence import Sentence
from kerastk.datasets.vocabulary import PARTS, UNKNOWN, Vocabulary

Batch = tuple[dict[str, np.ndarray], np.ndarray]

MAX_BUCKETS = 8
# Lengths of buckets are multiples of this, but for the longest.
_STEP = 4
# Keeps these draws apart from all others of a seed.
_DROPPING, _ORDERING = 0x64726F70, 0x6F726472


def bucket_lengths(lengths: Iterable[int], most: int = MAX_BUCKETS) -> list[int]:
    """At most `most` lengths, in order, with the least padding where each sentence goes to the first one that holds it.

    >>> bucket_lengths([3, 3, 4, 9, 10], most=2)
    [4, 10]
    """
    lengths = np.fromiter(lengths, np.int64)
    longest = int(lengths.max())
    ends = np.unique(np.minimum(-(-lengths // _STEP) * _STEP, longest))
    if len(ends) > 256:
        ends = np.unique(np.append(np.quantile(ends, np.linspace(0, 1, 256), method="nearest"), longest))
    counts = np.histogram(lengths, np.concatenate([[0], ends + 1]))[0]
    before = np.concatenate([[0], np.cumsum(counts)])
    # cost[j]: cells of the best buckets for all sentences up to ends[j - 1].
    cost = np.where(np.arange(len(ends) + 1) == 0, 0.0, np.inf)
    cuts = []
    for _ in range(min(most, len(ends))):
        each = cost[:, None] + (before[None, :] - before[:, None]) * np.concatenate([[0], ends])[None, :]
        each[np.tril_indices(len(ends) + 1, -1)] = np.inf
        cuts.append(each.argmin(axis=0))
        cost = each.min(axis=0)
    chosen, at = [], len(ends)
    for cut in reversed(cuts):
        if at > cut[at]:
            chosen.append(int(ends[at - 1]))
        at = cut[at]
    return chosen[::-1]


def cut_long(sentences: Sequence[Sentence], longest: int, scheme: str) -> tuple[list[Sentence], int]:
    """Tagged sentences with those of more than `longest` words in pieces, and how many there were of these.

    They are cut in front of a word that begins a span or is in none, if there is one, so that no span is cut.
    """
    found, long = [], 0
    for sentence in sentences:
        if len(sentence.tokens) <= longest:
            found.append(sentence)
            continue
        long += 1
        start = 0
        while start < len(sentence.tokens):
            end = _end(sentence.tags, start, longest, scheme)
            found.append(_piece(sentence, start, end, scheme))
            start = end
    return found, long


def _end(tags: Sequence[str], start: int, longest: int, scheme: str) -> int:
    if start + longest >= len(tags):
        return len(tags)
    for end in range(start + longest, start, -1):
        if scheme == PLAIN or (prefix_of(tags[end]) or "O")[0] in "OBSU":
            return end
    return start + longest


def _piece(sentence: Sentence, start: int, end: int, scheme: str) -> Sentence:
    tags = tuple(convert(sentence.tags[start:end], scheme, scheme))
    return Sentence(sentence.tokens[start:end], tags, None, None, sentence.file, sentence.line)


class SentenceRows(Rows):
    """Sentences as batches of inputs and tags (B, T), all int32.

    The inputs are `words` and `casing` (B, T), `spelling_characters` (W, C) of each different word of the batch, and
    `spelling` (B, T), which of these stands where: the first of them and those that fill up W, one of few numbers, are
    padding. Only the `parts` that a network uses are made. Tags are -1 where there is padding, or no tag that is known.

    Each of the few lengths T (`lengths` of the buckets; found in the sentences if None) has one B of about
    `batch_words` words. In training all batches are full: what is left over in a bucket goes to the next one, and the
    last batch of the longest is filled up with other sentences. Words are replaced by the unknown one with the
    probability `word_dropout`.

    Else each sentence comes once and none is cut; copies fill up the last batch of a bucket, with tags of -1 alone
    (not `fixed`: it is shorter). `order` tells which sentence each row is, and `in_order` puts answers back. A sentence
    longer than all buckets gets one of twice the length, or four times, and so on.
    """

    noun = "words"

    def __init__(
        self,
        sentences: Sequence[Sentence],
        vocabulary: Vocabulary,
        *,
        batch_words: int,
        training: bool,
        seed: int = 0,
        lengths: Sequence[int] | None = None,
        word_dropout: float = 0.0,
        fixed: bool = True,
        parts: Sequence[str] = PARTS,
    ):
        super().__init__(sentences, vocabulary.tags, batch_size=1, training=training, seed=seed)
        if not self.photos:
            raise ValueError("no sentences")
        self.vocabulary, self.parts, self.word_dropout = vocabulary, tuple(parts), word_dropout
        self.sizes = np.array([len(each.tokens) for each in self.photos], np.int64)
        self.lengths = list(lengths or bucket_lengths(self.sizes))
        while self.lengths[-1] < self.sizes.max():
            if training:
                raise ValueError(f"a sentence of {self.sizes.max()} words; the longest bucket: {self.lengths[-1]}")
            self.lengths.append(2 * self.lengths[-1])
        self._bucket = np.searchsorted(self.lengths, self.sizes)
        counts = np.bincount(self._bucket, minlength=len(self.lengths))
        most = len(self.photos) if training else batch_words
        self.rows = [max(1, min(batch_words // length, most)) for length in self.lengths]
        self.batch_size = max(rows for rows, count in zip(self.rows, counts, strict=True) if count)
        self._planned = functools.lru_cache(maxsize=3)(self._plan_of)
        self.fixed = fixed
        self._first = np.concatenate([[0], np.cumsum(self.sizes)])
        words = [word for each in self.photos for word in each.tokens]
        # Characters of different words alone: those of all would be large.
        self._kinds, self._kind_of = _kinds(words)
        self._tables = vocabulary.encode(self._kinds, parts=self.parts)

    @property
    def sentences(self) -> list[Sentence]:
        """The sentences in their own order."""
        return self.photos

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """The (B, T) of all batches of an epoch, each once, in order of T."""
        return sorted({(len(rows), length) for rows, length in self._plan(0)}, key=lambda shape: shape[1])

    @property
    def steps(self) -> int:
        """Batches an epoch, the same in each."""
        return len(self._plan(0))

    @property
    def shown(self) -> list[Batch]:
        """Two batches, different in all that may differ from batch to batch."""
        sizes = [length for _, length in self._plan(0)]
        one, other = self.batch(0, int(np.argmin(sizes))), self.batch(0, int(np.argmax(sizes)))
        if "characters" not in self.parts:
            return [one, other] if len(self.shapes) > 1 else []
        characters = one[0]["spelling_characters"]
        if len(characters) == len(other[0]["spelling_characters"]):
            one[0]["spelling_characters"] = np.pad(characters, ((0, 1), (0, 0)))
        return [one, other]

    @property
    def per_step(self) -> float:
        """Words a batch, on average; what fills up an epoch's last batch does not count."""
        return float(self.sizes.sum()) / self.steps

    @property
    def padding(self) -> float:
        """The share of an epoch's places that no word of its own stands at."""
        plan = self._plan(0)
        return 1 - float(self.sizes.sum()) / sum(len(rows) * length for rows, length in plan)

    @functools.cached_property
    def truth(self) -> np.ndarray:
        """(words,) int32: the number of each word's tag, sentence after sentence; -1 where none is known."""
        tags = [each.tags or ("",) * len(each.tokens) for each in self.photos]
        return self.vocabulary.encode_tags([tag for each in tags for tag in each])

    @functools.cached_property
    def order(self) -> np.ndarray:
        """Which sentence each row of a pass is, batch after batch; -1 where a row only fills a batch up."""
        return np.concatenate([np.where(_first_ones(rows), rows, -1) for rows, _ in self._plan(0)])

    def in_order(self, answers: Iterable[np.ndarray]) -> list[np.ndarray]:
        """Answers of a pass, (B, T, ...) for each batch, as one of (words, ...) for each sentence in its own order."""
        found: list[np.ndarray | None] = [None] * len(self.photos)
        for (rows, _), batch in zip(self._plan(0), answers, strict=True):
            for row, answer in zip(rows, np.asarray(batch), strict=True):
                found[row] = answer[: self.sizes[row]]
        return found

    def batch(self, epoch: int, position: int) -> Batch:
        """One batch of an epoch."""
        rows, length = self._plan(epoch)[position]
        sizes = self.sizes[rows]
        inside = np.arange(length) < sizes[:, None]
        places = np.concatenate([np.arange(self._first[row], self._first[row + 1]) for row in rows])
        kinds = self._kind_of[places]
        numbers = {name: table[kinds] for name, table in self._tables.items() if name != "characters"}
        if self.training and self.word_dropout:
            numbers["words"][np.concatenate([self._dropped(int(row), epoch) for row in rows])] = UNKNOWN
        inputs = {}
        if "characters" in self._tables:
            different, which = np.unique(kinds, return_inverse=True)
            inputs["spelling_characters"] = self._spelled(different, inside.size)
            numbers["spelling"] = which + 1
        for name, values in numbers.items():
            inputs[name] = np.zeros(inside.shape, np.int32)
            inputs[name][inside] = values
        tags = np.full(inside.shape, -1, np.int32)
        tags[inside] = self.truth[places]
        if not self.training:
            tags[~_first_ones(rows)] = -1
        return inputs, tags

    def batches(self, first: int, last: int, skip: int = 0) -> grain.IterDataset:
        """See `Rows.batches`."""
        steps = self.steps

        def load(index: int) -> Batch:
            epoch, position = divmod(index, steps)
            return self.batch(first + epoch, position)

        options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=4)
        items = grain.MapDataset.range(skip, (last - first) * steps).map(load)
        return Timed(items.to_iter_dataset(options), self)

    def numbers(self, epoch: int) -> np.ndarray:
        """Which sentence each row of an epoch is, batch after batch."""
        return np.concatenate([rows for rows, _ in self._plan(epoch)])

    def _spelled(self, kinds: np.ndarray, places: int) -> np.ndarray:
        """(W, C) characters of different words, behind a row of padding, for a batch of so many places.

        In `fixed` batches W is a multiple of an eighth of these.
        """
        table, step = self._tables["characters"], max(1, places // 8) if self.fixed else 1
        found = np.zeros((-(-(len(kinds) + 1) // step) * step, table.shape[1]), np.int32)
        found[1 : len(kinds) + 1] = table[kinds]
        return found

    def _dropped(self, row: int, epoch: int) -> np.ndarray:
        """(words,) bool: which words of a sentence an epoch shows as unknown."""
        content = int(self._hashes[row][:16], 16)
        draws = np.random.default_rng([self.seed, epoch, content, _DROPPING]).random(self.sizes[row])
        return draws < self.word_dropout

    @functools.cached_property
    def _hashes(self) -> list[str]:
        return [each.sha256 for each in self.photos]

    def _plan(self, epoch: int) -> list[tuple[np.ndarray, int]]:
        return self._planned(epoch if self.training else 0)

    def _plan_of(self, epoch: int) -> list[tuple[np.ndarray, int]]:
        """The batches of an epoch: which sentences, and the length that they are padded to."""
        if not self.training:
            return self._pass()
        order = epoch_order(len(self.photos), self.seed, epoch)
        found, left = [], np.zeros(0, np.int64)
        for number, (length, rows) in enumerate(zip(self.lengths, self.rows, strict=True)):
            waiting = np.concatenate([left, order[self._bucket[order] == number]])
            full = len(waiting) // rows * rows
            found += [(each, length) for each in waiting[:full].reshape(-1, rows)]
            left = waiting[full:]
        if len(left):
            others = order[~np.isin(order, left)]
            found.append((np.concatenate([left, others[: self.rows[-1] - len(left)]]), self.lengths[-1]))
        places = np.random.default_rng([self.seed, epoch, _ORDERING]).permutation(len(found))
        return [found[place] for place in places]

    def _pass(self) -> list[tuple[np.ndarray, int]]:
        found = []
        for number, (length, rows) in enumerate(zip(self.lengths, self.rows, strict=True)):
            inside = np.flatnonzero(self._bucket == number)
            if self.fixed:
                inside = np.concatenate([inside, inside[-1:].repeat(-len(inside) % rows)])
            found += [(inside[start : start + rows], length) for start in range(0, len(inside), rows)]
        return found


def _first_ones(rows: np.ndarray) -> np.ndarray:
    """(B,) bool: which rows of a batch are no copies of one before."""
    first = np.zeros(len(rows), bool)
    first[np.unique(rows, return_index=True)[1]] = True
    return first


def _kinds(words: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """The different words, and which of them stands at each place."""
    numbers: dict[str, int] = {}
    counter = itertools.count()
    which = np.fromiter(
        (numbers[word] if word in numbers else numbers.setdefault(word, next(counter)) for word in words),
        np.int64,
        len(words),
    )
    return list(numbers), which
