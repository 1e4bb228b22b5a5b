"""From a tagger's run folder to spans of text. Nothing but the folder is needed."""

import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from kerastk.datasets.buckets import SentenceRows
from kerastk.datasets.schemes import PLAIN, convert, spans
from kerastk.datasets.sentence import Sentence
from kerastk.datasets.tokens import sentences, tokenise
from kerastk.errors import DataError
from kerastk.run import Run

# Texts that are tagged together, and words of a batch.
_TEXTS = 2000
_BATCH_WORDS = 8192
# Of so many sentences batches have the same shapes each time; of fewer that would cost more than it saves.
_MANY = 500
# Lengths that sentences are padded to; longer ones to 256, 512, and so on.
_LENGTHS = (8, 16, 24, 32, 48, 64, 96, 128)


class Span(NamedTuple):
    """A piece of a text, `text[start:end]`, and what it is; `probability` is that of its least probable word's tag."""

    text: str
    label: str
    start: int
    end: int
    probability: float


class Tagger:
    """A trained tagger of words.

    Called with a text it gives its spans, with a list of words their tags in the spelling of the training files. A
    tagger of plain tags gives a span for each word. With `last` it is the model of the last epoch, where the run kept
    it.

    >>> tagger = kerastk.load("runs/names-lstm-crf-1")
    >>> tagger("Ana Lopes lives in Porto.")[0].label
    'PER'
    """

    def __init__(self, run: Run, *, last: bool = False):
        from kerastk.tasks.tag import labels_of, load_model

        self.run = run
        labels = labels_of(run)
        self.scheme, self.source_scheme = labels["scheme"], labels["source_scheme"]
        self._parts = labels["parts"]
        self.model, self.vocabulary = load_model(run, last=last)

    @property
    def classes(self) -> tuple[str, ...]:
        """The tags of the network, in its output's order."""
        return self.vocabulary.tags

    def __call__(self, given: str | Sequence[str]) -> list[Span] | list[str]:
        """The spans of a text, or the tags of a sentence's words."""
        if isinstance(given, str):
            return next(self.stream([given]))
        return next(self.tags([given]))

    def stream(self, texts: Iterable[str]) -> Iterator[list[Span]]:
        """The spans of each of many texts, in order, in bounded memory."""
        iterator = iter(texts)
        while chunk := list(itertools.islice(iterator, _TEXTS)):
            yield from self._spans(chunk)

    def answers(self, texts: Iterable[tuple[str, int, str]]) -> Iterator[tuple[str, int, str, list[Span]]]:
        """(path, line, text, spans) for each (path, line, text), as `lines` gives them."""
        ours, theirs = itertools.tee(texts)
        for (path, line, text), found in zip(ours, self.stream(text for _, _, text in theirs), strict=True):
            yield path, line, text, found

    def tags(self, sentences: Iterable[Sequence[str]]) -> Iterator[list[str]]:
        """The tags of each of many sentences that are in words already, as the training files spell them."""
        iterator = iter(sentences)
        while chunk := list(itertools.islice(iterator, _TEXTS)):
            for tags, _ in self._tagged(chunk):
                yield convert(tags, self.scheme, self.source_scheme)

    def _spans(self, texts: list[str]) -> Iterator[list[Span]]:
        places = [list(_sentences(text)) for text in texts]
        words = [
            [text[start:end] for start, end in place]
            for text, found in zip(texts, places, strict=True)
            for place in found
        ]
        tagged = iter(self._tagged(words))
        for text, found in zip(texts, places, strict=True):
            yield [span for place in found for span in self._named(text, place, *next(tagged))]

    def _named(
        self, text: str, places: Sequence[tuple[int, int]], tags: Sequence[str], probabilities: Sequence[float]
    ) -> Iterator[Span]:
        if self.scheme == PLAIN:
            for (start, end), tag, probability in zip(places, tags, probabilities, strict=True):
                yield Span(text[start:end], tag, start, end, probability)
            return
        for span in spans(tags, self.scheme):
            start, end = places[span.start][0], places[span.end - 1][1]
            yield Span(text[start:end], span.label, start, end, min(probabilities[span.start : span.end]))

    def _tagged(self, sentences: Sequence[Sequence[str]]) -> Iterator[tuple[list[str], list[float]]]:
        """Tags of the training's scheme and their probabilities; of a sentence without words, none."""
        from kerastk.training.tagging import answers

        full = [Sentence(tuple(words)) for words in sentences if words]
        found: Iterator[Any] = iter(())
        if full:
            rows = SentenceRows(
                full, self.vocabulary, batch_words=_BATCH_WORDS, training=False, lengths=_LENGTHS, parts=self._parts,
                fixed=len(full) >= _MANY,
            )  # fmt: skip
            found = answers(self.model, rows)
        for words in sentences:
            if not words:
                yield [], []
                continue
            answer = next(found)
            yield [self.classes[number] for number in answer.tags], answer.probabilities.tolist()


def _sentences(text: str) -> Iterator[list[tuple[int, int]]]:
    """The places of the words of each sentence of a text."""
    for start, end in sentences(text):
        yield [(start + first, start + last) for first, last in tokenise(text[start:end])]


def lines(paths: Iterable[str | os.PathLike]) -> Iterator[tuple[str, int, str]]:
    """(path, line number from 1, text) for every line of UTF-8 text files.

    Raises:
        DataError: a file cannot be read (found before anything else is done, where it does not exist), or is no UTF-8.
    """
    files = [Path(path) for path in paths]
    for path in files:
        if not path.is_file():
            raise DataError(f"no file {str(path)!r}; give text files, each line of which is a text.")
    for path in files:
        number = 0
        try:
            with open(path, encoding="utf-8-sig") as file:
                for number, line in enumerate(file, start=1):
                    yield str(path), number, line.rstrip("\r\n")
        except UnicodeDecodeError:
            raise DataError(f"{path}:{number + 1}: not UTF-8 text.") from None
        except OSError as error:
            raise DataError(f"cannot read {str(path)!r}: {error.strerror}.") from None
