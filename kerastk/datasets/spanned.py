"""Sentences from JSON lines: texts with spans of characters, or lists of tokens with their tags.

Texts are cut into sentences and words by `tokens`, and tagged as IOB2.
"""

import json
from collections.abc import Iterator
from typing import Any

from kerastk.datasets.files import Finding
from kerastk.datasets.schemes import Span, tags_of
from kerastk.datasets.sentence import MAX_SENTENCE, Lines, Sentence
from kerastk.datasets.tokens import sentences, tokenise

# What the list of spans, and the parts of a span that is an object, may be called; the first one that is there counts.
_SPANS = ("spans", "entities", "labels", "label", "annotations")
_START, _END = ("start", "start_offset", "begin"), ("end", "end_offset")
_LABEL = ("label", "type", "tag", "entity", "entity_group")
_TAGS = ("tags", "ner_tags", "labels")
_EXPECTED = 'expected {"text": "...", "spans": [[start, end, "label"], ...]} a line'

Mark = tuple[int, int, str]


def read_spanned(lines: Lines, findings: list[Finding]) -> Iterator[Sentence]:
    """The sentences of a file of JSON lines; spans that begin or end inside a word are told in `findings`.

    Raises:
        DataError: a line is no such object, or a span of it overlaps another one or lies outside of the text.
    """
    tagged: bool | None = None
    for line in lines:
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            # Python's own message quotes no more than the place; a recursion error has no place.
            raise lines.fault(f"no JSON ({str(error)[:100]}); {_EXPECTED}") from None
        if not isinstance(row, dict):
            raise lines.fault(f"{_kind(row)}; {_EXPECTED}")
        made = list(_of_text(row, lines, findings) if "text" in row else _of_tokens(row, lines))
        for each in made:
            if tagged is None:
                tagged = each.tags is not None
            if tagged != (each.tags is not None):
                what = "no" if tagged else "has"
                raise lines.fault(f"{what} spans, unlike the lines before; an empty list says that there are none")
        yield from made


def _of_tokens(row: dict[str, Any], lines: Lines) -> Iterator[Sentence]:
    tokens, tags = row.get("tokens"), next((row[name] for name in _TAGS if name in row), None)
    if not isinstance(tokens, list):
        raise lines.fault(f"an object of {', '.join(map(repr, list(row)[:5])) or 'nothing'}; {_EXPECTED}"[:300])
    for what, each in (("tokens", tokens), ("tags", tags)):
        if each is not None and not (
            isinstance(each, list) and all(isinstance(one, str) and one.strip() for one in each)
        ):
            raise lines.fault(f"{what} must be a list of texts that are not empty")
    if tags is not None and len(tags) != len(tokens):
        raise lines.fault(f"{len(tokens)} tokens, but {len(tags)} tags")
    if len(tokens) > MAX_SENTENCE:
        raise lines.fault(f"{len(tokens):,} tokens; the limit for a sentence is {MAX_SENTENCE:,}")
    _check_encodes(lines, *tokens, *(tags or ()))
    if tokens:
        yield Sentence(tuple(tokens), None if tags is None else tuple(tags), None, None, str(lines.path), lines.number)


def _of_text(row: dict[str, Any], lines: Lines, findings: list[Finding]) -> Iterator[Sentence]:
    text = row["text"]
    if not isinstance(text, str):
        raise lines.fault(f"text is {_kind(text)}; {_EXPECTED}")
    _check_encodes(lines, text)
    name = next((name for name in _SPANS if name in row), None)
    marks = None if name is None else _marks(row[name], name, len(text), lines)
    file = str(lines.path)
    for start, end in _pieces(text, marks or []):
        places = tokenise(text[start:end])
        if len(places) > MAX_SENTENCE:
            raise lines.fault(f"a sentence of {len(places):,} words; the limit is {MAX_SENTENCE:,}")
        tags = None
        if marks is not None:
            inside = [(first - start, last - start, label) for first, last, label in marks if start <= first < end]
            tags = tuple(tags_of(_covered(inside, places, text[start:end], lines, findings), len(places), "iob2"))
        tokens = tuple([text[start + first : start + last] for first, last in places])
        yield Sentence(tokens, tags, text[start:end], tuple(places), file, lines.number)


def _marks(given: Any, name: str, length: int, lines: Lines) -> list[Mark]:
    """The spans of a line, in order."""
    if not isinstance(given, list):
        raise lines.fault(f"{name} is {_kind(given)}; {_EXPECTED}")
    marks = sorted((_mark(each, lines) for each in given), key=lambda mark: mark[:2])
    last = (0, 0, "")
    for mark in marks:
        start, end, label = mark
        if not 0 <= start < end <= length:
            raise lines.fault(
                f"the span {start} to {end} ({label[:40]}) does not lie in the text of {length} characters"
            )
        if start < last[1]:
            both = f"{last[0]} to {last[1]} ({last[2][:40]}) and {start} to {end} ({label[:40]})"
            raise lines.fault(f"the spans {both} overlap; a word has one tag")
        last = mark
    return marks


def _mark(given: Any, lines: Lines) -> Mark:
    if isinstance(given, dict):
        parts = [next((given[name] for name in names if name in given), None) for names in (_START, _END, _LABEL)]
    else:
        parts = given if isinstance(given, list) and len(given) == 3 else [None]
    good = all(type(part) is int for part in parts[:2]) and isinstance(parts[-1], str) and parts[-1].strip()
    if not good:
        shown = json.dumps(given)[:80]
        raise lines.fault(
            f'the span {shown}; expected [start, end, "label"] or {{"start": 0, "end": 1, "label": "..."}}'
        )
    _check_encodes(lines, parts[2])
    return parts[0], parts[1], parts[2].strip()


def _pieces(text: str, marks: list[Mark]) -> Iterator[tuple[int, int]]:
    """The sentences of a text, never cut inside of a span."""
    waiting = list(reversed(marks))
    begin = None
    for start, end in sentences(text):
        begin = start if begin is None else begin
        while waiting and waiting[-1][1] <= end:
            waiting.pop()
        if waiting and waiting[-1][0] < end:
            continue
        yield begin, end
        begin = None
    if begin is not None:
        # A span reaches into the white space at the end.
        yield begin, len(text.rstrip())


def _covered(
    marks: list[Mark], places: list[tuple[int, int]], text: str, lines: Lines, findings: list[Finding]
) -> Iterator[Span]:
    """The spans in tokens: each takes all words that it touches, and no word twice."""
    where = (f"{lines.path}:{lines.number}",)
    place = 0
    for start, end, label in marks:
        while place < len(places) and places[place][1] <= start:
            place += 1
        last = place
        while last < len(places) and places[last][0] < end:
            last += 1
        shown = f"{text[start:end][:40]!r} ({label[:40]})"
        if last == place:
            findings.append(Finding("span-lost", where, f"{shown} has no word of its own"))
            continue
        first_word, last_word = places[place], places[last - 1]
        # White space at the ends of a span does no harm.
        if first_word[0] < start or end < last_word[1]:
            widened = text[first_word[0] : last_word[1]][:40]
            findings.append(Finding("span-border", where, f"{shown} is taken for {widened!r}"))
        yield Span(place, last, label)
        place = last


def _check_encodes(lines: Lines, *texts: str) -> None:
    for text in texts:
        if "\0" in text or any("\ud800" <= each <= "\udfff" for each in (() if text.isascii() else text)):
            raise lines.fault("a text holds half of a surrogate pair or a NUL character")


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
