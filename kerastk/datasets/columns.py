"""Readers of files with a word a line: CoNLL columns, and CoNLL-U (https://universaldependencies.org/format.html)."""

import itertools
import re
from collections.abc import Iterable, Iterator

from kerastk.datasets.files import Finding
from kerastk.datasets.schemes import PLAIN, recognise
from kerastk.datasets.sentence import MAX_SENTENCE, Lines, Sentence
from kerastk.errors import DataError

MAX_COLUMNS = 100
CONLLU = ("id", "form", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")
_CONLLU_ID = re.compile(r"([1-9][0-9]{0,8})(?:([-.])([0-9]{1,9}))?")
# An empty node may also stand in front of the first word.
CONLLU_LINE = re.compile(r"(?:0\.|[1-9])[^\t]*(?:\t[^\t]*){9}")


def named(columns: str, tag_column: str | None) -> tuple[str, ...]:
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
        raise DataError(
            f"columns {columns!r} have no tags called {tag_column!r}; they have {', '.join(others) or 'none'}."
        )
    tag = tag_column or "tag"
    if tag not in names and len(names) - names.count("-") > 1:
        raise DataError(f"columns {columns!r} have no tag; call a column so, or name one of them as the tag column.")
    return tuple(name if name in ("word", tag) else "-" for name in names)


def _cells(line: str, separator: str | None) -> list[str]:
    # Not split(), which would also cut at the no-break and other spaces that are parts of words.
    return line.rstrip(" \t").split("\t") if separator else [cell for cell in line.split(" ") if cell]


def guess(lines: Lines, sample: list[str], separator: str | None, tag_column: str | None) -> tuple[str, ...]:
    """The columns by their content: words first, tags last; but a column in front that numbers the words is none of
    them, and tags that have a scheme are found wherever they are."""
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


def read_columns(
    lines: Lines, names: tuple[str, ...], separator: str | None, sample: list[str], findings: list[Finding]
) -> Iterator[Sentence]:
    """The sentences of a file of columns, whose `names` are `word`, maybe another one (the tag), and `-`.

    Columns lie between tabs, or (`separator` None) between spaces; `sample` are some lines of the file. Those that
    are not used are told in `findings`.
    """
    width, file = len(names), str(lines.path)
    word = names.index("word")
    tag = next((place for place, name in enumerate(names) if name not in ("word", "-")), None)
    expected = f"expected {width} ({','.join(names)}), {'a tab' if separator else 'a space'} between them"
    tokens: list[str] = []
    tags: list[str] = []
    begin = 0

    rows = [_cells(line, separator) for line in sample if not line.startswith("#")]
    known = None if tag is None else {cells[tag] for cells in rows if len(cells) == width}

    def is_comment(cells: list[str]) -> bool:
        # `# O` is a number sign that is tagged O, where there is such a tag.
        return len(cells) != width or (known is not None and cells[tag] not in known)

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
        if not tokens and line.startswith("#") and is_comment(_cells(line, separator)):
            continue
        cells = _cells(line, separator)
        if len(cells) != width:
            raise lines.fault(f"{len(cells)} columns; {expected}")
        if not cells[word].strip(" "):
            raise lines.fault("the word is empty; an empty line ends a sentence")
        if tag is not None and not cells[tag].strip(" "):
            raise lines.fault("the tag is empty; O stands for outside")
        if not tokens:
            begin = lines.number
        if len(tokens) >= MAX_SENTENCE:
            raise lines.endless(begin)
        tokens.append(cells[word])
        if tag is not None:
            tags.append(cells[tag])
        if not unused:
            unused = {place: cell for place, cell in enumerate(cells) if names[place] == "-"}
    if tokens:
        yield sentence()
    for place, cell in unused.items():
        findings.append(Finding("unused-column", (file,), f"column {place + 1}, such as {cell[:40]!r}"))


def conllu_columns(tag_column: str) -> tuple[str, ...]:
    """The ten columns of CoNLL-U, with all left out that are neither words nor tags."""
    if tag_column not in CONLLU[2:]:
        raise DataError(f"CoNLL-U has no tag column {tag_column!r}; it has {', '.join(CONLLU[2:])}.")
    return tuple({"form": "word", tag_column: tag_column}.get(name, "-") for name in CONLLU)


def read_conllu(lines: Lines, tag_column: str) -> Iterator[Sentence]:
    """The sentences of a CoNLL-U file: its words, without empty nodes, and their places in its `# text`, or in the text
    that follows from SpaceAfter=No."""
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
            raise self._lines.endless(self._begin)
        self._begin = self._begin or self._lines.number
        self.words.append(cells[1])
        self._tags.append(cells[column])
        if wanted > self._written:
            self._surface.append((cells[1], 1, space))
            self._written = wanted

    def sentence(self) -> Sentence:
        """What has come so far."""
        if self._written != len(self.words):
            raise self._lines.fault(
                f"the sentence ends at word {len(self.words)}, inside a range up to {self._written}"
            )
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
