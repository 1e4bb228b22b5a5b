"""From files of tagged sentences to batches in one call: files, check, split, vocabulary, buckets."""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from kerastk.datasets.buckets import SentenceRows, bucket_lengths, cut_long
from kerastk.datasets.files import Finding
from kerastk.datasets.schemes import PLAIN, SCHEMES, convert, in_order, spans
from kerastk.datasets.sentence import Sentence
from kerastk.datasets.sequence_check import KINDS, SentenceLook, check_sentences, facts_of, scheme_beside
from kerastk.datasets.sequences import Sentences, open_sentences
from kerastk.datasets.source import SPLITS
from kerastk.datasets.vocabulary import PARTS, Vocabulary
from kerastk.errors import DataError

FORMAT = 1
# The scheme that is trained on, where none is asked for: it tells most of a span's borders.
TRAINED = "iobes"
_SHOWN = {"train": "training", "val": "dev", "test": "test"}


@dataclass(frozen=True)
class SentenceManifest:
    """Sentences per split in the order of their files, with tags in the `scheme` that is trained; `classes` are the
    tags of the training split in output order. `source_scheme` is that of the files.

    `split` is the specification that cut the splits, or None where all of them came as files.
    """

    classes: list[str]
    splits: dict[str, list[Sentence]]
    findings: list[Finding]
    split: str | None
    split_seed: int | None
    scheme: str
    source_scheme: str
    described: str
    notes: list[str] = field(default_factory=list)
    set_aside: list[Finding] = field(default_factory=list)

    @property
    def sha256(self) -> str:
        """A hash of every sentence's words, tags and split, the same whatever the files are called."""
        rows = sorted((each.sha256, _hash_of_tags(each), name) for name in SPLITS for each in self.splits[name])
        return hashlib.sha256(json.dumps([self.classes, rows]).encode()).hexdigest()

    def counts(self, name: str) -> Counter:
        """Spans per type in one split; words per tag, where tags are plain."""
        if self.scheme == PLAIN:
            return Counter(tag for each in self.splits[name] for tag in each.tags)
        return Counter(span.label for each in self.splits[name] for span in spans(each.tags, self.scheme))

    def changes(self, recorded: dict) -> list[str]:
        """What differs from the data.json of a run, in words: tags and sentences that came or went."""
        changes = []
        for what, names in (("new tag", set(self.classes) - set(recorded["classes"])),
                            ("no tag", set(recorded["classes"]) - set(self.classes))):  # fmt: skip
            changes += [f"{what} {name!r}" for name in sorted(names)]
        now = {(each.sha256, _hash_of_tags(each)): each.place for name in SPLITS for each in self.splits[name]}
        before = {(row["sha256"], row["tags"]): row["path"] for row in recorded["files"]}
        for what, places in (("new", [now[key] for key in now.keys() - before.keys()]),
                             ("gone or changed", [before[key] for key in before.keys() - now.keys()])):  # fmt: skip
            if places:
                changes.append(f"{len(places)} sentences are {what}, such as {min(places)}")
        if not changes and self.sha256 != recorded["sha256"]:
            changes.append("sentences stand in other splits, or there are more or fewer copies")
        return changes

    def to_json(self) -> str:
        """The content of the run folder's data.json. A sentence's `path` is its file and line, `tags` a hash of
        them. `facts` has each split's words and the shares of words and spans that "train" has not."""
        content = {
            "format": FORMAT,
            "sha256": self.sha256,
            "classes": self.classes,
            "scheme": self.scheme,
            "source_scheme": self.source_scheme,
            "described": self.described,
            "split": self.split,
            "split_seed": self.split_seed,
            "counts": {name: dict(self.counts(name)) for name in SPLITS},
            "facts": {
                name: {"words": each.tokens, "unseen_words": each.unseen_words, "unseen_spans": each.unseen_spans}
                for name, each in facts_of(self.splits, self.scheme).items()
            },
            "notes": self.notes,
            "files": [
                {"path": each.place, "sha256": each.sha256, "tags": _hash_of_tags(each), "split": name}
                for name in SPLITS
                for each in self.splits[name]
            ],
            "set_aside": [],
            "findings": [{"kind": one.kind, "paths": list(one.paths), "text": one.text} for one in self.findings],
        }
        return json.dumps(content, indent=1)


@dataclass(frozen=True)
class SentenceData:
    """Tagged sentences, split and ready to be iterated; `test` is None where there is no test split.

    Each split gives ({"words", "characters", "casing"}, tags): see `SentenceRows`.
    """

    look: SentenceLook
    manifest: SentenceManifest
    vocabulary: Vocabulary
    train: SentenceRows
    val: SentenceRows
    test: SentenceRows | None

    @property
    def classes(self) -> list[str]:
        """Tags in output order."""
        return self.manifest.classes

    @property
    def label(self) -> str:
        """What `manifest.counts` counts, one of `labels`."""
        return "tag" if self.manifest.scheme == PLAIN else "span"

    @property
    def labels(self) -> list[str]:
        """The types of spans of all splits, or the tags where they are plain."""
        return sorted({label for name in SPLITS for label in self.manifest.counts(name)})


def open_tagged(
    train: str | os.PathLike,
    *,
    dev: str | os.PathLike | None = None,
    test: str | os.PathLike | None = None,
    columns: str | None,
    tag_column: str | None,
    scheme: str | None,
    split: str | None,
    fractions: tuple[float, float, float],
    split_seed: int | None,
    strict: bool,
    max_words: int,
    min_count: int,
    fold_digits: bool,
    lower: bool,
    word_length: int,
    batch_words: int,
    max_length: int,
    word_dropout: float,
    seed: int,
    parts: Sequence[str] = PARTS,
    extra: Iterable[str] = (),
    vocabulary: Vocabulary | None = None,
    assigned: Mapping[str, str] | None = None,
) -> SentenceData:
    """Read the files, look at them, split what is not split, and prepare the batches.

    `scheme` is what is trained on (None: TRAINED, or plain labels as they are), `split` the user's own specification or
    None, `max_length` the most words of a sentence that is trained on in one piece. `vocabulary` is one that is there
    already, `extra` are words that a new one has beside those of the training split. `assigned` names the splits of
    sentences that have one already, by SHA-256.

    Raises:
        DataError: see `open_sentences` and `settle_sentences`.
    """
    look = look_at({"train": train, "val": dev, "test": test}, columns=columns, tag_column=tag_column)
    manifest = settle_sentences(
        look, scheme=scheme, split=split, fractions=fractions, split_seed=split_seed, strict=strict, assigned=assigned
    )
    if vocabulary is None:
        vocabulary = Vocabulary.of(
            (each.tokens for each in manifest.splits["train"]), manifest.classes, max_words=max_words,
            min_count=min_count, fold_digits=fold_digits, lower=lower, word_length=word_length, extra=extra,
        )  # fmt: skip
    pieces, long = cut_long(manifest.splits["train"], max_length, manifest.scheme)
    if long:
        text = f"{long:,} sentences of more than {max_length} words are trained on in pieces"
        manifest = replace(manifest, findings=[*manifest.findings, Finding("cut", (look.files["train"].path,), text)])
    lengths = bucket_lengths(len(each.tokens) for each in pieces)

    def made(sentences: list[Sentence], *, training: bool = False) -> SentenceRows | None:
        if not sentences:
            return None
        return SentenceRows(
            sentences, vocabulary, batch_words=batch_words, training=training, seed=seed, lengths=lengths,
            word_dropout=word_dropout if training else 0.0, parts=parts,
        )  # fmt: skip

    val, test_rows = made(manifest.splits["val"]), made(manifest.splits["test"])
    return SentenceData(look, manifest, vocabulary, made(pieces, training=True), val, test_rows)


def look_at(
    paths: Mapping[str, str | os.PathLike | None], *, columns: str | None = None, tag_column: str | None = None
) -> SentenceLook:
    """Read tagged files, by the name of their split ("train", and maybe "val" and "test"), and look at them.

    Where the columns are guessed, all files have those of the training file.

    Raises:
        DataError: see `open_sentences`; or a file has no tags, or plain labels beside a scheme.
    """
    files: dict[str, Sentences] = {}
    for name, path in paths.items():
        if path is None:
            continue
        first = files.get("train")
        if first is not None and first.kind == "conll" and first.guessed and not _is_another_kind(path):
            files[name] = replace(open_sentences(path, columns=",".join(first.columns)), guessed=True)
        else:
            files[name] = open_sentences(path, columns=columns, tag_column=tag_column)
        if files[name].scheme is None:
            raise DataError(f"{path} has no tags, only words; name its columns, as in --columns word,-,tag.")
    if len({each.scheme == PLAIN for each in files.values()}) > 1:
        shown = ", ".join(f"{each.path} {each.scheme}" for each in files.values())
        raise DataError(f"the files have tags of different sorts: {shown}. Is it the same column?")
    return check_sentences(files)


def _is_another_kind(path: str | os.PathLike) -> bool:
    name = os.fspath(path).lower().removesuffix(".gz")
    return name.endswith((".jsonl", ".ndjson", ".json", ".conllu"))


def settle_sentences(
    look: SentenceLook,
    *,
    scheme: str | None,
    split: str | None,
    fractions: tuple[float, float, float],
    split_seed: int | None,
    strict: bool,
    assigned: Mapping[str, str] | None = None,
) -> SentenceManifest:
    """Refuse the data or cut the splits that came without a file from the training file.

    Sentences of the same words end in one split where splits are cut; in files of the user's own they stay where they
    are. All tags are converted to `scheme` (None: TRAINED, or plain labels as they are), by their spans.

    Raises:
        DataError: any finding under `strict`, fewer than two tags, too few sentences to split, a scheme that the tags
            cannot be written in, or a `split` or `split_seed` that would not be used.
    """
    if strict and look.findings:
        first = look.findings[0]
        raise DataError(
            f"strict: {len(look.findings)} findings, the first: {', '.join(first.paths[:2])}: {KINDS[first.kind][0]}. "
            "`kerastk check` lists them."
        )
    if scheme is not None and scheme not in SCHEMES:
        raise DataError(f"there is no scheme {scheme!r}; there are {', '.join(SCHEMES)}.")
    if scheme is not None and (scheme == PLAIN) != (look.scheme == PLAIN):
        raise DataError(f"the tags are {look.scheme}, which cannot be written as {scheme}; leave the scheme out.")
    target = scheme or (PLAIN if look.scheme == PLAIN else TRAINED)
    splits: dict[str, list[Sentence]] = {name: [] for name in SPLITS}
    for name, file in look.files.items():
        own = look.scheme if name == "train" else scheme_beside(look.scheme, file)
        splits[name] = [replace(each, tags=tuple(convert(each.tags, own, target))) for each in file.sentences]
    want_test = "test" in look.files or fractions[2] > 0
    missing = [name for name in ("val", "test") if name not in look.files and (name != "test" or want_test)]
    used = bool(missing) or not want_test
    if split is not None and not used:
        raise DataError(f"dev and test are files of their own; --split {split} would not be used. Leave it out.")
    if split_seed is not None and not missing:
        raise DataError("dev and test are files of their own; --split-seed would not be used. Leave it out.")
    kept = fractions[0] + sum(fractions[SPLITS.index(name)] for name in missing)
    shares = {name: fractions[SPLITS.index(name)] / kept for name in missing}
    splits |= _cut(splits["train"], shares, split_seed or 0, assigned or {}, look.files["train"].path)
    notes = []
    if missing:
        notes.append(f"{' and '.join(_SHOWN[name] for name in missing)} cut from {look.files['train'].path}")
    if not splits["test"]:
        notes.append("no test split: the figures below are of the validation split, which chose the model")
    classes = in_order((tag for each in splits["train"] for tag in each.tags), target)
    if len(classes) < 2:
        raise DataError(f"one tag only ({', '.join(classes)}) in the training sentences; a tagger needs two or more.")
    cut = split or "/".join(f"{100 * share:g}" for share in fractions)
    described = "; ".join(dict.fromkeys(each.described for each in look.files.values()))
    return SentenceManifest(
        classes, splits, look.findings, cut if used else None, (split_seed or 0) if missing else None, target,
        look.scheme, described, notes,
    )  # fmt: skip


def _cut(
    sentences: list[Sentence], shares: Mapping[str, float], seed: int, assigned: Mapping[str, str], path: str
) -> dict[str, list[Sentence]]:
    """`shares` of the sentences for val and test, the rest for train; copies together, each split in the file's order.

    Sentences are taken in order of a hash of (seed, words), so the order of the file does not matter.
    """
    groups: dict[str, list[int]] = {}
    for number, each in enumerate(sentences):
        groups.setdefault(each.sha256, []).append(number)
    if len(groups) < 1 + len(shares):
        raise DataError(
            f"{path} has {len(groups)} different sentences; a split into train, {', '.join(shares)} needs at least "
            f"{1 + len(shares)}."
        )
    side: dict[str, str] = {}
    stock = sorted(groups, key=lambda digest: hashlib.sha256(f"{seed} {digest}".encode()).digest())
    for name, share in shares.items():
        wanted, have = max(1, round(share * len(sentences))), 0
        while stock and have < wanted:
            digest = stock.pop(0)
            side[digest] = name
            have += len(groups[digest])
    side |= {digest: where for digest, where in assigned.items() if where in ("train", *shares)}
    found: dict[str, list[Sentence]] = {"train": [], **{name: [] for name in shares}}
    for each in sentences:
        found[side.get(each.sha256, "train")].append(each)
    for name, part in found.items():
        if not part:
            raise DataError(f"no sentence of {path} is left for {name}; give more sentences or another split.")
    return found


def _hash_of_tags(sentence: Sentence) -> str:
    return hashlib.sha256("\0".join(sentence.tags).encode()).hexdigest()[:16]
