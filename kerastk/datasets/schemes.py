"""How tags spell spans: IOB1, IOB2, IOBES and its other spellings BILOU and BMES; or plain labels, such as parts of
speech.

A tag is `O` outside of all spans, or a prefix with a type, `B-person`; the type may be missing. IOB1 and IOB2:
Ramshaw and Marcus 1995, arXiv:cmp-lg/9505040; Tjong Kim Sang and Veenstra 1999, arXiv:cs/9907006. The others: Ratinov
and Roth 2009.
"""

import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from kerastk.errors import DataError

PLAIN = "plain"
# The prefixes of a span's first, inner, last and only token. IOB writes no last and no only token of its own.
SPELLINGS = {"iob1": "BI", "iob2": "BI", "iobes": "BIES", "bilou": "BILU", "bmes": "BMES"}
SCHEMES = (*SPELLINGS, PLAIN)
_PREFIXES = frozenset("BIESLUM")
_CANONICAL = {"L": "E", "U": "S", "M": "I"}
_ORDER = {prefix: place for place, prefix in enumerate("BIMELSU")}


class Span(NamedTuple):
    """Tokens `start` to `end` - 1 of a sentence, and what they are."""

    start: int
    end: int
    label: str


def prefix_of(tag: str) -> tuple[str, str] | None:
    """A tag's prefix and type; ("O", "") outside; None where it is a plain label.

    >>> prefix_of("B-person"), prefix_of("E"), prefix_of("NOUN")
    (('B', 'person'), ('E', ''), None)
    """
    if tag == "O":
        return "O", ""
    if tag[:1] in _PREFIXES and (len(tag) == 1 or (len(tag) > 2 and tag[1] == "-")):
        return tag[0], tag[2:]
    return None


def type_of(tag: str, scheme: str) -> str | None:
    """What a tag says its token is: the type of its span (None outside), or a plain label itself."""
    found = None if scheme == PLAIN else prefix_of(tag)
    if found is None:
        return tag
    return None if found[0] == "O" else found[1]


def recognise(sentences: Iterable[Sequence[str]]) -> str:
    """The scheme that the tags break least often; `plain` where most of those that are not O have no prefix."""
    pairs: Counter[tuple[str, str]] = Counter()
    for tags in sentences:
        pairs.update(itertools.pairwise(("O", *tags, "O")))
    counts: Counter[str] = Counter()
    for (_, tag), count in pairs.items():
        counts[tag] += count
    del counts["O"]
    if sum(count for tag, count in counts.items() if prefix_of(tag) is None) > counts.total() / 2:
        return PLAIN

    def broken(scheme: str) -> int:
        known = {tag: _canonical(tag, scheme) for tag in ("O", *counts)}
        strangers = sum(count for tag, count in counts.items() if known[tag] is None)
        return strangers + sum(
            count
            for (one, other), count in pairs.items()
            if known[other] is not None and not _follows(scheme, known[one] or ("O", ""), known[other])
        )

    return min(("iob2", "iob1", "iobes", "bilou", "bmes"), key=broken)


def _canonical(tag: str, scheme: str) -> tuple[str, str] | None:
    """A tag's prefix in the spelling of IOBES, and its type; None where it is no tag of the scheme."""
    found = prefix_of(tag)
    if found is None or (found[0] != "O" and found[0] not in SPELLINGS[scheme]):
        return None
    return _CANONICAL.get(found[0], found[0]), found[1]


def _follows(scheme: str, before: tuple[str, str], after: tuple[str, str]) -> bool:
    """Whether one tag may follow another; the ends of a sentence are `O`."""
    same = before[0] != "O" and before[1] == after[1]
    if scheme == "iob1":
        return after[0] != "B" or same
    if scheme == "iob2":
        return after[0] != "I" or same
    return (after[0] in "IE") == (before[0] in "BI") and (same or before[0] not in "BI")


def legal(tags: Sequence[str], scheme: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which of `tags` may begin a sentence, follow one another and end it.

    Returns (start (L,), transitions (L, L), end (L,)), all bool; `transitions[i, j]` is whether tag j may follow tag i.

    Raises:
        DataError: a tag is none of the scheme.
    """
    count = len(tags)
    if scheme == PLAIN:
        return np.ones(count, bool), np.ones((count, count), bool), np.ones(count, bool)
    known = [_canonical(tag, scheme) for tag in tags]
    for tag, found in zip(tags, known, strict=True):
        if found is None:
            raise DataError(f"{tag!r} is no tag of {scheme}, which has O and {_spelling(scheme)}.")
    outside = ("O", "")
    return (
        np.array([_follows(scheme, outside, each) for each in known], bool),
        np.array([[_follows(scheme, one, other) for other in known] for one in known], bool).reshape(count, count),
        np.array([_follows(scheme, each, outside) for each in known], bool),
    )


def faults(tags: Sequence[str], scheme: str) -> list[tuple[int, str]]:
    """Where the tags of a sentence break their scheme: (place of the token, what is wrong). The place after the last
    token stands for the sentence's end."""
    if scheme == PLAIN:
        return []
    found, before, text = [], ("O", ""), "at the beginning"
    for place, tag in enumerate(tags):
        now = _canonical(tag, scheme)
        if now is None:
            found.append((place, f"{tag!r} is no tag of {scheme}"))
            now = ("O", "")
        elif not _follows(scheme, before, now):
            found.append((place, f"{tag} {text}"))
        before, text = now, f"after {tag}"
    if tags and not _follows(scheme, before, ("O", "")):
        found.append((len(tags), f"{tags[-1]} at the end"))
    return found


def spans(tags: Sequence[str], scheme: str, *, strict: bool = False) -> list[Span]:
    """The spans of a sentence, in order; they never overlap.

    By default as the script conlleval of CoNLL-2000 reads them, which makes the best of tags that break the scheme: a
    tag of another type begins a new span, and so does an inner tag after `O`. With `strict` only spans that are spelt
    as the scheme demands are there (in IOB1 every spelling of inner tags is one).
    """
    if scheme == PLAIN:
        raise DataError("plain labels have no spans; a scheme of O, B- and I- has.")
    found: list[Span] = []
    start, whole, kind, last = 0, False, "", "O"
    closed = scheme not in ("iob1", "iob2")
    for place, tag in enumerate(tags):
        prefix, type_ = _canonical(tag, scheme) or ("O", "")
        inside = last not in "OES" and prefix not in "OBS" and type_ == kind
        if not inside:
            if last != "O" and (whole or not strict):
                found.append(Span(start, place, kind))
            start, whole = place, prefix == "S" or (not closed and (prefix == "B" or scheme == "iob1"))
            begun = prefix == "B"
        elif closed:
            whole = prefix == "E" and begun
        kind, last = type_, prefix
    if last != "O" and (whole or not strict):
        found.append(Span(start, len(tags), kind))
    return found


def tags_of(spans: Iterable[Span], length: int, scheme: str) -> list[str]:
    """The tags of a sentence of `length` tokens with these spans, which lie in order and do not overlap."""
    tags = ["O"] * length
    before = Span(0, 0, "")
    for span in spans:
        first, inner, last, only = (SPELLINGS[scheme] + "IB")[:4]
        if scheme == "iob1" and (before.end != span.start or before.label != span.label or before.end == 0):
            first = only = inner
        ending = f"-{span.label}" if span.label else ""
        tags[span.start : span.end] = [inner + ending] * (span.end - span.start)
        tags[span.end - 1] = last + ending
        tags[span.start] = (only if span.end - span.start == 1 else first) + ending
        before = span
    return tags


def convert(tags: Sequence[str], source: str, target: str) -> list[str]:
    """The tags of a sentence in another scheme, by its spans as `spans` reads them; so what comes out is legal.

    Raises:
        DataError: one of the two schemes is plain, the other is not.
    """
    if source == target == PLAIN:
        return list(tags)
    if PLAIN in (source, target):
        raise DataError(f"{source} tags cannot be written as {target}; the schemes are {', '.join(SCHEMES)}.")
    return tags_of(spans(tags, source), len(tags), target)


def in_order(tags: Iterable[str], scheme: str) -> list[str]:
    """Different tags: O, then type by type, each with its prefixes in the order in which a span has them."""
    if scheme == PLAIN:
        return sorted(set(tags))

    def place(tag: str) -> tuple:
        prefix, kind = prefix_of(tag) or ("", tag)
        return tag != "O", kind, _ORDER.get(prefix, -1), tag

    return sorted(set(tags), key=place)


def _spelling(scheme: str) -> str:
    return ", ".join(f"{prefix}-" for prefix in SPELLINGS[scheme])
