"""Tagged sentences from files: CoNLL columns, CoNLL-U, and JSON lines with spans (these in `spanned`).

Files are UTF-8, with or without a byte-order mark, with any ends of lines, and may be packed by gzip. Whatever is damaged is
refused with its file and line; a hostile file is refused before it fills the memory.
"""

import gzip
import hashlib
import itertools
import os
import re
import stat
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from kerastk.datasets.files import Finding, open_nonblocking
from kerastk.datasets.schemes import PLAIN, recognise
from kerastk.errors import DataError

# A line (in bytes) and a sentence longer than these are refused, and so is a file of more tokens, lines or bytes, unpacked.
MAX_LINE = 2**22
MAX_SENTENCE = 100_000
MAX_TOKENS = 20_000_000
MAX_LINES = 50_000_000
MAX_BYTES = 2**32
MAX_COLUMNS = 100
# Lines, and characters in them, that are looked at to tell the kind of file and its columns.
_SAMPLE = 2000, 2**20

CONLLU = ("id", "form", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")
_CONLLU_ID = re.compile(r"([1-9][0-9]{0,8})(?:([-.])([0-9]{1,9}))?")
# An empty node may also stand in front of the first word.
_CONLLU_LINE = re.compile(r"(?:0\.|[1-9])[^\t]*(?:\t[^\t]*){9}")


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence and its tags, one for each token; None where the file has none.

    `offsets` are the tokens' places in `text`, (start, end) in characters, where the file gives them; words that are written
    as one (French `du` = `de` `le`) share a place. `line` is where the sentence begins in `file`, from 1.
    """

    tokens: tuple[str, ...]
    tags: tuple[str, ...] | None = None
    text: str | None = None
    offsets: tuple[tuple[int, int], ...] | None = None
    file: str = ""
    line: int = 0

    @property
    def sha256(self) -> str:
        """A hash of the tokens."""
        return hashlib.sha256("\0".join(self.tokens).encode()).hexdigest()

    @property
    def place(self) -> str:
        """Where the sentence stands, as `file:line`."""
        return f"{self.file}:{self.line}"


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


class Lines:
    """The lines of a text file without their ends, each within bounds, and the number of the last one given.

    Raises:
        DataError: the file cannot be read, a line is too long or is no UTF-8 text.
    """

    def __init__(self, path: Path):
        self.path, self.number = path, 0
        self._again: list[str] = []
        self._bytes = 0
        self._file = self._open()

    def _open(self) -> IO[bytes]:
        try:
            file = open(self.path, "rb", opener=open_nonblocking)  # noqa: SIM115
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise DataError(f"cannot read the sentences in {str(self.path)!r}: {reason}.") from None
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            file.close()
            raise DataError(f"{str(self.path)!r} is no file; give a file of tagged sentences (columns, CoNLL-U, JSON lines).")
        start = file.read(2)
        file.seek(0)
        return gzip.open(file) if start == b"\x1f\x8b" else file

    def __enter__(self) -> "Lines":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __iter__(self) -> "Lines":
        return self

    def __next__(self) -> str:
        if self._again:
            self.number += 1
            return self._again.pop()
        try:
            line = self._file.readline(MAX_LINE + 1)
        except (OSError, EOFError, zlib.error) as error:
            reason = " ".join(str(error).split())
            raise DataError(f"cannot read {str(self.path)!r} after line {self.number}: {reason}.") from None
        if not line:
            raise StopIteration
        self.number += 1
        self._bytes += len(line)
        if len(line) > MAX_LINE:
            raise self.fault(f"more than {MAX_LINE >> 20} MiB without an end of line")
        if self.number > MAX_LINES or self._bytes > MAX_BYTES:
            raise self.fault(f"a file of more than {MAX_LINES:,} lines or {MAX_BYTES >> 30} GiB; split it")
        if self.number == 1 and line.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise self.fault("UTF-16; expected UTF-8. `iconv -f UTF-16 -t UTF-8` turns one into the other")
        if b"\0" in line:
            raise self.fault("a NUL character, as in a file that is no text; expected UTF-8 text")
        try:
            return line.decode("utf-8-sig" if self.number == 1 else "utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise self.fault(f"byte {error.start + 1}, {line[error.start]:#04x}, is no UTF-8; expected UTF-8 text") from None

    def sample(self) -> list[str]:
        """The first lines of the file; they come again afterwards."""
        lines, left = [], _SAMPLE[1]
        while len(lines) < _SAMPLE[0] and left > 0 and (line := next(self, None)) is not None:
            lines.append(line)
            left -= len(line)
        self._again, self.number = lines[::-1], 0
        return lines

    def fault(self, reason: str, number: int | None = None) -> DataError:
        """What to raise for a line, by default the one that was given last."""
        return DataError(f"{self.path}, line {number or self.number}: {reason}.")


def open_sentences(
    path: str | os.PathLike, *, columns: str | None = None, tag_column: str | None = None
) -> Sentences:
    """The sentences of a file, whose kind is told by its name and content.

    Args:
        path: CoNLL columns, CoNLL-U (`.conllu`) or JSON lines (`.jsonl`); each also as `.gz`.
        columns: what the columns of a file hold, from the left, such as `word,pos,tag` or `word,-,tag`; guessed where it
            is None. Columns named `-` are left out.
        tag_column: which column holds the tags: a name out of `columns` (`tag` where it is None), or out of CoNLL-U's
            (`upos` where it is None).

    Raises:
        DataError: the file is damaged, empty or of another kind, or lacks what was asked for.
    """
    path = Path(path)
    with Lines(path) as lines:
        sample = lines.sample()
        if not any(line.strip() for line in sample):
            raise DataError(f"{str(path)!r} holds no sentences; expected a word and its tag a line, or JSON lines.")
        kind = _kind(path, sample)
        if kind != "conll" and columns is not None:
            raise DataError(f"{str(path)!r} is {_NAMES[kind]}; columns {columns!r} would not be used. Leave it out.")
        findings: list[Finding] = []
        names: tuple[str, ...] = ()
        if kind == "jsonl":
            from kerastk.datasets.spanned import read

            if tag_column is not None:
                raise DataError(f"{str(path)!r} is JSON lines; tag column {tag_column!r} would not be used. Leave it out.")
            found = read(lines, findings)
        elif kind == "conllu":
            names = _conllu_columns(tag_column or "upos")
            found = _conllu(lines, tag_column or "upos")
        else:
            separator = "\t" if any("\t" in line.strip() for line in sample) else None
            guess = columns is None
            names = _guess(lines, sample, separator, tag_column) if guess else _named(columns, tag_column)
            found = _columns(lines, names, separator, findings)
        sentences = list(_bounded(lines, found))
    if not sentences:
        raise DataError(f"{str(path)!r} holds no sentences, only comments and empty lines.")
    if kind == "conllu" and all(tag == "_" for each in sentences for tag in each.tags):
        raise DataError(f"{str(path)!r} has nothing in its column {tag_column or 'upos'}; --tag-column names another.")
    tagged = sentences[0].tags is not None
    scheme = recognise(each.tags for each in sentences) if tagged else None
    return Sentences(str(path), kind, sentences, names, kind == "conll" and columns is None, scheme, findings)


_NAMES = {"conll": "a file of columns", "conllu": "CoNLL-U", "jsonl": "JSON lines"}


def _kind(path: Path, sample: list[str]) -> str:
    suffixes = [each.lower() for each in path.suffixes if each.lower() != ".gz"]
    if suffixes and suffixes[-1] in (".jsonl", ".ndjson"):
        return "jsonl"
    if suffixes and suffixes[-1] == ".conllu":
        return "conllu"
    content = [line for line in sample if line.strip() and not line.startswith("#")]
    if content and content[0].lstrip().startswith("{") and content[0].rstrip().endswith("}"):
        return "jsonl"
    if content and all(_CONLLU_LINE.fullmatch(line) for line in content):
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


def too_long(lines: Lines, begin: int) -> DataError:
    """What to raise for a sentence that does not end."""
    reason = f"the sentence that begins here has more than {MAX_SENTENCE:,} words; expected an empty line between sentences"
    return lines.fault(reason, begin)


# CoNLL columns.


def _named(columns: str, tag_column: str | None) -> tuple[str, ...]:
    """The user's columns, with all left out that are neither `word` nor the tag."""
    names = [name.strip() for name in columns.split(",")]
    if not all(names) or len(names) > MAX_COLUMNS:
        raise DataError(f"columns are names with commas between them, such as word,pos,tag; got {columns[:100]!r}.")
    twice = [name for name in names if name != "-" and names.count(name) > 1]
    if twice:
        raise DataError(f"columns {columns!r} name {twice[0]!r} twice; - is for those to be left out.")
    if "word" not in names:
        raise DataError(f"columns {columns!r} have no word; name the column of words so, as in word,-,tag.")
    if tag_column is not None and (tag_column not in names or tag_column in ("word", "-")):
        others = [name for name in names if name not in ("word", "-")]
        raise DataError(f"columns {columns!r} have no tags called {tag_column!r}; they have {', '.join(others) or 'none'}.")
    tag = tag_column or "tag"
    if tag not in names and len(names) - names.count("-") > 1:
        raise DataError(f"columns {columns!r} have no tag; call a column so, or name one of them as the tag column.")
    return tuple(name if name in ("word", tag) else "-" for name in names)


def _cells(line: str, separator: str | None) -> list[str]:
    # Not split(), which would also cut at the no-break and other spaces that are parts of words.
    return line.rstrip(" \t").split("\t") if separator else [cell for cell in line.split(" ") if cell]


def _is_comment(line: str, separator: str | None, width: int | None) -> bool:
    """Whether a line in front of a sentence is a comment; `# O` is a number sign that is tagged O."""
    if not line.startswith("#"):
        return False
    return " = " in line or len(_cells(line, separator)) != (width or 2)


def _guess(lines: Lines, sample: list[str], separator: str | None, tag_column: str | None) -> tuple[str, ...]:
    """The columns by their content: words first, tags last; but a column in front that numbers the words is none of them,
    and tags that have a scheme are found wherever they are."""
    if tag_column is not None:
        raise DataError(f"tag column {tag_column!r} needs names for the columns: --columns word,...,{tag_column}.")
    rows: list[list[str]] = []
    for line in sample:
        if line.strip() and not line.startswith(("#", "-DOCSTART-")):
            rows.append(_cells(line, separator))
            if len(rows[-1]) != len(rows[0]):
                break
    if not rows:
        rows = [_cells(line, separator) for line in sample if line.startswith("#")][:1] or [[""]]
    width = len(rows[0])
    if width > MAX_COLUMNS:
        raise DataError(f"{lines.path} has {width:,} columns; the limit is {MAX_COLUMNS}.")
    by_column = list(zip(*(row for row in rows if len(row) == width), strict=True))
    numbered = [all(cell.isdecimal() for cell in cells) and len(rows) > 1 for cells in by_column]
    schemed = [_is_schemed(cells) for cells in by_column]
    candidates = [place for place in range(width) if not numbered[place]] or [0]
    words = [place for place in candidates if not schemed[place]] or candidates[:1]
    word = words[0]
    tags = [place for place in candidates if schemed[place] and place != word] or [p for p in candidates if p > word]
    names = ["-"] * width
    names[word] = "word"
    if tags:
        names[tags[-1]] = "tag"
    return tuple(names)


def _is_schemed(cells: Iterable[str]) -> bool:
    """Whether the cells are tags of a scheme, by their first few hundred kinds."""
    kinds = set(cells)
    return len(kinds) < 1000 and recognise([kinds]) != PLAIN and any(cell == "O" or cell[1:2] == "-" for cell in kinds)


def _columns(
    lines: Lines, names: tuple[str, ...], separator: str | None, findings: list[Finding]
) -> Iterator[Sentence]:
    width, file = len(names), str(lines.path)
    word = names.index("word")
    tag = next((place for place, name in enumerate(names) if name not in ("word", "-")), None)
    expected = f"expected {width} ({','.join(names)}), {'a tab' if separator else 'a space'} between them"
    tokens: list[str] = []
    tags: list[str] = []
    begin = 0

    def sentence() -> Sentence:
        made = Sentence(tuple(tokens), None if tag is None else tuple(tags), None, None, file, begin)
        tokens.clear()
        tags.clear()
        return made

    unused: dict[int, str] = {}
    for line in lines:
        # strip() alone would take a word that is a no-break space for an empty line.
        if not line.strip(" \t\r"):
            if tokens:
                yield sentence()
            continue
        if line.startswith("-DOCSTART-"):
            if tokens:
                yield sentence()
            continue
        if not tokens and _is_comment(line, separator, width):
            continue
        cells = _cells(line, separator)
        if len(cells) != width:
            raise lines.fault(f"{len(cells)} columns; {expected}")
        if not cells[word].strip():
            raise lines.fault("the word is empty; an empty line ends a sentence")
        if tag is not None and not cells[tag].strip():
            raise lines.fault("the tag is empty; O stands for outside")
        if not tokens:
            begin = lines.number
        if len(tokens) >= MAX_SENTENCE:
            raise too_long(lines, begin)
        tokens.append(cells[word])
        if tag is not None:
            tags.append(cells[tag])
        if not unused:
            unused = {place: cell for place, cell in enumerate(cells) if names[place] == "-"}
    if tokens:
        yield sentence()
    for place, cell in unused.items():
        findings.append(Finding("unused-column", (file,), f"column {place + 1}, such as {cell[:40]!r}"))


# CoNLL-U: https://universaldependencies.org/format.html.


def _conllu_columns(tag_column: str) -> tuple[str, ...]:
    if tag_column not in CONLLU[2:]:
        raise DataError(f"CoNLL-U has no tag column {tag_column!r}; it has {', '.join(CONLLU[2:])}.")
    return tuple({"form": "word", tag_column: tag_column}.get(name, "-") for name in CONLLU)


def _conllu(lines: Lines, tag_column: str) -> Iterator[Sentence]:
    column = CONLLU.index(tag_column)
    parts = _Words(lines)
    for line in lines:
        if not line.strip(" \t\r"):
            if parts.words:
                yield parts.sentence()
            parts = _Words(lines)
        elif line.startswith("#"):
            key, _, value = line[1:].partition("=")
            if key.strip() == "text":
                parts.text = value.strip(" ")
        else:
            parts.add(line.split("\t"), column)
    if parts.words:
        yield parts.sentence()


class _Words:
    """The words of a sentence of CoNLL-U, as they come line by line."""

    def __init__(self, lines: Lines):
        self._lines = lines
        self.words: list[str] = []
        self.text: str | None = None
        self._tags: list[str] = []
        self._begin = 0
        # What is written (a word, or a token of several words): form, number of words, whether a space follows.
        self._surface: list[tuple[str, int, bool]] = []
        self._written = 0

    def add(self, cells: list[str], column: int) -> None:
        """A line of ten cells, of which one is the tag."""
        fault = self._lines.fault
        if len(cells) != len(CONLLU):
            raise fault(f"{len(cells)} columns; CoNLL-U has {len(CONLLU)}, a tab between them")
        # "8.1" is an empty node: it is in no text.
        if re.fullmatch(r"[0-9]{1,9}\.[1-9][0-9]{0,8}", cells[0]):
            return
        found = _CONLLU_ID.fullmatch(cells[0])
        if found is None or found[2] == ".":
            raise fault(f"the id {cells[0][:20]!r}; expected a number, a range such as 1-2, or 1.1")
        first, last = int(found[1]), int(found[3] or found[1])
        wanted = len(self.words) + 1
        if first != wanted or last < first:
            raise fault(f"the id {cells[0]}; expected {wanted}")
        if not cells[1].strip():
            raise fault("the word is empty; CoNLL-U writes _ for what is not there")
        space = "SpaceAfter=No" not in cells[9].split("|")
        if found[2] == "-":
            if wanted <= self._written:
                raise fault(f"the range {cells[0]} begins inside another one")
            self._surface.append((cells[1], last - first + 1, space))
            self._written = last
            return
        if not cells[column].strip():
            raise fault(f"the tag is empty; {CONLLU[column]} has _ for what is not there")
        if len(self.words) >= MAX_SENTENCE:
            raise too_long(self._lines, self._begin)
        self._begin = self._begin or self._lines.number
        self.words.append(cells[1])
        self._tags.append(cells[column])
        if wanted > self._written:
            self._surface.append((cells[1], 1, space))
            self._written = wanted

    def sentence(self) -> Sentence:
        """What has come so far."""
        if self._written != len(self.words):
            raise self._lines.fault(f"the sentence ends at word {len(self.words)}, inside a range up to {self._written}")
        places = None if self.text is None else self._places(self.text)
        if places is None:
            self.text = "".join(form + " " * space for form, _, space in self._surface).rstrip(" ")
            places = self._places(self.text)
        offsets = None if places is None else tuple(places)
        text = None if places is None else self.text
        return Sentence(tuple(self.words), tuple(self._tags), text, offsets, str(self._lines.path), self._begin)

    def _places(self, text: str) -> list[tuple[int, int]] | None:
        """Where each word stands in the text; None where it is not there."""
        places: list[tuple[int, int]] = []
        at = 0
        for form, count, _ in self._surface:
            while not text.startswith(form, at) and text[at : at + 1].isspace():
                at += 1
            if not text.startswith(form, at):
                return None
            words = self.words[len(places) : len(places) + count]
            if "".join(words) == form:
                ends = list(itertools.accumulate((len(word) for word in words), initial=at))
                places += itertools.pairwise(ends)
            else:
                places += [(at, at + len(form))] * count
            at += len(form)
        return places
