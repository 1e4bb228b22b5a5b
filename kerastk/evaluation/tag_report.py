"""The page about the run of a tagger."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from kerastk.datasets.sequence_check import KINDS
from kerastk.evaluation import charts, page
from kerastk.evaluation.marked import MARKS, Marked, marked
from kerastk.evaluation.reading import Metrics
from kerastk.evaluation.spans import OUTSIDE
from kerastk.evaluation.tag_reading import Answered, Counted, Known, TagData, TagFigures, TagLabels, answered
from kerastk.recipe import Tag
from kerastk.run import Run

# A split of fewer spans (or words, where tags are plain), whose interval is wide, is pointed out.
FEW = 200
# Sentences with errors that are shown, and those that open on a click.
SENTENCES, FURTHER = 24, 24
# Types in the matrix of what is confused with what, the most frequent ones.
_PICTURED = 60
# Sentences of more words are not shown.
_LONGEST_SENTENCE = 400
_PAIRS = 12
# Findings that may spoil what is learned or measured.
_SERIOUS = ("illegal", "span-lost", "leak", "two-taggings", "unseen-label", "no-spans")
# What the matrix calls the absence of a span.
_NOTHING = "nothing"


@dataclass(frozen=True, kw_only=True)
class TagAbout(page.About):
    """All that a page about the run of a tagger is made of. `answered` are the sentences that it is judged by."""

    recipe: Tag
    labels: TagLabels
    data: TagData
    answered: list[Answered]
    known: Known

    @property
    def measure(self) -> str:
        """What the run is judged by, in words."""
        return "accuracy" if self.labels.plain else "F1"

    @property
    def items(self) -> str:
        """What the run is judged on."""
        return "words" if self.labels.plain else "spans"

    @property
    def compared(self) -> dict[str, str]:
        """The columns of the log that are drawn of several runs, and what they are."""
        score = "val_accuracy" if self.labels.plain else "val_f1"
        return {"val_loss": "Loss", score: self.measure[0].upper() + self.measure[1:]}

    @property
    def network(self) -> str:
        """What answers, in a word."""
        return f"{self.recipe.cell}-{self.recipe.output}"

    @property
    def columns(self) -> dict[str, str]:
        """Further figures for a table, by their heads."""
        judged, found = self.judged, {}
        if not self.labels.plain:
            found = {
                "precision": page.percent(judged.all.precision),
                "recall": page.percent(judged.all.recall),
                "unseen": page.percent(judged.seen["unseen"].recall),
            }
        return {**found, self.items: self.judged_on(judged.all.true)}

    @property
    def unknown_words(self) -> float:
        """The share of the words that the run is judged by that have no vector of their own."""
        return sum(word not in self.known for each in self.answered for word in each.words) / self.judged.words

    @property
    def groups(self) -> dict[str, Counted]:
        """Spans that the training data has and has not; words with and without a vector, where tags are plain."""
        if not self.labels.plain:
            return self.judged.seen
        found = {True: [0, 0], False: [0, 0]}
        for each in self.answered:
            for word, one, other in zip(each.words, each.truth, each.answer, strict=True):
                group = found[word in self.known]
                group[0] += one == other
                group[1] += 1
        return {
            name: Counted(right, count, count)
            for name, (right, count) in (("known", found[True]), ("unknown", found[False]))
        }


def about(run: Run, metrics: dict[str, Any] | None = None) -> TagAbout:
    """Read and check everything. Raises RunError, RecipeError."""
    labels, data = TagLabels.of(run), TagData.of(run)
    read = Metrics.of(run, lambda figures: TagFigures.of(figures, plain=labels.plain), metrics)
    return TagAbout(
        **page.common_fields(run),
        labels=labels,
        metrics=read,
        data=data,
        answered=answered(run, data.places["test" if read.judged == "test" else "val"], read.splits[read.judged].words),
        known=Known.of(run, labels.classes),
    )


def html(about: TagAbout) -> str:
    """The page."""
    judged, plain, trained = about.judged, about.labels.plain, about.data.counts["train"]
    counts = [(name, row.right, row.true, row.guessed) for name, row in judged.rows.items()]
    classes = page.class_rows(counts, trained)
    phases = page.phases_of(about, "words", about.data.words.get("train", 0))
    examples = _examples(about)
    terms = {"kind": "tag", "kinds": "tags", "item": "word", "items": "words", "data": "sentences"}
    if not plain:
        terms |= {"kind": "type", "kinds": "types", "item": "span", "items": "spans"}
    return page.render(
        "tags.html",
        about,
        terms,
        plain=plain,
        few=judged.all.true if judged.all.true < FEW else None,
        labels=_by_frequency({name for each in about.data.counts.values() for name in each}, trained),
        parts=page.parts_of(
            about, phases, looking="reading the sentences, split, vocabulary", noun="sentences",
            between="before and between: compiling, checkpoints",
        ),
        phases=phases,
        curves=_curves(about),
        confusion=_matrix(judged.confusion),
        pictured=_PICTURED if len(judged.rows) > _PICTURED else None,
        confused=_confused(judged.confusion),
        classes=classes,
        weakest=page.weakest_of(classes),
        found=page.findings_of(about.data, KINDS, _SERIOUS),
        groups=about.groups,
        errors=_errors(judged.errors),
        marks=MARKS,
        examples=examples[:SENTENCES],
        further=examples[SENTENCES:],
        wrong_sentences=sum(each.truth != each.answer for each in about.answered),
    )  # fmt: skip


def _by_frequency(names: Iterable[str], counts: Mapping[str, int]) -> list[str]:
    return sorted(names, key=lambda each: (-counts.get(each, 0), each))


def _curves(about: TagAbout) -> dict[str, Markup]:
    draw = page.curve_drawer(about)
    if draw is None:
        return {}
    score = "val_accuracy" if about.labels.plain else "val_f1"
    return {
        "loss": draw("Loss over epochs", {"loss": 2, "val_loss": 1}, from_zero=True),
        "score": draw(f"{about.measure} over epochs", {score: 1}, percent=True),
        "learning_rate": draw("Learning rate over epochs", {"learning_rate": 3}, from_zero=True, height=170),
    }


def _matrix(confusion: Mapping[str, Mapping[str, int]]) -> Markup:
    """What the most frequent types (or tags) were answered, and what was found where there is nothing."""
    totals: dict[str, int] = {}
    for truth, row in confusion.items():
        for answer, count in row.items():
            totals[truth] = totals.get(truth, 0) + count
            totals[answer] = totals.get(answer, 0) + count
    names = sorted(_by_frequency(totals, totals)[:_PICTURED], key=lambda each: (each == OUTSIDE, each))
    place = {name: number for number, name in enumerate(names)}
    matrix = np.zeros((len(names), len(names)), np.int64)
    for truth, row in confusion.items():
        for answer, count in row.items():
            if truth in place and answer in place:
                matrix[place[truth], place[answer]] = count
    shown = [_NOTHING if each == OUTSIDE else each for each in page.printable_names(names)]
    return charts.confusion(matrix, shown, "Confusion matrix")


def _confused(confusion: Mapping[str, Mapping[str, int]]) -> list[dict[str, Any]]:
    """The pairs of types (or tags) that are confused most often; what is missed or spurious is no pair."""
    pairs = [
        {"truth": truth, "answer": answer, "count": count, "of": sum(row.values())}
        for truth, row in confusion.items()
        for answer, count in row.items()
        if count and truth != answer and OUTSIDE not in (truth, answer)
    ]
    return sorted(pairs, key=lambda pair: -pair["count"])[:_PAIRS]


def _errors(errors: Mapping[str, int]) -> list[dict[str, Any]]:
    """The kinds of errors with their numbers and shares; none where there are no errors."""
    total = sum(errors.values())
    return [{"mark": MARKS[kind], "count": count, "share": count / total} for kind, count in errors.items() if total]


def _examples(about: TagAbout) -> list[Marked]:
    """The sentences with the most errors."""
    return [marked(each, about.labels.source_scheme) for each in _worst(about.answered, about.labels.source_scheme)]


def _worst(sentences: Iterable[Answered], scheme: str) -> list[Answered]:
    wrong = [(each.errors(scheme), each) for each in sentences if len(each.words) <= _LONGEST_SENTENCE]
    ranked = sorted((pair for pair in wrong if pair[0]), key=lambda pair: -pair[0])
    return [each for _, each in ranked[: SENTENCES + FURTHER]]
