"""Tagged sentences from files: CoNLL columns, CoNLL-U (both in `columns`) and JSON lines with spans (in `spanned`).

Files are UTF-8, with or without a byte-order mark, with any ends of lines, and may be packed by gzip. Whatever is
damaged is refused with its file and line; a hostile file is refused before it fills the memory.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kerastk.datasets.archive import ARCHIVE
from kerastk.datasets.columns import CONLLU_LINE, conllu_columns, guess, named, read_columns, read_conllu
from kerastk.datasets.files import Finding
from kerastk.datasets.schemes import recognise
from kerastk.datasets.sentence import Lines, Sentence
from kerastk.datasets.spanned import read_spanned
from kerastk.errors import DataError

# A file of more words is refused.
MAX_TOKENS = 20_000_000
_NAMES = {"conll": "a file of columns", "conllu": "CoNLL-U", "jsonl": "JSON lines"}


@dataclass(frozen=True)
class Sentences:
    """The sentences of a file in its order; `kind` is conll, conllu or jsonl.

    `columns` names the columns of a file that has them: `word`, the tag column's name, and `-` for what is left out;
    `guessed` is whether the user was spared to say so. `scheme` is that of the tags, None where there are none.
    """

    path: str
    kind: str
    sentences: list[Sentence]
    columns: tuple[str, ...]
    guessed: bool
    scheme: str | None
    findings: list[Finding]

    @property
    def tokens(self) -> int:
        """Tokens in all sentences."""
        return sum(len(sentence.tokens) for sentence in self.sentences)

    @property
    def described(self) -> str:
        """The kind of file and what its columns were taken for, in words."""
        names = {"conll": "columns", "conllu": "CoNLL-U", "jsonl": "JSON lines"}
        columns = f" {','.join(self.columns)}" if self.columns else ""
        return f"{names[self.kind]}{columns}{' (guessed)' if self.guessed else ''}"


def is_sentences(path: str | os.PathLike) -> bool:
    """Whether a path would be read as tagged sentences, not as photos: a file that is neither archive nor table."""
    name = os.fspath(path).lower()
    return os.path.isfile(path) and not ARCHIVE.search(name) and not name.endswith((".csv", ".parquet"))


def open_sentences(path: str | os.PathLike, *, columns: str | None = None, tag_column: str | None = None) -> Sentences:
    """The sentences of a file, whose kind is told by its name and content.

    Args:
        path: CoNLL columns, CoNLL-U (`.conllu`) or JSON lines (`.jsonl`); each also as `.gz`.
        columns: what the columns of a file hold, from the left, such as `word,pos,tag` or `word,-,tag`; guessed where
            it is None. Columns named `-` are left out.
        tag_column: which column holds the tags: a name out of `columns` (`tag` where it is None), or out of CoNLL-U's
            (`upos` where it is None).

    Raises:
        DataError: the file is damaged, empty or of another kind, or lacks what was asked for.
    """
    path = Path(path)
    with Lines(path) as lines:
        sample = lines.sample()
        if not any(line.strip() for line in sample):
            where = f" in its first {len(sample):,} lines" if sample else ""
            raise DataError(
                f"{str(path)!r} holds no sentences{where}; expected a word and its tag a line, or JSON lines."
            )
        kind = _kind(path, sample)
        if kind != "conll" and columns is not None:
            raise DataError(f"{str(path)!r} is {_NAMES[kind]}; columns {columns!r} would not be used. Leave it out.")
        findings: list[Finding] = []
        names: tuple[str, ...] = ()
        if kind == "jsonl":
            if tag_column is not None:
                raise DataError(
                    f"{str(path)!r} is JSON lines; tag column {tag_column!r} would not be used. Leave it out."
                )
            found = read_spanned(lines, findings)
        elif kind == "conllu":
            names = conllu_columns(tag_column or "upos")
            found = read_conllu(lines, tag_column or "upos")
        else:
            separator = "\t" if any("\t" in line.strip() for line in sample if not line.startswith("#")) else None
            names = guess(lines, sample, separator, tag_column) if columns is None else named(columns, tag_column)
            # Who names the columns knows which ones are left out.
            found = read_columns(lines, names, separator, sample, findings if columns is None else [])
        sentences = list(_bounded(lines, found))
    if not sentences:
        raise DataError(f"{str(path)!r} holds no sentences, only comments and empty lines.")
    if kind == "conllu" and all(tag == "_" for each in sentences for tag in each.tags):
        raise DataError(f"{str(path)!r} has nothing in its column {tag_column or 'upos'}; --tag-column names another.")
    tagged = sentences[0].tags is not None
    scheme = recognise(each.tags for each in sentences) if tagged else None
    return Sentences(str(path), kind, sentences, names, kind == "conll" and columns is None, scheme, findings)


def _kind(path: Path, sample: list[str]) -> str:
    suffixes = [each.lower() for each in path.suffixes if each.lower() != ".gz"]
    if suffixes and suffixes[-1] in (".jsonl", ".ndjson", ".json"):
        return "jsonl"
    if suffixes and suffixes[-1] == ".conllu":
        return "conllu"
    content = [line for line in sample if line.strip() and not line.startswith("#")]
    if content and content[0].lstrip().startswith("{") and content[0].rstrip().endswith("}"):
        return "jsonl"
    if content and all(CONLLU_LINE.fullmatch(line) for line in content):
        return "conllu"
    return "conll"


def _bounded(lines: Lines, sentences: Iterator[Sentence]) -> Iterator[Sentence]:
    """The sentences, as long as there are not too many; equal words and tags are one object each."""
    total = 0
    same: dict[str, str] = {}

    def shared(texts: tuple[str, ...]) -> tuple[str, ...]:
        return tuple([same.setdefault(each, each) for each in texts])

    for each in sentences:
        total += len(each.tokens)
        if total > MAX_TOKENS:
            raise lines.fault(f"more than {MAX_TOKENS:,} words in the file; split it")
        tags = None if each.tags is None else shared(each.tags)
        yield Sentence(shared(each.tokens), tags, each.text, each.offsets, each.file, each.line)
