import json

import pytest

from kerastk.datasets.schemes import spans
from kerastk.datasets.sequences import open_sentences
from kerastk.errors import DataError

TEXT = "Professor Luiz Eduardo loves Canada."
MARKS = [[10, 22, "person"], [29, 35, "location"]]


@pytest.fixture
def opened(tmp_path):
    def call(*rows, name="x.jsonl"):
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        (tmp_path / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
        return open_sentences(tmp_path / name)

    return call


def shown(sentence):
    """What is marked in a sentence, as the text has it."""
    return [
        (sentence.text[sentence.offsets[span.start][0] : sentence.offsets[span.end - 1][1]], span.label)
        for span in spans(sentence.tags, "iob2", strict=True)
    ]


@pytest.mark.parametrize(
    "row",
    [
        {"text": TEXT, "spans": MARKS},
        {"text": TEXT, "entities": MARKS[::-1]},
        {"text": TEXT, "label": MARKS},
        {"text": TEXT, "labels": MARKS},
        {"text": TEXT, "spans": [{"start": start, "end": end, "label": label} for start, end, label in MARKS]},
        {"text": TEXT, "entities": [{"start_offset": a, "end_offset": b, "type": c, "id": 7} for a, b, c in MARKS]},
        {"id": 1, "annotations": [[9, 23, "person"], [29, 35, " location "]], "text": TEXT},
    ],
)
def test_spans_of_all_shapes_become_tags(row, opened):
    found = opened(row)
    [sentence] = found.sentences
    assert sentence.tokens == ("Professor", "Luiz", "Eduardo", "loves", "Canada", ".")
    assert sentence.tags == ("O", "B-person", "I-person", "O", "B-location", "O")
    assert shown(sentence) == [("Luiz Eduardo", "person"), ("Canada", "location")]
    assert (found.kind, found.scheme, found.columns, found.findings) == ("jsonl", "iob2", (), [])


def test_json_lines_are_recognised_by_their_content(opened):
    assert opened({"text": TEXT, "spans": []}, name="x.txt").kind == "jsonl"


def test_a_list_of_objects_is_told_what_is_expected(opened):
    with pytest.raises(DataError, match=r'x\.json, line 1: a list; expected {"text": "\.\.\.", "spans"'):
        opened([{"text": TEXT, "spans": MARKS}], name="x.json")


def test_texts_are_cut_into_sentences_but_not_inside_a_span(opened):
    text = "  Ann Lee left. She wrote. Stop! In the name of love, sings Diana."
    song = text.index("Stop!")
    found = opened(
        {"text": text, "spans": [[2, 9, "per"], [song, song + 25, "song"], [text.index("Diana"), 65, "per"]]}
    )
    assert [each.text for each in found.sentences] == [
        "Ann Lee left.", "She wrote.", "Stop! In the name of love, sings Diana."
    ]  # fmt: skip
    marked = [[("Ann Lee", "per")], [], [("Stop! In the name of love", "song"), ("Diana", "per")]]
    assert [shown(each) for each in found.sentences] == marked
    assert {each.line for each in found.sentences} == {1}


def test_spans_inside_of_words_are_widened_and_told(opened, tmp_path):
    found = opened({"text": "ok", "spans": []}, {"text": "Londoners met.", "spans": [[0, 6, "loc"], [6, 9, "x"]]})
    assert shown(found.sentences[1]) == [("Londoners", "loc")]
    where = (f"{tmp_path}/x.jsonl:2",)
    assert [(each.kind, each.paths, each.text) for each in found.findings] == [
        ("span-border", where, "'London' (loc) is taken for 'Londoners'"),
        ("span-lost", where, "'ers' (x) has no word of its own"),
    ]


def test_tokens_with_tags_are_sentences_as_they_are(opened):
    found = opened({"tokens": ["New York", "is"], "tags": ["S-loc", "O"]}, {"tokens": [], "tags": []})
    assert [(each.tokens, each.tags) for each in found.sentences] == [(("New York", "is"), ("S-loc", "O"))]
    assert found.scheme == "iobes"


def test_texts_alone_have_no_tags(opened):
    found = opened({"text": "Hello there."}, {"text": ""})
    assert (found.scheme, found.sentences[0].tags) == (None, None)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("[1, 2]", 'a list; expected {"text": "...", "spans": [[start, end, "label"], ...]} a line.'),
        ('{"text": "a"', "no JSON ("),
        ("[" * 100_000, "no JSON ("),
        ({"text": 5}, "text is a number; expected"),
        ({"sentence": "a"}, "an object of 'sentence'; expected"),
        ({"text": "abc", "spans": {}}, "spans is an object; expected"),
        ({"text": "abc", "spans": [[0, 1]]}, 'the span [0, 1]; expected [start, end, "label"] or'),
        ({"text": "abc", "spans": [["0", 1, "x"]]}, 'the span ["0", 1, "x"]; expected'),
        ({"text": "abc", "spans": [[True, 1, "x"]]}, "the span [true, 1"),
        ({"text": "abc", "spans": [[0, 1, ""]]}, "the span [0, 1"),
        ({"text": "abc", "spans": [{"start": 0, "label": "x"}]}, 'the span {"start": 0, "label": "x"}; expected'),
        ({"text": "abc", "spans": [[0, 4, "x"]]}, "the span 0 to 4 (x) does not lie in the text of 3 characters."),
        ({"text": "abc", "spans": [[-1, 2, "x"]]}, "the span -1 to 2 (x) does not lie"),
        ({"text": "abc", "spans": [[2, 2, "x"]]}, "the span 2 to 2 (x) does not lie"),
        (
            {"text": "a b c", "spans": [[2, 5, "y"], [0, 3, "x"]]},
            "the spans 0 to 3 (x) and 2 to 5 (y) overlap; a word has one tag.",
        ),
        ({"text": "a"}, "no spans, unlike the lines before; an empty list says that there are none."),
        ({"text": "\ud800", "spans": []}, "a text holds half of a surrogate pair"),
        ({"tokens": ["a"], "tags": []}, "1 tokens, but 0 tags."),
        ({"tokens": ["a", ""], "tags": ["O", "O"]}, "tokens must be a list of texts that are not empty."),
        ({"tokens": ["a"], "tags": [0]}, "tags must be a list of texts that are not empty."),
    ],
)
def test_damage_is_one_line_with_its_place(row, message, refused):
    assert f"x.jsonl, line 2: {message}" in refused({"text": "ok", "spans": []}, row)


def test_options_that_would_not_be_used_are_refused(opened, tmp_path):
    opened({"text": TEXT, "spans": MARKS})
    with pytest.raises(DataError, match=r"is JSON lines; columns 'word,tag' would not be used\. Leave it out\."):
        open_sentences(tmp_path / "x.jsonl", columns="word,tag")
    with pytest.raises(DataError, match="is JSON lines; tag column 'upos' would not be used"):
        open_sentences(tmp_path / "x.jsonl", tag_column="upos")
