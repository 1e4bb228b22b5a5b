import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kerastk.datasets.sequences import open_sentences
from kerastk.datasets.tokens import sentences, tokenise

# Pieces that rules are about, so that made-up texts meet them.
PIECES = ["n't", "'s", "http://", "www.", "a@b.com", "#", "U.S.", "Mr.", "e.g.", "-", "...", "\u200d", "\ufe0f", "👍🏽",
          "🇩🇪", "1,000.50", "我", "\u0301", "é", "\xa0", "\u3000", "\x1c", "\x85", " ", "\n", "can't", "x-", "non-",
          ":)", ")", "\0", "\ud800", "ก็", "हिन्दी"]  # fmt: skip
TEXTS = st.text() | st.lists(st.sampled_from(PIECES) | st.text(max_size=3)).map("".join)


def words(text):
    return [text[start:end] for start, end in tokenise(text)]


@given(TEXTS)
@example("\u200d\u200d a")
def test_every_character_but_white_space_belongs_to_one_word(text):
    end = 0
    for start, after in tokenise(text):
        assert start >= end
        assert text[end:start].strip() == ""
        assert after > start
        assert not any(each.isspace() for each in text[start:after])
        end = after
    assert text[end:].strip() == ""


@given(TEXTS)
def test_every_character_but_white_space_belongs_to_one_sentence(text):
    end = 0
    for start, after in sentences(text):
        assert text[end:start].strip() == ""
        assert text[start:after] == text[start:after].strip() != ""
        end = after
    assert text[end:].strip() == ""


@pytest.mark.parametrize(
    "text",
    [
        "The dog 's bone , is n't it ? Yes ... it is !!",
        "They 'll wo n't ca n't can not gon na",
        'He said : " Hi ! " ( twice )',
        "Mr. Smith of the U.S. and J. R. Jones , Inc. , e.g. at 5 p.m. or 10:30",
        "1,000.50 dollars , 24/12/2004 , 5 % of $ 20 , 713-853-3989",
        "mail joe.b@example.co.uk or see http://x.org/a_b?c=1 , www.python.org . example.com/x !",
        "@anna likes # 1 and #hashtags :-) <3 👩‍👩‍👧 👍🏽 🇩🇪",
        "German - born , e-mail , re-elect , child-like , O'Brien , AT&T , rock'n'roll",
        "l' homme d' État dell' uomo",
        "report.doc and x.txt",
        "naïve Ångström straße हिन्दी ภาษาไทย",
    ],
)
def test_words_as_in_the_treebanks(text):
    """The text with its spaces is the answer; without those that nobody writes it is the question."""
    expected = text.split()
    written = text
    for glued, apart in ((" '", "'"), (" n't", "n't"), (" n'", "n'"), (" ,", ","), (" ?", "?"), (" !", "!"),
                         ("( ", "("), (" )", ")"), ("$ ", "$"), (" %", "%"), ("# ", "#"), (" - ", "-"),
                         ("can not", "cannot"), ("gon na", "gonna"), ("l' ", "l'"), ("d' ", "d'"),
                         (" ...", "...")):  # fmt: skip
        written = written.replace(glued, apart)
    assert words(written) == expected


def test_chinese_and_japanese_go_by_character():
    assert words("我爱北京。東京 です") == ["我", "爱", "北", "京", "。", "東", "京", "で", "す"]


@pytest.mark.parametrize(
    "pieces",
    [
        ["Hello Mr. Li.", "How are you?", "Fine!"],
        ["In the U.S. he works.", "J. R. Jones, Inc. does not."],
        ['He said "Stop!"', "Then (alas.)", "Nothing."],
        ["It costs 1.50 dollars.", "Version 2.0 is out"],
        ["Was ist das?", "Ärger, z.B. heute."],
        ["Wait... what?!", "Yes."],
    ],
)
def test_sentences(pieces):
    text = "  ".join(pieces)
    assert [text[start:end] for start, end in sentences(text)] == pieces


def test_an_empty_line_ends_a_sentence_and_a_plain_one_does_not():
    text = "A headline\n \nNew\nYork is big。我爱。你"
    assert [text[start:end] for start, end in sentences(text)] == ["A headline", "New\nYork is big。", "我爱。", "你"]


def test_real_texts_are_cut_as_the_treebank_cuts_them(shared):
    path = shared / "data" / "tagging" / "ud_ewt" / "dev.conllu.gz"
    if not path.exists():
        pytest.skip("no ud_ewt in the folder of shared data")
    found = [(set(each.offsets), set(tokenise(each.text))) for each in open_sentences(path).sentences]
    right = sum(len(gold & mine) for gold, mine in found)
    assert 2 * right / sum(len(gold) + len(mine) for gold, mine in found) > 0.985


@pytest.mark.parametrize("piece", ["a-", "a.", "(", "@a", "\n "])
def test_no_text_takes_long(piece, within):
    # Seconds at most; were a failed rule tried again and again it would be minutes.
    text = piece * (200_000 // len(piece))
    within(60, tokenise, text)
    within(60, sentences, text)
