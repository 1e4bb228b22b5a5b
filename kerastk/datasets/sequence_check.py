"""What is worth knowing of tagged sentences before anything is trained on them: findings, and figures of each split.

`check_sentences` judges and refuses nothing; `sequence_data.settle_sentences` does.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from kerastk.datasets.files import Finding
from kerastk.datasets.schemes import PLAIN, faults, in_order, spans, type_of
from kerastk.datasets.sentence import Sentence
from kerastk.datasets.sequences import Sentences

# Every kind of finding: what the user reads, and whether a tag or span of the file is lost by it.
KINDS: dict[str, tuple[str, bool]] = {
    "illegal": ("tags that break their scheme (read as conlleval reads them)", False),
    "scheme": ("a file in another scheme than the training data (converted)", False),
    "span-border": ("spans that begin or end inside a word (widened)", False),
    "span-lost": ("spans without a word of their own (left out)", True),
    "unused-column": ("columns that are not used", False),
    "leak": ("the same sentences in two given splits (left where they are)", False),
    "two-taggings": ("the same words tagged differently", False),
    "unseen-label": ("labels that the training data does not have", False),
    "rare-label": ("labels with few examples in the training data", False),
    "no-spans": ("splits without a single span", False),
    "long": ("sentences longer than the longest that is trained on in one piece", False),
    "cut": ("sentences cut for training", False),
}
RARE = 10
LONG = 256
# Findings of one kind in one file that are listed one by one.
_LISTED = 1000
# Places that a finding about many names.
_EXAMPLES = 3


@dataclass(frozen=True)
class Facts:
    """What a split holds. `labels` counts spans by type, or tokens by label; `tags` counts tokens by tag.

    `unseen_words` and `unseen_spans` are shares of all of them that the training split has not, with the same spelling
    (and type); None for the training split itself, and for the second where there are no spans.
    """

    sentences: int
    tokens: int
    longest: int
    labels: dict[str, int]
    tags: dict[str, int]
    unseen_words: float | None
    unseen_spans: float | None


@dataclass(frozen=True)
class SentenceLook:
    """A look at files of sentences, by the name of their split; `scheme` is that of the training data."""

    files: dict[str, Sentences]
    scheme: str
    facts: dict[str, Facts]
    findings: list[Finding]
    # What the kinds of findings mean.
    kinds: ClassVar[dict[str, tuple[str, bool]]] = KINDS

    @property
    def tags(self) -> list[str]:
        """All tags of the training data, in order."""
        return in_order(self.facts["train"].tags, self.scheme)


def check_sentences(files: Mapping[str, Sentences]) -> SentenceLook:
    """Look at tagged files: {"train": ...} with maybe "val" and "test".

    Where one of several files breaks the scheme of the training data it is looked at in its own.
    """
    scheme = files["train"].scheme
    findings = [finding for each in files.values() for finding in each.findings]
    schemes = {}
    for name, each in files.items():
        schemes[name] = each.scheme if name == "train" else scheme_beside(scheme, each)
        if schemes[name] != scheme:
            findings.append(Finding("scheme", (each.path,), f"{schemes[name]} beside {scheme}"))
        findings += _faults(each, schemes[name])
        findings += _long(each)
    train = _Seen(files["train"].sentences, scheme)
    facts = {}
    for name, each in files.items():
        facts[name] = _facts(each.sentences, schemes[name], None if name == "train" else train)
        if scheme != PLAIN and not facts[name].labels:
            findings.append(Finding("no-spans", (each.path,), f"{facts[name].tokens:,} words, all of them O"))
        if name != "train":
            findings += _unseen_labels(each, schemes[name], {type_of(tag, scheme) for tag in facts["train"].tags})
    findings += _leaks(files)
    findings += _two_taggings(files)
    findings += [
        Finding("rare-label", (files["train"].path,), f"{label}: {count}")
        for label, count in sorted(facts["train"].labels.items())
        if count < RARE
    ]
    return SentenceLook(dict(files), scheme, facts, sorted(findings, key=lambda each: list(KINDS).index(each.kind)))


def scheme_beside(scheme: str, sentences: Sentences) -> str:
    """The scheme of a file beside training data of `scheme`: that one too, unless another one fits without a fault.

    A small file often fits several: one of spans of single words that never touch is IOB2, and IOB1 but for its B.
    """
    own = sentences.scheme
    if own == scheme or PLAIN in (own, scheme):
        return own
    tags = [each.tags for each in sentences.sentences]
    broken = {name: sum(len(faults(each, name)) for each in tags) for name in (scheme, own)}
    return scheme if broken[scheme] <= broken[own] else own


def _faults(sentences: Sentences, scheme: str) -> Iterator[Finding]:
    count = 0
    for each in sentences.sentences:
        for place, text in faults(each.tags, scheme):
            count += 1
            if count <= _LISTED:
                yield Finding("illegal", (_place(each, sentences, place),), f"{text} ({scheme})")
    if count > _LISTED:
        yield Finding("illegal", (sentences.path,), f"and {count - _LISTED:,} more")


def _place(sentence: Sentence, sentences: Sentences, token: int) -> str:
    """The line of a token, where a token has one."""
    last = min(token, len(sentence.tokens) - 1)
    if sentences.kind == "conll":
        return f"{sentence.file}:{sentence.line + last}"
    return f"{sentence.place} (word {last + 1})"


def _long(sentences: Sentences) -> Iterator[Finding]:
    long = [each for each in sentences.sentences if len(each.tokens) > LONG]
    if long:
        most = max(len(each.tokens) for each in long)
        yield Finding("long", tuple(each.place for each in long[:_EXAMPLES]), f"{len(long):,} of up to {most:,} words")


def facts_of(splits: Mapping[str, list[Sentence]], scheme: str) -> dict[str, Facts]:
    """What each split holds that has sentences, all of them tagged in `scheme`; unseen is what "train" has not."""
    train = _Seen(splits["train"], scheme)
    return {
        name: _facts(sentences, scheme, None if name == "train" else train)
        for name, sentences in splits.items()
        if sentences
    }


class _Seen:
    """The words and spans of the training split."""

    def __init__(self, sentences: list[Sentence], scheme: str):
        self.words = {word for each in sentences for word in each.tokens}
        self.spans = {written for each in sentences for written in written_spans(each, scheme)}


def written_spans(sentence: Sentence, scheme: str) -> list[tuple[tuple[str, ...], str]]:
    """The spans of a sentence by what is written: their words and their type; none of plain labels."""
    if scheme == PLAIN:
        return []
    return [(sentence.tokens[span.start : span.end], span.label) for span in spans(sentence.tags, scheme)]


def _facts(sentences: list[Sentence], scheme: str, train: _Seen | None) -> Facts:
    tags = Counter(tag for each in sentences for tag in each.tags)
    written = [span for each in sentences for span in written_spans(each, scheme)]
    labels = tags if scheme == PLAIN else Counter(label for _, label in written)
    tokens = tags.total()
    new_words = new_spans = None
    if train is not None:
        new_words = sum(word not in train.words for each in sentences for word in each.tokens) / tokens
        if written:
            new_spans = sum(span not in train.spans for span in written) / len(written)
    longest = max(len(each.tokens) for each in sentences)
    return Facts(len(sentences), tokens, longest, dict(sorted(labels.items())), dict(tags), new_words, new_spans)


def _unseen_labels(sentences: Sentences, scheme: str, known: set[str | None]) -> Iterator[Finding]:
    counts: Counter[str] = Counter()
    example: dict[str, str] = {}
    for each in sentences.sentences:
        for place, tag in enumerate(each.tags):
            label = type_of(tag, scheme)
            if label is not None and label not in known:
                counts[label] += 1
                example.setdefault(label, _place(each, sentences, place))
    for label in sorted(counts):
        yield Finding("unseen-label", (example[label],), f"{label}: {counts[label]} words")


def _leaks(files: Mapping[str, Sentences]) -> Iterator[Finding]:
    """Sentences that stand in two of the files."""
    content = {name: {each.tokens: each for each in reversed(file.sentences)} for name, file in files.items()}
    names = list(files)
    for place, one in enumerate(names):
        for other in names[place + 1 :]:
            both = [each for each in files[other].sentences if each.tokens in content[one]]
            if both:
                share = 100 * len(both) / len(files[other].sentences)
                pairs = [where for each in both[:_EXAMPLES] for where in (each.place, content[one][each.tokens].place)]
                total = len(files[other].sentences)
                text = f"{len(both):,} of {total:,} sentences of {other} ({share:.1f} %) are in {one}, too"
                yield Finding("leak", tuple(pairs), text)


def _two_taggings(files: Mapping[str, Sentences]) -> Iterator[Finding]:
    """Sentences of a file that come with different tags."""
    for file in files.values():
        first: dict[tuple[str, ...], Sentence] = {}
        for each in file.sentences:
            before = first.setdefault(each.tokens, each)
            if before.tags != each.tags:
                place = next(
                    place for place, pair in enumerate(zip(before.tags, each.tags, strict=True)) if len(set(pair)) > 1
                )
                text = f"{each.tokens[place][:40]!r} is {before.tags[place]} and {each.tags[place]}"
                yield Finding("two-taggings", (before.place, each.place), text)
