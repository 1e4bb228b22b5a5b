"""Sentences with their errors marked: the truth above a word, the answer below it, and what is wrong in words."""

from collections.abc import Iterator
from typing import NamedTuple

from kerastk.datasets.schemes import PLAIN, Span
from kerastk.evaluation import charts
from kerastk.evaluation.spans import errors_of
from kerastk.evaluation.tag_reading import Answered
from kerastk.screen import printable


class Mark(NamedTuple):
    """How a kind of error is told: its number among the page's colours, its name, and what it means."""

    kind: str
    colour: int
    name: str
    meaning: str


MARKS = {
    each.kind: each
    for each in (
        Mark("type", 2, "wrong type", "the ends are right"),
        Mark("boundary", 4, "wrong boundary", "the type is right"),
        Mark("both", 7, "both wrong", "they overlap, with another type and other ends"),
        Mark("missed", 5, "missed", "nothing was answered there"),
        Mark("spurious", 6, "spurious", "there is nothing"),
    )
}
RIGHT = Mark("right", 3, "right", "")
# Of a sentence with more words than this only those around its errors are shown, so many on each side.
_WHOLE, _AROUND = 50, 10
_LONGEST_WORD, _LONGEST_LABEL, _LONGEST_TEXT = 60, 24, 80


class Bar(NamedTuple):
    """A piece of a span at one word: its label where it begins, else an empty text; `more` if it goes on."""

    label: str
    mark: Mark
    more: bool


class Word(NamedTuple):
    """A word, or … for several that are left out; `width` is that of its longer label, in letters."""

    text: str
    truth: Bar | None = None
    answer: Bar | None = None

    @property
    def width(self) -> int:
        """Letters of the longer label."""
        return max((len(each.label) for each in (self.truth, self.answer) if each), default=0)


class Marked(NamedTuple):
    """A sentence for the page: where it stands, its words, and its errors as (mark, text)."""

    place: str
    words: list[Word]
    errors: list[tuple[Mark, str]]


def marked(sentence: Answered, scheme: str) -> Marked:
    """A sentence, whose tags are of `scheme`, with its errors."""
    if scheme == PLAIN:
        true, guessed, errors = _of_tags(sentence)
    else:
        true, guessed = sentence.spans(scheme)
        errors = errors_of(true, guessed)
    kinds = {span: MARKS[kind] for kind, one, other in errors for span in (one, other) if span is not None}
    truth, answer = _bars(true, _kinds(true, kinds, true)), _bars(guessed, _kinds(guessed, kinds, true))
    places = {place for _, one, other in errors for span in (one, other) if span for place in range(*span[:2])}
    words = [
        Word("…")
        if place is None
        else Word(charts.short(printable(sentence.words[place]), _LONGEST_WORD), truth.get(place), answer.get(place))
        for place in _kept(len(sentence.words), places)
    ]
    said = [(MARKS[kind], _said(sentence, kind, one, other)) for kind, one, other in errors]
    return Marked(printable(sentence.place), words, said)


def _of_tags(sentence: Answered) -> tuple[list[Span], list[Span], list[tuple[str, Span, Span]]]:
    """The wrong words of a sentence with plain tags, as spans of one word each and errors of their type."""
    pairs = enumerate(zip(sentence.truth, sentence.answer, strict=True))
    both = [(Span(at, at + 1, one), Span(at, at + 1, other)) for at, (one, other) in pairs if one != other]
    return [one for one, _ in both], [other for _, other in both], [("type", *pair) for pair in both]


def _kinds(spans: list[Span], known: dict[Span, Mark], true: list[Span]) -> dict[Span, Mark]:
    """The mark of each span. One of several that overlap the same true span has this one's."""
    found = {}
    for span in spans:
        over = [known[one] for one in true if one in known and one.start < span.end and span.start < one.end]
        found[span] = known.get(span) or (over[0] if over else RIGHT)
    return found


def _bars(spans: list[Span], marks: dict[Span, Mark]) -> dict[int, Bar]:
    return {
        place: Bar(
            charts.short(printable(span.label), _LONGEST_LABEL) if place == span.start else "",
            marks[span],
            place + 1 < span.end,
        )
        for span in spans
        for place in range(span.start, span.end)
    }


def _kept(count: int, errors: set[int]) -> Iterator[int | None]:
    """The places of the words that are shown, and None for each gap between them."""
    before = -1
    for place in range(count):
        if count <= _WHOLE or any(abs(place - each) <= _AROUND for each in errors):
            if place != before + 1:
                yield None
            yield place
            before = place
    if before != count - 1:
        yield None


def _said(sentence: Answered, kind: str, one: Span | None, other: Span | None) -> str:
    """An error in words."""

    def text(span: Span) -> str:
        return f"“{charts.short(printable(' '.join(sentence.words[span.start : span.end])), _LONGEST_TEXT)}”"

    def label(span: Span) -> str:
        return charts.short(printable(span.label), _LONGEST_LABEL) or "a span"

    if one is None:
        return f"{text(other)} is answered {label(other)}, and is nothing"
    if other is None:
        return f"{text(one)} is {label(one)}, and nothing is answered"
    if kind == "type":
        return f"{text(one)} is {label(one)}, and is answered {label(other)}"
    return f"{text(one)} is {label(one)}, and {text(other)} is answered {label(other)}"
