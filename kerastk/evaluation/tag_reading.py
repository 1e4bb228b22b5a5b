"""What the report of a tagger believes of a run folder; see `reading`."""

import hashlib
from dataclasses import dataclass
from typing import Any

from kerastk.datasets.schemes import PLAIN, SCHEMES, Span, spans
from kerastk.datasets.source import SPLITS
from kerastk.datasets.vocabulary import MAX_TAGS, Vocabulary, folded
from kerastk.errors import RunError
from kerastk.evaluation.reading import LONGEST, Data, believed, data_fields, number, text, whole
from kerastk.evaluation.spans import ERRORS
from kerastk.run import Run

# A tag of such a length is none.
_LONGEST_TAG = 1000


@dataclass(frozen=True)
class TagLabels:
    """The tags in output order, the scheme they are of, and that of the user's files."""

    classes: list[str]
    scheme: str
    source_scheme: str

    @property
    def plain(self) -> bool:
        """Whether each word has a label of its own, and there are no spans."""
        return self.scheme == PLAIN

    @classmethod
    def of(cls, run: Run) -> "TagLabels":
        """From labels.json."""
        labels = run.labels
        with believed(run.labels_json):
            classes, schemes = labels["classes"], (labels["scheme"], labels["source_scheme"])
            if labels["task"] != "tag" or not isinstance(classes, list) or not 1 < len(classes) <= MAX_TAGS:
                raise ValueError
            if any(each not in SCHEMES for each in schemes) or (PLAIN in schemes and schemes != (PLAIN, PLAIN)):
                raise ValueError
            return cls([text(each, _LONGEST_TAG) for each in classes], *schemes)


@dataclass(frozen=True)
class Counted:
    """How many there are, how many were guessed, and how many of the guessed are right."""

    right: int
    guessed: int
    true: int

    @property
    def f1(self) -> float:
        """The harmonic mean of precision and recall."""
        return 2 * self.right / (self.guessed + self.true) if self.guessed + self.true else 0.0

    @property
    def precision(self) -> float:
        """The share of the guessed that are right."""
        return self.right / self.guessed if self.guessed else 0.0

    @property
    def recall(self) -> float:
        """The share that is found."""
        return self.right / self.true if self.true else 0.0

    @classmethod
    def of(cls, row: dict[str, Any]) -> "Counted":
        """From a row of metrics.json. Raises ValueError, TypeError or KeyError."""
        found = cls(whole(row["right"]), whole(row["guessed"]), whole(row["spans"]))
        if found.right > min(found.guessed, found.true):
            raise ValueError
        return found


@dataclass(frozen=True)
class TagFigures:
    """Those of a split. `score` is the F1 of spans, or the share of right tags where these are plain; `rows` count the
    spans of each type, or the words of each tag, and `confusion` what was answered for it: {truth: {answer: count}}.

    Of spans there are `errors` by kind, and `seen` has the counts of "seen" and "unseen" ones; else both are empty.
    """

    sentences: int
    words: int
    token_accuracy: float
    score: float
    interval: tuple[float, float]
    rows: dict[str, Counted]
    confusion: dict[str, dict[str, int]]
    errors: dict[str, int]
    seen: dict[str, Counted]

    @property
    def all(self) -> Counted:
        """Of all rows together."""
        rows = self.rows.values()
        return Counted(*(sum(getattr(row, each) for row in rows) for each in ("right", "guessed", "true")))

    @classmethod
    def of(cls, figures: dict[str, Any], *, plain: bool) -> "TagFigures":
        """From metrics.json. Raises ValueError, TypeError or KeyError."""
        confusion = {
            text(truth, _LONGEST_TAG): {text(answer, _LONGEST_TAG): whole(count) for answer, count in row.items()}
            for truth, row in figures["confusion"].items()
        }
        score, bounds = ("token_accuracy", "token_accuracy_95") if plain else ("f1", "f1_95")
        low, high = figures[bounds]
        if plain:
            rows = _from_confusion(confusion)
        else:
            rows = {text(name, _LONGEST_TAG): Counted.of(row) for name, row in figures["types"].items()}
        found = cls(
            sentences=whole(figures["sentences"]),
            words=whole(figures["tokens"]),
            token_accuracy=number(figures["token_accuracy"]),
            score=number(figures[score]),
            interval=(number(low), number(high)),
            rows=rows,
            confusion=confusion,
            errors={} if plain else {each: whole(figures["errors"][each]) for each in ERRORS},
            seen={} if plain else {each: Counted.of(figures["seen"][each]) for each in ("seen", "unseen")},
        )
        counted = found.words if plain else whole(figures["spans"])
        if not found.words or found.all.true != counted or len(rows) > MAX_TAGS or len(confusion) > MAX_TAGS:
            raise ValueError
        return found


def _from_confusion(confusion: dict[str, dict[str, int]]) -> dict[str, Counted]:
    guessed: dict[str, int] = {}
    for row in confusion.values():
        for answer, count in row.items():
            guessed[answer] = guessed.get(answer, 0) + count
    return {
        name: Counted(confusion.get(name, {}).get(name, 0), guessed.get(name, 0), sum(confusion.get(name, {}).values()))
        for name in sorted(confusion.keys() | guessed.keys())
    }


@dataclass(frozen=True, kw_only=True)
class TagData(Data):
    """data.json of tagged sentences: how many a split has, and as far as it is known how many words, and which shares
    of words and of spans the training split has not.

    `places` are the sentences of each split in order: file and line, and SHA-256.
    """

    described: str
    sentences: dict[str, int]
    words: dict[str, int]
    unseen_words: dict[str, float]
    unseen_spans: dict[str, float]
    places: dict[str, list[tuple[str, str]]]

    @property
    def content(self) -> tuple[dict[str, list[str]], dict[str, dict[str, int]]]:
        """What is equal where runs have the same sentences in the same splits, whatever the scheme they train."""
        return {name: sorted(digest for _, digest in found) for name, found in self.places.items()}, self.counts

    @classmethod
    def of(cls, run: Run) -> "TagData":
        """From data.json."""
        data = run.data
        with believed(run.data_json):
            places: dict[str, list[tuple[str, str]]] = {name: [] for name in SPLITS}
            for each in data["files"]:
                places[each["split"]].append((text(each["path"], LONGEST), text(each["sha256"], 100)))
            facts = {name: each for name, each in data.get("facts", {}).items() if name in SPLITS}
            shares = {
                what: {name: number(each[what]) for name, each in facts.items() if each[what] is not None}
                for what in ("unseen_words", "unseen_spans")
            }
            return cls(
                **data_fields(data),
                described=text(data["described"]),
                sentences={name: len(found) for name, found in places.items()},
                words={name: whole(each["words"]) for name, each in facts.items()},
                places=places,
                **shares,
            )


@dataclass(frozen=True)
class Answered:
    """A sentence of the split that the run is judged by: its words, true tags and answers; `place` is file and line."""

    words: tuple[str, ...]
    truth: tuple[str, ...]
    answer: tuple[str, ...]
    place: str

    def errors(self, scheme: str) -> int:
        """How many spans are missed or wrong; where tags are plain, how many of these."""
        if scheme == PLAIN:
            return sum(one != other for one, other in zip(self.truth, self.answer, strict=True))
        true, guessed = self.spans(scheme)
        return len(set(true) ^ set(guessed))

    def spans(self, scheme: str) -> tuple[list[Span], list[Span]]:
        """The true spans, and those that were found."""
        return spans(self.truth, scheme), spans(self.answer, scheme)


def answered(run: Run, places: list[tuple[str, str]], words: int) -> list[Answered]:
    """The sentences of predictions.conll, which are those of `places` (see `TagData`) and have so many words.

    Raises:
        RunError: it is missing, damaged, or has other sentences.
    """
    found = []
    with believed(run.predictions_conll):
        blocks = run.tags.removesuffix("\n\n").split("\n\n")
        for block, (place, digest) in zip(blocks, places, strict=True):
            tokens, truth, answer = zip(*(line.rsplit("\t", 2) for line in block.split("\n")), strict=True)
            if hashlib.sha256("\0".join(tokens).encode()).hexdigest() != digest:
                raise ValueError
            if any(len(tag) > _LONGEST_TAG for tag in (*truth, *answer)):
                raise ValueError
            found.append(Answered(tokens, truth, answer, place))
        if sum(len(each.words) for each in found) != words:
            raise ValueError
    return found


@dataclass(frozen=True)
class Known:
    """The words that a tagger has vectors for, as they are looked up, and its characters."""

    words: frozenset[str]
    characters: int
    fold_digits: bool
    lower: bool

    @classmethod
    def of(cls, run: Run, classes: list[str]) -> "Known":
        """From vocabulary.json. Raises RunError."""
        try:
            found = Vocabulary.from_json(run.vocabulary)
        except RunError:
            raise RunError(f"{run.vocabulary_json} is damaged.") from None
        if list(found.tags) != classes:
            raise RunError(f"{run.vocabulary_json} and {run.labels_json.name} do not belong together.")
        return cls(frozenset(found.words), len(found.characters), found.fold_digits, found.lower)

    def __contains__(self, word: str) -> bool:
        return folded(word, fold_digits=self.fold_digits, lower=self.lower) in self.words
