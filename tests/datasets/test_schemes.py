import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kerastk.datasets.schemes import (
    PLAIN,
    SPELLINGS,
    Span,
    convert,
    faults,
    in_order,
    legal,
    prefix_of,
    recognise,
    spans,
    tags_of,
    type_of,
)
from kerastk.errors import DataError

# One sentence with a span of three, one of two that touches one of its own type, and one of a single word.
SPANS = [Span(0, 3, "per"), Span(4, 6, "loc"), Span(6, 7, "loc")]
WRITTEN = {
    "iob1": "I-per I-per I-per O I-loc I-loc B-loc O",
    "iob2": "B-per I-per I-per O B-loc I-loc B-loc O",
    "iobes": "B-per I-per E-per O B-loc E-loc S-loc O",
    "bilou": "B-per I-per L-per O B-loc L-loc U-loc O",
    "bmes": "B-per M-per E-per O B-loc E-loc S-loc O",
}


@st.composite
def sentence_spans(draw):
    """Spans of a sentence, in order, that may touch, and its length."""
    found, at = [], 0
    for gap, size, label in draw(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 4), st.sampled_from("xy")))):
        found.append(Span(at + gap, at + gap + size, label))
        at += gap + size
    return found, at + draw(st.integers(0, 2))


@pytest.mark.parametrize("scheme", SPELLINGS)
def test_each_scheme_writes_the_same_spans_in_its_way(scheme):
    tags = WRITTEN[scheme].split()
    assert tags_of(SPANS, 8, scheme) == tags
    assert spans(tags, scheme) == spans(tags, scheme, strict=True) == SPANS
    assert recognise([tags]) == scheme
    assert faults(tags, scheme) == []


@pytest.mark.parametrize(("source", "target"), itertools.permutations(SPELLINGS, 2))
def test_any_scheme_becomes_any_other(source, target):
    assert convert(WRITTEN[source].split(), source, target) == WRITTEN[target].split()


@given(sentence_spans(), st.sampled_from(list(SPELLINGS)))
def test_spans_survive_being_written(made, scheme):
    found, length = made
    tags = tags_of(found, length, scheme)
    assert spans(tags, scheme) == spans(tags, scheme, strict=True) == found
    assert faults(tags, scheme) == []
    assert len(tags) == length


@pytest.mark.parametrize("scheme", SPELLINGS)
def test_what_is_legal_is_what_spans_are_written_as(scheme):
    tags = ["O", *(f"{prefix}-{kind}" for kind in "xy" for prefix in SPELLINGS[scheme])]
    start, transitions, end = legal(tags, scheme)
    assert (start.shape, transitions.shape, end.shape) == ((len(tags),), (len(tags), len(tags)), (len(tags),))
    assert {start.dtype, transitions.dtype, end.dtype} == {np.dtype(bool)}
    for length in (1, 2, 3, 4) if len(tags) < 6 else (1, 2, 3):
        for path in itertools.product(range(len(tags)), repeat=length):
            allowed = start[path[0]] and end[path[-1]] and all(transitions[a, b] for a, b in itertools.pairwise(path))
            sentence = [tags[number] for number in path]
            assert allowed == (convert(sentence, scheme, scheme) == sentence) == (not faults(sentence, scheme)), (
                sentence
            )


def test_everything_is_legal_among_plain_labels():
    assert all(each.all() for each in legal(["NOUN", "VERB", "O"], PLAIN))
    assert faults(["NOUN", "I-x"], PLAIN) == []
    assert convert(["NOUN"], PLAIN, PLAIN) == ["NOUN"]


def test_a_tag_of_no_scheme_is_refused_or_told():
    with pytest.raises(DataError, match="'E-x' is no tag of iob2, which has O and B-, I-"):
        legal(["O", "E-x"], "iob2")
    assert faults(["O", "E-x", "per"], "iob2") == [(1, "'E-x' is no tag of iob2"), (2, "'per' is no tag of iob2")]
    # It counts as outside.
    assert spans(["B-x", "per", "I-x"], "iob2") == [Span(0, 1, "x"), Span(2, 3, "x")]


def test_plain_labels_and_spans_do_not_become_each_other():
    with pytest.raises(DataError, match="iob2 tags cannot be written as plain"):
        convert(["O"], "iob2", PLAIN)
    with pytest.raises(DataError, match="plain labels have no spans"):
        spans(["NOUN"], PLAIN)


@pytest.mark.parametrize(
    ("tags", "scheme", "expected"),
    [
        ("O I-x", "iob2", [(1, "I-x after O")]),
        ("I-x O", "iob2", [(0, "I-x at the beginning")]),
        ("B-x I-y", "iob2", [(1, "I-y after B-x")]),
        ("B-x I-x", "iob1", [(0, "B-x at the beginning")]),
        ("B-x O", "iobes", [(1, "O after B-x")]),
        ("O B-x", "iobes", [(2, "B-x at the end")]),
        ("S-x E-x", "iobes", [(1, "E-x after S-x")]),
        ("B-x M-y E-y", "bmes", [(1, "M-y after B-x")]),
        ("U-x L-x", "bilou", [(1, "L-x after U-x")]),
    ],
)
def test_what_breaks_a_scheme_is_found_at_its_place(tags, scheme, expected):
    assert faults(tags.split(), scheme) == expected


def perl(tags):
    """The spans of IOB tags by the rules of conlleval.pl (1.8): startOfChunk and endOfChunk, word for word."""
    found, start = [], None
    before, before_type = "O", ""
    for place, each in enumerate([*tags, "O"]):
        tag, _, kind = each.partition("-")
        ends = (before, tag) in (("B", "B"), ("B", "O"), ("I", "B"), ("I", "O"))
        ends = ends or (before != "O" and before_type != kind)
        starts = (before, tag) in (("B", "B"), ("I", "B"), ("O", "B"), ("O", "I"))
        starts = starts or (tag != "O" and before_type != kind)
        if ends and start is not None:
            found.append(Span(start, place, before_type))
            start = None
        if starts:
            start = place
        before, before_type = tag, kind
    return found


@given(st.lists(st.sampled_from(["O", "B-x", "I-x", "B-y", "I-y"]), max_size=12))
def test_broken_tags_are_read_as_conlleval_reads_them(tags):
    assert spans(tags, "iob2") == spans(tags, "iob1") == perl(tags)


@pytest.mark.parametrize(
    ("tags", "scheme", "loose", "strict"),
    [
        ("O I-x I-x", "iob2", [(1, 3)], []),
        ("B-x I-x I-y", "iob2", [(0, 2), (2, 3)], [(0, 2)]),
        ("I-x I-x B-x", "iob1", [(0, 2), (2, 3)], [(0, 2), (2, 3)]),
        ("B-x I-x O", "iobes", [(0, 2)], []),
        ("O E-x S-x", "iobes", [(1, 2), (2, 3)], [(2, 3)]),
        ("I-x E-x O", "iobes", [(0, 2)], []),
        ("B-x E-x I-x", "iobes", [(0, 2), (2, 3)], [(0, 2)]),
        ("B-x I-y E-x", "iobes", [(0, 1), (1, 2), (2, 3)], []),
    ],
)
def test_strict_reading_drops_what_breaks_the_scheme(tags, scheme, loose, strict):
    assert [span[:2] for span in spans(tags.split(), scheme)] == loose
    assert [span[:2] for span in spans(tags.split(), scheme, strict=True)] == strict


@pytest.mark.parametrize(
    ("tags", "scheme"),
    [
        (["DET", "NOUN", "O"], PLAIN),
        (["O", "O"], "iob2"),
        (["B", "I", "O", "B"], "iob2"),
        (["B", "M", "E", "S"], "bmes"),
        (["I-x", "O", "I-y", "B-y"], "iob1"),
        # One mistyped tag makes no plain labels of a thousand others.
        (["B-x", "I-x", "O", "per"], "iob2"),
        # Nor one slip a scheme of its own.
        (["B-x", "O", "E-x", "B-x", "I-x", "O"], "iob2"),
        (["B-x", "I-x", "O", "I-x"], "iob2"),
        (["U-x", "O"], "bilou"),
        (["S-x", "O"], "iobes"),
        (["I-", "-", "B_x"], PLAIN),
    ],
)
def test_schemes_are_recognised(tags, scheme):
    assert recognise([tags]) == scheme


def test_spans_without_a_type():
    assert spans(["B", "I", "O", "B"], "iob2") == [Span(0, 2, ""), Span(3, 4, "")]
    assert convert(["B", "I", "O", "B"], "iob2", "bmes") == ["B", "E", "O", "S"]
    assert prefix_of("B-") is None


def test_tags_in_the_order_of_a_span():
    tags = ["I-y", "S-x", "O", "B-x", "E-x", "B-y", "I-x"]
    assert in_order(tags, "iobes") == ["O", "B-x", "I-x", "E-x", "S-x", "B-y", "I-y"]
    assert in_order(["VERB", "NOUN", "VERB"], PLAIN) == ["NOUN", "VERB"]
    assert [type_of(tag, "iob2") for tag in ("O", "B-x", "odd")] == [None, "x", "odd"]
    assert type_of("B-x", PLAIN) == "B-x"
