"""Words, characters and tags as numbers."""

import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kerastk.errors import RunError

PADDING, UNKNOWN = 0, 1
# How a word is written; numbers from 1.
CASING = ("lower", "upper", "title", "mixed", "digits", "with digits", "punctuation", "other")
MAX_CHARACTERS = 2000
MAX_WORDS = 10_000_000
MAX_TAGS = 10_000
# Words whose numbers are remembered; beyond that all are forgotten, so that endless new words do not fill the memory.
_REMEMBERED = 2**18
_FOLD = str.maketrans("123456789", "000000000")
FORMAT = 1
PARTS = ("words", "characters", "casing")


@dataclass(frozen=True)
class Vocabulary:
    """What the numbers of a network stand for; 0 is padding and 1 whatever is unknown.

    `words` and `characters` begin at number 2, `tags` at 0. Words are looked up with their digits as 0 where
    `fold_digits` says so, and in small letters where `lower` does; their characters and casing are those of the word
    as it is written. A word longer than `word_length` characters keeps its beginning and its end.
    """

    words: tuple[str, ...]
    characters: tuple[str, ...]
    tags: tuple[str, ...]
    fold_digits: bool
    lower: bool
    word_length: int
    _lexicon: "_Lexicon" = field(init=False, repr=False, compare=False)

    def __post_init__(self):
        object.__setattr__(self, "_lexicon", _Lexicon(self))

    @classmethod
    def of(
        cls,
        sentences: Iterable[Sequence[str]],
        tags: Iterable[str],
        *,
        max_words: int,
        min_count: int,
        fold_digits: bool,
        lower: bool,
        word_length: int,
        extra: Iterable[str] = (),
    ) -> "Vocabulary":
        """The vocabulary of training sentences, and of the words of a vector file (`extra`), these last.

        At most `max_words` words that come at least `min_count` times, the most frequent first; characters that come
        in at least two different words: those of a single one are too few to learn from, and teach what is unknown.
        """
        counts: Counter[str] = Counter()
        for tokens in sentences:
            counts.update(tokens)
        words: Counter[str] = Counter()
        characters: Counter[str] = Counter()
        for word, count in counts.items():
            words[folded(word, fold_digits=fold_digits, lower=lower)] += count
            characters.update(set(word))
        kept = [word for word in _by_frequency(words) if words[word] >= min_count][:max_words]
        known = dict.fromkeys(kept)
        known.update(dict.fromkeys(folded(word, fold_digits=fold_digits, lower=lower) for word in extra))
        letters = [each for each in _by_frequency(characters) if characters[each] >= 2][:MAX_CHARACTERS]
        return cls(tuple(known), tuple(letters), tuple(tags), fold_digits, lower, word_length)

    @property
    def sizes(self) -> dict[str, int]:
        """How many numbers each part of the input has, 0 and 1 included."""
        return {"words": len(self.words) + 2, "characters": len(self.characters) + 2, "casing": len(CASING) + 1}

    def encode(self, words: Sequence[str], *, parts: Sequence[str] = PARTS) -> dict[str, np.ndarray]:
        """The `parts` of {"words": (N,), "characters": (N, word_length), "casing": (N,)} of words, all int32."""
        return self._lexicon.look_up(words, parts)

    def encode_tags(self, tags: Sequence[str]) -> np.ndarray:
        """(N,) int32 numbers of tags in a row, -1 where they are unknown."""
        numbers = {tag: number for number, tag in enumerate(self.tags)}
        return np.fromiter((numbers.get(tag, -1) for tag in tags), np.int32, len(tags))

    def knows(self, word: str) -> bool:
        """Whether a word has a number of its own."""
        return int(self.encode([word], parts=["words"])["words"][0]) != UNKNOWN

    def to_json(self) -> dict[str, Any]:
        """A plain dict, from which `from_json` makes the vocabulary again."""
        return {
            "format": FORMAT,
            "fold_digits": self.fold_digits,
            "lower": self.lower,
            "word_length": self.word_length,
            "tags": list(self.tags),
            "characters": list(self.characters),
            "words": list(self.words),
        }

    @classmethod
    def from_json(cls, content: Any) -> "Vocabulary":
        """What `to_json` gave, maybe from a stranger.

        Raises:
            RunError: it is something else.
        """
        fields = dict(content) if isinstance(content, Mapping) else {}
        good = fields.pop("format", None) == FORMAT
        good = good and fields.keys() == {"fold_digits", "lower", "word_length", "tags", "characters", "words"}
        if good:
            good = _texts(fields["words"], MAX_WORDS) and _texts(fields["characters"], MAX_CHARACTERS)
            good = good and _texts(fields["tags"], MAX_TAGS) and len(fields["tags"]) > 0
            good = good and type(fields["fold_digits"]) is bool and type(fields["lower"]) is bool
            good = good and type(fields["word_length"]) is int and 1 <= fields["word_length"] <= 1000
        if not good:
            raise RunError("this is no vocabulary as kerastk writes it.")
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()})


class _Lexicon:
    """The numbers of every word that was ever asked for, as rows of tables: a word is looked at once."""

    def __init__(self, vocabulary: Vocabulary):
        self._vocabulary = vocabulary
        self._words = {word: number for number, word in enumerate(vocabulary.words, UNKNOWN + 1)}
        self._characters = {each: number for number, each in enumerate(vocabulary.characters, UNKNOWN + 1)}
        self._lock = threading.Lock()
        self._forget(1024)

    def _forget(self, size: int) -> None:
        self._rows: dict[str, int] = {}
        self._tables = {
            "words": np.zeros(size, np.int32),
            "characters": np.zeros((size, self._vocabulary.word_length), np.int32),
            "casing": np.zeros(size, np.int32),
        }

    def look_up(self, words: Sequence[str], parts: Sequence[str]) -> dict[str, np.ndarray]:
        with self._lock:
            rows = self._rows_of(words)
            if rows is None:
                # More different words than are remembered: piece by piece.
                half = len(words) // 2
                pieces = [words[:half], words[half:]]
            else:
                return {name: self._tables[name][rows] for name in parts}
        found = [self.look_up(piece, parts) for piece in pieces]
        return {name: np.concatenate([each[name] for each in found]) for name in parts}

    def _rows_of(self, words: Sequence[str]) -> np.ndarray | None:
        known = self._rows
        rows = np.fromiter((known.get(word, -1) for word in words), np.int64, len(words))
        unknown = np.flatnonzero(rows < 0)
        if not len(unknown):
            return rows
        new = dict.fromkeys(words[place] for place in unknown)
        if len(known) + len(new) > _REMEMBERED:
            self._forget(1024)
            return self._rows_of(words) if known else None
        self._learn(list(new))
        rows[unknown] = [known[words[place]] for place in unknown]
        return rows

    def _learn(self, new: list[str]) -> None:
        size = len(self._rows)
        while len(self._tables["words"]) < size + len(new):
            self._tables = {name: np.concatenate([each, np.zeros_like(each)]) for name, each in self._tables.items()}
        vocabulary, length = self._vocabulary, self._vocabulary.word_length
        head, numbers = length - length // 2, self._characters
        for row, word in enumerate(new, size):
            self._rows[word] = row
            looked_up = folded(word, fold_digits=vocabulary.fold_digits, lower=vocabulary.lower)
            self._tables["words"][row] = self._words.get(looked_up, UNKNOWN)
            self._tables["casing"][row] = casing(word)
            shown = word if len(word) <= length else word[:head] + word[len(word) - (length - head) :]
            self._tables["characters"][row, : len(shown)] = [numbers.get(each, UNKNOWN) for each in shown]


def folded(word: str, *, fold_digits: bool, lower: bool) -> str:
    """The word as it is looked up.

    >>> folded("In1984", fold_digits=True, lower=True)
    'in0000'
    """
    if lower:
        word = word.lower()
    return word.translate(_FOLD) if fold_digits else word


def casing(word: str) -> int:
    """The number of the way in which a word is written (see CASING)."""
    if word.islower() and word.isalpha():
        return 1
    if word.isdecimal():
        return 5
    if any(each.isdecimal() for each in word):
        # 1,000.50 counts as digits.
        return 6 if any(each.isalpha() for each in word) else 5
    if word.islower():
        return 1
    if word.isupper():
        # A single capital is rather the beginning of a sentence or of a name.
        return 2 if len(word) > 1 else 3
    if word[:1].isupper() and word[1:].islower():
        return 3
    if any(each.isalpha() for each in word):
        return 4 if word.lower() != word.upper() else 8
    return 7


def _by_frequency(counts: Counter[str]) -> list[str]:
    return sorted(counts, key=lambda each: (-counts[each], each))


def _texts(value: Any, limit: int) -> bool:
    return (
        isinstance(value, list)
        and len(value) <= limit
        and all(isinstance(each, str) and each for each in value)
        and len(set(value)) == len(value)
    )
