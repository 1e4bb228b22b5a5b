import gzip
import os

import pytest

from kerastk.datasets import sequences as module
from kerastk.datasets.sequences import open_sentences
from kerastk.errors import DataError

CONLL = "EU\tB-org\nrejects\tO\n\nGerman\tB-misc\ncall\tO\n"
CONLLU = """\
# sent_id = 1
# text = I don't go to du  café.
1\tI\tI\tPRON\tPRP\tCase=Nom\t3\tnsubj\t_\t_
2-3\tdon't\t_\t_\t_\t_\t_\t_\t_\t_
2\tdo\tdo\tAUX\tVBP\t_\t4\taux\t_\t_
3\tn't\tnot\tPART\tRB\t_\t4\tadvmod\t_\t_
4\tgo\tgo\tVERB\tVB\t_\t0\troot\t_\t_
4.1\tgone\tgo\tVERB\tVB\t_\t_\t_\t0:root\t_
5\tto\tto\tADP\tIN\t_\t8\tcase\t_\t_
6-7\tdu\t_\t_\t_\t_\t_\t_\t_\t_
6\tde\tde\tADP\tIN\t_\t8\tcase\t_\t_
7\tle\tle\tDET\tDT\t_\t8\tdet\t_\t_
8\tcafé\tcafé\tNOUN\tNN\t_\t4\tobl\t_\tSpaceAfter=No
9\t.\t.\tPUNCT\t.\t_\t4\tpunct\t_\t_

"""


@pytest.fixture
def opened(tmp_path):
    def call(content, name="x.conll", **options):
        data = content if isinstance(content, bytes) else content.encode()
        (tmp_path / name).write_bytes(data)
        return open_sentences(tmp_path / name, **options)

    return call


def rows(found):
    return [list(zip(each.tokens, each.tags, strict=True)) for each in found.sentences]


EXPECTED = [[("EU", "B-org"), ("rejects", "O")], [("German", "B-misc"), ("call", "O")]]

# Columns.


@pytest.mark.parametrize(
    "content",
    [
        CONLL,
        CONLL.replace("\t", " "),
        CONLL.replace("\t", "   "),
        CONLL.replace("\n", "\r\n"),
        "\ufeff" + CONLL,
        CONLL.rstrip("\n"),
        "\n\n" + CONLL.replace("\n\n", "\n \t\n\n\n"),
        "-DOCSTART- O\n\n" + CONLL.replace("\n\n", "\n\n-DOCSTART- -X- O O\n\n"),
        "-DOCSTART-\tO\n" + CONLL,
        "# a comment of many words\n" + CONLL.replace("\n\n", "\n\n# id = 2\n"),
        gzip.compress(CONLL.encode(), mtime=0),
        "# a comment\twith tabs\tin it\n" + CONLL.replace("\t", " "),
    ],
)
def test_column_files_of_all_sorts_are_the_same_sentences(content, opened):
    found = opened(content)
    assert rows(found) == EXPECTED
    assert (found.kind, found.columns, found.guessed, found.scheme) == ("conll", ("word", "tag"), True, "iob2")
    assert found.findings == []
    assert found.tokens == 4


def test_sentences_know_their_lines(opened, tmp_path):
    found = opened("# comment\n\nEU B-org\nrejects O\n\n\n-DOCSTART- O\n\nGerman B-misc\n")
    assert [each.line for each in found.sentences] == [3, 9]
    assert found.sentences[1].place == f"{tmp_path}/x.conll:9"
    assert found.sentences[0].sha256 != found.sentences[1].sha256


@pytest.mark.parametrize(
    ("row", "columns"),
    [
        ("EU NNP I-NP I-org", ("word", "-", "-", "tag")),
        ("EU NNP", ("word", "tag")),
        ("B-org EU", ("tag", "word")),
        ("1 EU NNP B-org", ("-", "word", "-", "tag")),
        ("0 EU B-org - -", ("-", "word", "tag", "-", "-")),
        ("EU", ("word",)),
    ],
)
def test_columns_are_guessed_and_told(row, columns, opened):
    other = (
        row.replace("EU", "rejects").replace("org", "per").replace("NNP", "VBZ").replace("1 ", "2 ").replace("0 ", "1 ")
    )
    found = opened(f"{row}\n{other}\n\n{row}\n")
    assert found.columns == columns
    assert found.guessed
    assert [each.tokens for each in found.sentences] == [("EU", "rejects"), ("EU",)]
    place = columns.index("tag") if "tag" in columns else None
    assert found.sentences[0].tags == (None if place is None else (row.split()[place], other.split()[place]))
    unused = {finding.text for finding in found.findings if finding.kind == "unused-column"}
    assert len(unused) == columns.count("-")


def test_named_columns_are_taken_as_named(opened):
    content = "EU NNP I-NP B-org\nrejects VBZ I-VP O\n"
    found = opened(content, columns="word,pos,-,tag")
    assert found.sentences[0].tags == ("B-org", "O")
    assert found.findings == []
    found = opened(content, columns="word,pos,chunk,tag", tag_column="pos")
    assert found.sentences[0].tags == ("NNP", "VBZ")
    assert (found.columns, found.guessed, found.scheme) == (("word", "pos", "-", "-"), False, "plain")
    assert opened(content, columns="word,pos,-,-", tag_column="pos").sentences[0].tags == ("NNP", "VBZ")
    assert opened("EU\tO\n", columns="word,ner", tag_column="ner").sentences[0].tags == ("O",)


def test_words_that_look_like_something_else(opened):
    content = "#\tO\n# hash\tO\n\xa0\tO\n#tag\tB-x\n\n#\tO\n\u3000x\tO\n\nNew York\tB-x\n"
    found = opened(content)
    assert [each.tokens for each in found.sentences] == [
        ("#", "# hash", "\xa0", "#tag"),
        ("#", "\u3000x"),
        ("New York",),
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"columns": "pos,tag"}, "columns 'pos,tag' have no word; name the column of words so, as in word,-,tag."),
        ({"columns": "word,word"}, "name 'word' twice"),
        ({"columns": "word,,tag"}, "columns are names with commas between them"),
        ({"columns": "word,ner"}, "columns 'word,ner' have no tag;"),
        ({"columns": "word,pos,tag"}, "x.conll, line 1: 2 columns; expected 3 (word,-,tag), a tab between them."),
        ({"columns": "word,tag", "tag_column": "ner"}, "have no tags called 'ner'; they have tag."),
        ({"tag_column": "ner"}, "tag column 'ner' needs names for the columns"),
    ],
)
def test_columns_that_do_not_fit_are_refused(options, message, refused):
    assert message in refused(CONLL, **options)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"EU O\nrejects\n", "x.conll, line 2: 1 columns; expected 2 (word,tag), a space between them."),
        (b"EU\tO\nrejects\tO\tx\n", "x.conll, line 2: 3 columns; expected 2 (word,tag), a tab between them."),
        (b"EU\tO\nrejects\t\n", "x.conll, line 2: 1 columns; expected 2"),
        (b"EU\tO\n\tO\n", "x.conll, line 2: the word is empty"),
        (b"EU\tNN\tO\nx\t\tO\n", None),
        (b"EU\tO\nM\xfcller\tO\n", "x.conll, line 2: byte 2, 0xfc, is no UTF-8; expected UTF-8 text."),
        (b"EU\tO\nre\0jects\tO\n", "x.conll, line 2: a NUL character"),
        ("EU\tO\n".encode("utf-16"), "x.conll, line 1: UTF-16; expected UTF-8."),
        (b"", "x.conll' holds no sentences; expected a word and its tag a line, or JSON lines."),
        (b"\n \n\r\n", "x.conll' holds no sentences in its first 3 lines;"),
        (b"# only = a comment\n\n-DOCSTART- O\n", "x.conll' holds no sentences, only comments and empty lines."),
        (gzip.compress(CONLL.encode(), mtime=0)[:-12], "cannot read 'x.conll' after line"),
        (b"\x1f\x8b" + bytes(50), "cannot read 'x.conll' after line 0:"),
    ],
)
def test_damage_is_one_line_with_its_place(content, message, refused, opened):
    if message is None:
        # An empty cell in a column that is left out does no harm.
        assert opened(content).sentences[0].tokens == ("EU", "x")
        return
    assert message in refused(content)


def test_what_is_no_file_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"cannot read the sentences in '.*nothing\.conll': No such file"):
        open_sentences(tmp_path / "nothing.conll")
    with pytest.raises(DataError, match="Is a directory"):
        open_sentences(tmp_path)
    with pytest.raises(DataError, match="embedded null byte"):
        open_sentences("a\0b")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_named_pipe_holds_nobody_up(tmp_path, within):
    os.mkfifo(tmp_path / "pipe.conll")
    with pytest.raises(DataError, match="is no file"):
        within(30, open_sentences, tmp_path / "pipe.conll")


def test_an_endless_sentence_and_too_many_words_are_refused(refused, monkeypatch):
    monkeypatch.setattr("kerastk.datasets.columns.MAX_SENTENCE", 5)
    monkeypatch.setattr("kerastk.datasets.sentence.MAX_SENTENCE", 5)
    message = "x.conll, line 2: the sentence that begins here has more than 5 words; an empty line ends a sentence."
    assert message in refused("\n" + "a O\n" * 6)
    monkeypatch.setattr(module, "MAX_TOKENS", 8)
    assert "more than 8 words in the file" in refused("a O\n\n" * 9)


# CoNLL-U.


def test_words_of_conllu_with_their_places_in_the_text(opened):
    [found] = opened(CONLLU, "x.conllu").sentences
    assert found.tokens == ("I", "do", "n't", "go", "to", "de", "le", "café", ".")
    assert found.tags == ("PRON", "AUX", "PART", "VERB", "ADP", "ADP", "DET", "NOUN", "PUNCT")
    assert found.text == "I don't go to du  café."
    written = [found.text[start:end] for start, end in found.offsets]
    assert written == ["I", "do", "n't", "go", "to", "du", "du", "café", "."]
    assert found.line == 3


def test_conllu_is_recognised_by_its_content(opened):
    assert opened(CONLLU, "x.txt").kind == "conllu"
    assert opened(gzip.compress(CONLLU.encode()), "x.conllu.gz").kind == "conllu"


@pytest.mark.parametrize(("column", "tags"), [("xpos", ("PRP", "VBP")), ("deprel", ("nsubj", "aux")),
                                              ("feats", ("Case=Nom", "_"))])  # fmt: skip
def test_another_column_of_conllu_may_be_the_tag(column, tags, opened):
    found = opened(CONLLU, "x.conllu", tag_column=column)
    assert found.sentences[0].tags[:2] == tags
    assert [name for name in found.columns if name != "-"] == ["word", column]


def test_without_a_text_the_spaces_tell_it(opened):
    [found] = opened("\n".join(CONLLU.splitlines()[2:]) + "\n", "x.conllu").sentences
    assert found.text == "I don't go to du café."
    assert [found.text[start:end] for start, end in found.offsets][-2:] == ["café", "."]


def test_a_text_that_is_of_other_words_is_not_believed(opened):
    [found] = opened(CONLLU.replace("# text = I", "# text = You"), "x.conllu").sentences
    assert found.text == "I don't go to du café."


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("1\tI\tI", "1 I I", "x.conllu, line 3: 8 columns; CoNLL-U has 10, a tab between them."),
        ("4\tgo\tgo", "5\tgo\tgo", "x.conllu, line 7: the id 5; expected 4."),
        ("4.1\t", "four\t", "x.conllu, line 8: the id 'four'; expected a number, a range such as 1-2, or 1.1."),
        ("6-7\t", "6-70\t", "x.conllu, line 15: the sentence ends at word 9, inside a range up to 70."),
        ("3\tn't", "3-4\tx\t_\t_\t_\t_\t_\t_\t_\t_\n3\tn't", "line 6: the range 3-4 begins inside another one."),
        ("\tgo\tgo\tVERB", "\t\tgo\tVERB", "x.conllu, line 7: the word is empty"),
        ("go\tVERB\tVB\t_\t0", "go\t\tVB\t_\t0", "x.conllu, line 7: the tag is empty; upos has _"),
    ],
)
def test_damaged_conllu_is_one_line_with_its_place(old, new, message, refused):
    assert old in CONLLU
    assert message in refused(CONLLU.replace(old, new), "x.conllu")


def test_a_column_of_conllu_that_is_not_there_or_empty_is_refused(refused):
    assert "CoNLL-U has no tag column 'pos'; it has lemma, upos, xpos" in refused(CONLLU, "x.conllu", tag_column="pos")
    assert "has nothing in its column misc" in refused(
        CONLLU.replace("SpaceAfter=No", "_"), "x.conllu", tag_column="misc"
    )
    assert "is CoNLL-U; columns 'word,tag' would not be used" in refused(CONLLU, "x.conllu", columns="word,tag")


# Real corpora.


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("wnut17/train.conll", {}, (3394, 62730, "iob2")),
        ("wnut17/test.conll", {"columns": "word,tag"}, (1287, 23394, "iob2")),
        ("wnut17/submissions/arcada", {}, (1287, 23394, "iob2")),
        ("atis/test.conll", {}, (893, 9164, "iob2")),
        ("ud_ewt/dev.conllu.gz", {}, (2001, 25147, "plain")),
        ("ud_ewt/test.conllu.gz", {"tag_column": "xpos"}, (2077, 25094, "plain")),
    ],
)
def test_real_corpora_are_read_whole(name, options, expected, shared):
    path = shared / "data" / "tagging" / name
    if not path.exists():
        pytest.skip(f"no {name} in the folder of shared data")
    found = open_sentences(path, **options)
    assert (len(found.sentences), found.tokens, found.scheme) == expected
    assert found.findings == []
    if found.kind == "conllu":
        for each in found.sentences:
            shown = "".join(each.text[start:end] for start, end in dict.fromkeys(each.offsets))
            assert shown.split() == ["".join(each.text.split())]
