import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kerastk.datasets.schemes import Span, spans
from kerastk.datasets.sequences import open_sentences
from kerastk.evaluation.spans import ERRORS, bootstrap_f1, errors_of, precision_recall_f1, surfaces, tagging

SUBMISSIONS = {
    "uh_ritual": 41.86, "spinningbytes.txt": 40.78, "sjtu_adapt.txt": 40.42, "arcada": 39.98, "flytxt": 38.35,
    "mic-cis.txt": 37.06, "drexel_cci": 26.30,
}  # fmt: skip


def wnut(shared):
    folder = shared / "data" / "tagging" / "wnut17"
    if not folder.exists():
        pytest.skip("no wnut17 in the folder of shared data")
    return folder


@pytest.mark.parametrize(("name", "f1"), SUBMISSIONS.items())
def test_the_published_scores_of_wnut_17(name, f1, shared):
    # Derczynski et al. 2017, aclanthology.org/W17-4418, table 4: entity F1 by the semantics of conlleval.
    folder = wnut(shared)
    truth, guess = open_sentences(folder / "test.conll"), open_sentences(folder / "submissions" / name)
    figures = tagging([each.tags for each in truth.sentences], [each.tags for each in guess.sentences], "iob2")
    assert round(100 * figures["f1"], 2) == f1
    assert figures["spans"] == 1079
    low, high = figures["f1_95"]
    assert low < figures["f1"] < high
    assert 0.04 < high - low < 0.1


def test_tags_that_break_the_scheme_count_unless_it_is_strict(shared):
    folder = wnut(shared)
    truth, guess = (open_sentences(folder / name).sentences for name in ("test.conll", "submissions/spinningbytes.txt"))
    loose, strict = (tagging([each.tags for each in truth], [each.tags for each in guess], "iob2", strict=each)
                     for each in (False, True))  # fmt: skip
    assert strict["guessed"] < loose["guessed"]
    assert strict["spans"] == loose["spans"]


def split(*sentences):
    return [each.split() for each in sentences]


# One of each kind of error, and two right.
TRUTH = split("B-per I-per O B-loc O", "B-org O B-per I-per", "O O B-loc", "B-per O B-org I-org")
GUESS = split("B-per I-per O B-per O", "B-org O B-per O", "B-loc O O", "O O O B-per")


def test_figures_by_hand():
    figures = tagging(TRUTH, GUESS, "iob2")
    assert (figures["right"], figures["guessed"], figures["spans"]) == (2, 6, 7)
    assert figures["precision"] == pytest.approx(2 / 6)
    assert figures["recall"] == pytest.approx(2 / 7)
    assert figures["f1"] == pytest.approx(4 / 13)
    assert figures["errors"] == {"type": 1, "boundary": 1, "both": 1, "missed": 2, "spurious": 1}
    assert figures["errors"].keys() == set(ERRORS)
    assert figures["confusion"] == {
        "O": {"loc": 1}, "loc": {"O": 1, "per": 1}, "org": {"org": 1, "per": 1}, "per": {"per": 2, "O": 1},
    }  # fmt: skip
    per = figures["types"]["per"]
    assert per == {**precision_recall_f1(1, 4, 3), "spans": 3, "guessed": 4, "right": 1}
    assert figures["types"].keys() == {"loc", "org", "per"}
    assert (figures["sentences"], figures["tokens"]) == (4, 16)
    assert figures["token_accuracy"] == 9 / 16


def test_seen_and_unseen_entities():
    tokens = split("Ann Lee in Rome now", "Acme hired Bo Ek", "go to Oslo", "Ann of New Co")
    seen = surfaces([(["Ann", "Lee", "in", "Oslo"], ["B-per", "I-per", "O", "B-loc"])], "iob2")
    assert seen == {(("Ann", "Lee"), "per"), (("Oslo",), "loc")}
    figures = tagging(TRUTH, GUESS, "iob2", tokens=tokens, seen=seen)["seen"]
    assert figures["seen"] == {**precision_recall_f1(1, 1, 2), "spans": 2, "guessed": 1, "right": 1}
    assert figures["unseen"] == {**precision_recall_f1(1, 5, 5), "spans": 5, "guessed": 5, "right": 1}


def test_plain_labels_by_hand():
    figures = tagging(split("DET NOUN", "NOUN VERB X"), split("DET NOUN", "VERB VERB NOUN"), "plain")
    assert figures["token_accuracy"] == 0.6
    assert figures["sentence_accuracy"] == 0.5
    assert figures["labels"]["NOUN"] == {**precision_recall_f1(1, 2, 2), "tokens": 2}
    assert figures["labels"]["VERB"] == {**precision_recall_f1(1, 2, 1), "tokens": 1}
    assert figures["confusion"]["NOUN"] == {"NOUN": 1, "VERB": 1}
    low, high = figures["token_accuracy_95"]
    # Wilson's interval of 3 of 5.
    assert (low, high) == pytest.approx((0.2307, 0.8824), abs=1e-4)
    assert "f1" not in figures


@pytest.mark.parametrize(
    ("guess", "expected"),
    [
        ("O B-per I-per O B-loc", []),
        ("O B-loc I-loc O B-loc", [("type", (1, 3), (1, 3))]),
        ("O B-per I-per I-per B-loc", [("boundary", (1, 3), (1, 4))]),
        ("O B-org O O B-loc", [("both", (1, 3), (1, 2))]),
        ("O O O O B-loc", [("missed", (1, 3), None)]),
        ("B-per B-per I-per O B-loc", [("spurious", None, (0, 1))]),
        # Of two guesses over one span that of its type counts, and none is spurious.
        ("O B-org B-per O B-loc", [("boundary", (1, 3), (2, 3))]),
        # One guess over two spans is wrong about both.
        ("O B-per I-per I-per I-per", [("boundary", (1, 3), (1, 5)), ("both", (4, 5), (1, 5))]),
    ],
)
def test_kinds_of_errors(guess, expected):
    true = spans(["O", "B-per", "I-per", "O", "B-loc"], "iob2")
    found = errors_of(true, spans(guess.split(), "iob2"))
    assert [(kind, one and one[:2], other and other[:2]) for kind, one, other in found] == expected


TAGS = st.lists(st.sampled_from(["O", "B-x", "I-x", "B-y", "I-y"]), min_size=1, max_size=8)


@given(st.lists(st.tuples(TAGS, st.randoms()), min_size=1, max_size=5))
@settings(deadline=None, max_examples=20)
def test_every_span_is_right_or_an_error(made):
    truth = [tags for tags, _ in made]
    guess = [random.sample(tags, len(tags)) for tags, random in made]
    figures = tagging(truth, guess, "iob2")
    errors = figures["errors"]
    assert figures["spans"] == figures["right"] + sum(errors[kind] for kind in ERRORS if kind != "spurious")
    assert figures["guessed"] >= figures["right"] + errors["spurious"]
    assert sum(row["right"] for row in figures["types"].values()) == figures["right"]
    assert sum(figures["confusion"].get("O", {}).values()) == errors["spurious"]
    low, high = figures["f1_95"]
    assert 0 <= low <= high <= 1
    assert tagging(truth, truth, "iob2")["f1"] == (1.0 if figures["spans"] else 0.0)


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    random = np.random.default_rng(0)
    # Each sentence has two spans; each is found with probability .7, and as often something else is guessed.
    inside = 0
    for trial in range(100):
        right = random.binomial(2, 0.7, 200)
        counts = np.stack([right, np.full(200, 2), np.full(200, 2)], axis=1)
        low, high = bootstrap_f1(counts, seed=trial, resamples=200)
        inside += low <= 0.7 <= high
    assert 88 <= inside <= 100


def test_the_interval_depends_on_the_seed_alone():
    counts = np.array([[1, 2, 2], [0, 1, 1], [3, 3, 4], [0, 0, 0]])
    assert bootstrap_f1(counts, seed=1) == bootstrap_f1(counts, seed=1)
    assert bootstrap_f1(np.zeros((3, 3), int)) == [0.0, 0.0]
    assert bootstrap_f1(np.zeros((0, 3), int)) == [0.0, 1.0]


def test_answers_of_other_lengths_are_refused():
    with pytest.raises(ValueError, match="1 sentences, but answers for 2"):
        tagging([["O"]], [["O"], ["O"]], "iob2")
    with pytest.raises(ValueError, match="sentence 0: 2 tokens, but 1 tags"):
        tagging([["O", "O"]], [["O"]], "iob2")


def test_nothing_to_find_and_nothing_found():
    figures = tagging([["O", "O"]], [["O", "O"]], "iobes")
    assert (figures["precision"], figures["recall"], figures["f1"], figures["token_accuracy"]) == (0.0, 0.0, 0.0, 1.0)
    assert (figures["types"], figures["confusion"]) == ({}, {})


def test_spans_are_those_of_the_scheme():
    figures = tagging([["B-x", "E-x", "S-y"]], [["B-x", "I-x", "S-y"]], "iobes", strict=True)
    assert figures["types"]["x"]["guessed"] == 0
    assert errors_of([Span(0, 2, "x")], []) == [("missed", Span(0, 2, "x"), None)]
