"""Word vectors from a text file, as GloVe, word2vec and fastText write them, for the words of a vocabulary."""

import gzip
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kerastk.errors import DataError

# Rows of a vocabulary before its first word: padding and unknown.
RESERVED = 2
_MAX_LINE = 2**20
_DIGIT = re.compile(r"\d")


@dataclass(frozen=True, kw_only=True)
class Vectors:
    """`matrix` (RESERVED + words, size) float32, and how many words of the vocabulary got their row in which way.

    `exact`: as they are. `folded`: like the file's first word that differs in digits alone. `lower`: in lower case,
    with digits folded or not. `missing`: not in the file; their rows are random. The four add up to the words.
    """

    matrix: np.ndarray
    exact: int
    folded: int
    lower: int
    missing: int


def read_vectors(path: str | Path, words: Sequence[str], *, seed: int) -> Vectors:
    """The vectors of `words`, whose digits may all be 0 (folded), from a text file, gzipped or not.

    Each line is a word and its numbers; a first line of two whole numbers (how many, which size) may say what comes. Of
    the file no more is kept than what is returned. A row that is not in the file is drawn by `seed` from a normal
    distribution with the deviation of the rows that are; the padding's is 0.

    Raises:
        DataError: there is no such file, it is empty or damaged, or holds none of the words.

    >>> read_vectors("glove.6B.100d.txt.gz", ["the", "Paris"], seed=0).matrix.shape
    (4, 100)
    """
    plain = {word: RESERVED + number for number, word in enumerate(words)}
    lower: dict[str, list[int]] = {}
    for word, row in plain.items():
        lower.setdefault(word.lower(), []).append(row)
    # The lower the better; 4 is not found.
    ranks = np.full(RESERVED + len(words), 4)
    matrix = np.zeros((0, 0), np.float32)
    for word, values in _lines(Path(path)):
        if not matrix.size:
            matrix = np.random.default_rng(seed).normal(size=(len(ranks), len(values))).astype(np.float32)
        folded = _DIGIT.sub("0", word)
        found = (plain.get(word), plain.get(folded))
        rows = [*([each] if each is not None else [] for each in found), lower.get(word, []), lower.get(folded, [])]
        for rank, each in enumerate(rows):
            for row in each:
                if rank < ranks[row]:
                    ranks[row], matrix[row] = rank, values
    known = ranks < 4
    if not known.any():
        raise DataError(f"{path} holds no vector for any of the {len(words)} words of the data.")
    matrix[~known] *= matrix[known].std()
    matrix[0] = 0
    counts = np.bincount(ranks[RESERVED:], minlength=5).tolist()
    return Vectors(
        matrix=matrix, exact=counts[0], folded=counts[1], lower=counts[2] + counts[3], missing=counts[4]
    )  # fmt: skip


def vector_words(path: str | Path, *, most: int) -> list[str]:
    """The first `most` words of a file of vectors, which are its most frequent ones, each once.

    Raises:
        DataError: as `read_vectors`.
    """
    found: dict[str, None] = {}
    for word, _ in _lines(Path(path)):
        found[word] = None
        if len(found) == most:
            break
    return list(found)


def _lines(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    """(word, float32 vector) of each line; all of one size."""
    try:
        with open(path, "rb") as file:
            zipped = file.read(2) == b"\x1f\x8b"
        with gzip.open(path) if zipped else open(path, "rb") as file:
            yield from _parsed(path, file)
    except OSError as error:
        raise DataError(f"cannot read the vectors {path}: {error.strerror or error}.") from None
    except (EOFError, zlib.error) as error:
        raise DataError(f"cannot read the vectors {path}: it is a damaged gzip file ({error}).") from None


def _parsed(path: Path, file: gzip.GzipFile) -> Iterator[tuple[str, np.ndarray]]:
    size = announced = None
    count = 0
    number = 0
    while line := file.readline(_MAX_LINE):
        number += 1
        where = f"{path}, line {number}"
        if len(line) == _MAX_LINE:
            raise DataError(f"{where}: longer than {_MAX_LINE} bytes; expected a word and its vector.")
        try:
            parts = line.decode("utf-8").rstrip("\r\n ").split(" ")
        except UnicodeDecodeError:
            raise DataError(f"{where}: it is not UTF-8 text; expected a word and its vector.") from None
        if number == 1 and len(parts) == 2 and all(part.isdecimal() for part in parts):
            announced, size = map(int, parts)
            continue
        size = size or len(parts) - 1
        if len(parts) < size + 1 or size < 1:
            raise DataError(f"{where}: expected a word and {size or 'its'} numbers; got {' '.join(parts)[:60]!r}.")
        # Some files have words with spaces in them.
        word = " ".join(parts[:-size])
        try:
            values = np.array(parts[-size:], np.float32)
        except ValueError:
            values = np.array([np.nan])
        if not np.isfinite(values).all():
            raise DataError(
                f"{where}: expected {size} numbers after {word[:40]!r}; got {' '.join(parts[-size:])[:60]!r}."
            )
        count += 1
        yield word, values
    if not count or announced not in (None, count):
        said = f"of which its first line announces {announced}" if announced is not None else "expected a word a line"
        raise DataError(f"{path} holds {count} vectors, {said}; it may be cut short.")
