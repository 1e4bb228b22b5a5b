import json
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kerastk.datasets import vocabulary as module
from kerastk.datasets.vocabulary import CASING, Vocabulary, casing
from kerastk.errors import RunError

SENTENCES = [("The", "cat", "the", "mat"), ("the", "cat", "in", "1984"), ("In", "1985")]
WORDS = [word for tokens in SENTENCES for word in tokens]


@pytest.fixture
def made():
    def call(sentences=SENTENCES, **options):
        values = {"max_words": 100, "min_count": 1, "fold_digits": True, "lower": False, "word_length": 6} | options
        return Vocabulary.of(sentences, ["O", "B-x"], **values)

    return call


def test_words_are_numbered_by_frequency_within_the_cap_and_the_minimum(made):
    assert made().words == ("0000", "cat", "the", "In", "The", "in", "mat")
    assert made(max_words=2).words == ("0000", "cat")
    assert made(min_count=2).words == ("0000", "cat", "the")
    assert made(fold_digits=False).words[-1] == "mat"
    assert "1984" in made(fold_digits=False).words
    assert made(lower=True).words[0] == "the"
    assert made(max_words=1, extra=["dog", "0000", "The"]).words == ("0000", "dog", "The")


def test_encoded_by_hand(made):
    vocabulary = made()
    arrays = vocabulary.encode(["the", "unseen", "1999", "cat"])
    number = {word: place for place, word in enumerate(vocabulary.words, 2)}
    assert arrays["words"].tolist() == [number["the"], 1, number["0000"], number["cat"]]
    assert arrays["casing"].tolist() == [1, 1, 5, 1]
    letter = {each: place for place, each in enumerate(vocabulary.characters, 2)}
    # Each is in one word alone.
    assert {"c", "m"}.isdisjoint(letter)
    assert arrays["characters"][3].tolist() == [1, letter["a"], letter["t"], 0, 0, 0]
    assert {name: (each.shape, each.dtype) for name, each in arrays.items()} == {
        "words": ((4,), np.dtype("int32")),
        "characters": ((4, 6), np.dtype("int32")),
        "casing": ((4,), np.dtype("int32")),
    }
    for name, each in arrays.items():
        size = vocabulary.sizes[name]
        assert 0 <= each.min() <= each.max() < size


def test_a_long_word_keeps_its_beginning_and_its_end(made):
    vocabulary = made([tuple("abcdefghij"), ("abcdefghij", "abcdefghij", "jihgfedcba")], word_length=5)
    letter = {each: place for place, each in enumerate(vocabulary.characters, 2)}
    [numbers] = vocabulary.encode(["abcdefghij"])["characters"].tolist()
    assert numbers == [letter[each] for each in "abcij"]
    assert vocabulary.encode(["abcij"])["characters"].tolist() == [numbers]


def test_only_the_parts_that_are_asked_for_are_made(made):
    assert made().encode(["a"], parts=["casing"]).keys() == {"casing"}


def test_tags_are_numbered_from_0_and_an_unknown_one_is_minus_1(made):
    assert made().encode_tags(["B-x", "O", "unseen"]).tolist() == [1, 0, -1]


WRITTEN = {
    "lower": ["cat", "e-mail", "straße", "n't"], "upper": ["USA", "AT&T"], "title": ["Cat", "I"],
    "mixed": ["iPhone", "McX", "O'Brien"], "digits": ["12", "1,000.50", "10:30"], "with digits": ["B2B", "1st", "3D"],
    "punctuation": ["!", "...", "€"], "other": ["北京", "हिन्दी"],
}  # fmt: skip


@pytest.mark.parametrize("kind", CASING)
def test_how_a_word_is_written(kind):
    assert {CASING[casing(word) - 1] for word in WRITTEN[kind]} == {kind}


@given(st.text(min_size=1))
def test_every_word_is_written_in_some_way(word):
    assert 1 <= casing(word) <= len(CASING)


def test_json_brings_it_back(made):
    first = made(lower=True, word_length=9)
    again = Vocabulary.from_json(json.loads(json.dumps(first.to_json())))
    assert again == first
    assert all(np.array_equal(a, b) for a, b in zip(first.encode(WORDS).values(), again.encode(WORDS).values(),
                                                    strict=True))  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        {"words": "abc"}, {"words": ["a", "a"]}, {"words": [1]}, {"words": [""]}, {"tags": []}, {"tags": None},
        {"word_length": 0}, {"word_length": True}, {"word_length": 10**9}, {"fold_digits": 1}, {"format": 2},
        {"more": 1}, {"characters": [["a"]]},
    ],
)  # fmt: skip
def test_what_is_no_vocabulary_is_refused(change, made):
    with pytest.raises(RunError, match="no vocabulary"):
        Vocabulary.from_json(made().to_json() | change)


@pytest.mark.parametrize("content", [None, [], "x", {}])
def test_what_is_no_object_is_refused(content):
    with pytest.raises(RunError, match="no vocabulary"):
        Vocabulary.from_json(content)


def test_what_is_remembered_is_bounded_and_changes_nothing(made, monkeypatch):
    words = [f"word{number}" for number in range(500)] + ["the", "cat"]
    expected = made().encode(words)
    monkeypatch.setattr(module, "_REMEMBERED", 64)
    vocabulary = made()
    for _ in range(2):
        found = vocabulary.encode(words)
        assert all(np.array_equal(found[name], expected[name]) for name in expected)
    assert len(vocabulary._lexicon._rows) <= 64


def test_threads_may_share_it(made):
    vocabulary = made()
    words = [[f"{'ab'[number % 2]}{step}" for step in range(3000)] for number in range(8)]
    expected = [made().encode(each)["characters"] for each in words]
    found = {}
    threads = [threading.Thread(target=lambda n=n: found.update({n: vocabulary.encode(words[n])["characters"]}))
               for n in range(8)]  # fmt: skip
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert all(np.array_equal(found[number], expected[number]) for number in range(8))
