import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kerastk.datasets.buckets import SentenceRows, bucket_lengths, cut_long
from kerastk.datasets.schemes import faults, spans
from kerastk.datasets.sentence import Sentence
from kerastk.datasets.vocabulary import Vocabulary


def sentences_of(lengths):
    """Sentences of these lengths, each of words of its own, tagged by turns."""
    return [
        Sentence(tuple(f"s{number}w{place}" for place in range(length)),
                 tuple(("O", "B-x")[(place + number) % 2] for place in range(length)), line=number)
        for number, length in enumerate(lengths)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def rows_of():
    def call(sizes, *, training, batch_words=64, **options):
        sentences = sentences_of(sizes)
        vocabulary = Vocabulary.of(
            [each.tokens for each in sentences], ["O", "B-x"], max_words=10**6, min_count=1, fold_digits=False,
            lower=False, word_length=8,
        )  # fmt: skip
        return SentenceRows(sentences, vocabulary, batch_words=batch_words, training=training, **options)

    return call


MIXED = np.random.default_rng(3).integers(1, 40, 150).tolist()
LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=60)


@given(st.lists(st.integers(1, 60), min_size=1), st.integers(1, 4))
@settings(deadline=None, max_examples=50)
def test_no_other_lengths_pad_less(lengths, most):
    def cells(buckets):
        return sum(min(bucket for bucket in buckets if bucket >= length) for length in lengths)

    found = bucket_lengths(lengths, most)
    longest = max(lengths)
    steps = list(range(4, longest, 4))
    best = min(cells((*chosen, longest)) for count in range(min(most, len(steps) + 1))
               for chosen in itertools.combinations(steps, count))  # fmt: skip
    assert cells(found) == best
    assert len(found) <= most
    assert found == sorted(set(found))
    assert found[-1] == longest


def test_lengths_of_thousands_of_sentences_are_found_soon(within):
    lengths = np.random.default_rng(0).integers(1, 100_000, 200_000)
    found = within(30, bucket_lengths, lengths)
    assert len(found) == 8
    assert found[-1] == lengths.max()


@given(LENGTHS, st.integers(16, 200))
@settings(deadline=None, max_examples=40)
def test_every_epoch_has_each_sentence_in_full_batches_of_few_shapes(rows_of, lengths, batch_words):
    rows = rows_of(lengths, training=True, batch_words=batch_words, seed=5)
    for epoch in (0, 1):
        order = rows.numbers(epoch)
        assert set(order) == set(range(len(lengths)))
        batches = [rows.batch(epoch, position) for position in range(rows.steps)]
        assert len(order) == sum(len(tags) for _, tags in batches)
        shapes = {tags.shape for _, tags in batches}
        assert len(shapes) <= 8
        assert len({length for _, length in shapes}) == len(shapes)
        # Only the last batch of the longest bucket is filled up.
        assert len(order) - len(lengths) < max(count for count, _ in shapes)
        for inputs, tags in batches:
            assert (inputs["words"] > 0).any(axis=1).all()
            assert np.array_equal(inputs["words"] > 0, tags >= 0)
            assert np.array_equal(inputs["casing"] > 0, tags >= 0)
            assert np.array_equal(inputs["spelling"] > 0, tags >= 0)
            assert np.array_equal(inputs["spelling_characters"][inputs["spelling"]].any(axis=-1), tags >= 0)


def test_a_row_holds_the_words_and_tags_of_its_sentence(rows_of):
    rows = rows_of(MIXED, training=True)
    whole = [rows.vocabulary.encode(each.tokens) for each in rows.sentences]
    tags = [rows.vocabulary.encode_tags(each.tags) for each in rows.sentences]
    order = iter(rows.numbers(3))
    for position in range(rows.steps):
        inputs, labels = rows.batch(3, position)
        for place, row in zip(range(len(labels)), order, strict=False):
            size = MIXED[row]
            found = {"words": inputs["words"], "casing": inputs["casing"]}
            found["characters"] = inputs["spelling_characters"][inputs["spelling"]]
            for name, values in found.items():
                assert np.array_equal(values[place, :size], whole[row][name])
                assert not values[place, size:].any()
            assert np.array_equal(labels[place, :size], tags[row])


def test_order_depends_on_seed_and_epoch_alone(rows_of):
    one, other = rows_of(MIXED, training=True, seed=1), rows_of(MIXED, training=True, seed=1)
    assert np.array_equal(one.numbers(4), other.numbers(4))
    assert not np.array_equal(one.numbers(4), one.numbers(5))
    assert not np.array_equal(one.numbers(4), rows_of(MIXED, training=True, seed=2).numbers(4))
    lengths = [tags.shape[1] for _, tags in one.batches(0, 1)]
    # Batches of a length do not stand together.
    assert lengths != sorted(lengths)
    assert lengths != [tags.shape[1] for _, tags in one.batches(1, 2)]


def test_batches_may_begin_anywhere(rows_of):
    rows = rows_of(MIXED, training=True, word_dropout=0.3)
    everything = list(rows.batches(2, 4))
    assert len(everything) == 2 * rows.steps
    skipped = list(rows.batches(2, 4, skip=rows.steps - 1))
    for (one, tags), (other, others) in zip(everything[rows.steps - 1 :], skipped, strict=True):
        assert np.array_equal(tags, others)
        assert all(np.array_equal(one[name], other[name]) for name in one)
    assert rows.waited > 0


def test_words_are_dropped_by_seed_epoch_and_sentence_alone(rows_of):
    def dropped(rows, epoch):
        """Which words of each sentence are unknown."""
        found, order = {}, iter(rows.numbers(epoch))
        for position in range(rows.steps):
            words = rows.batch(epoch, position)[0]["words"]
            for row, number in zip(words, order, strict=False):
                found[rows.sentences[number].tokens] = (row[: rows.sizes[number]] == 1).tolist()
        return found

    rows = rows_of(MIXED, training=True, word_dropout=0.25)
    first = dropped(rows, 0)
    assert np.mean(list(itertools.chain(*first.values()))) == pytest.approx(0.25, abs=0.03)
    assert dropped(rows, 1) != first
    fewer = dropped(rows_of(MIXED[:100], training=True, word_dropout=0.25, batch_words=200), 0)
    assert fewer == {tokens: first[tokens] for tokens in fewer}
    # Nothing is dropped from what is judged, nor from characters.
    assert not any(itertools.chain(*dropped(rows_of(MIXED, training=False, word_dropout=0.25), 0).values()))
    plain = rows_of(MIXED, training=True)
    assert np.array_equal(rows.batch(0, 0)[0]["spelling"], plain.batch(0, 0)[0]["spelling"])
    assert np.array_equal(*(each.batch(0, 0)[0]["spelling_characters"] for each in (rows, plain)))


@pytest.mark.parametrize("fixed", [True, False])
@given(lengths=LENGTHS)
@settings(deadline=None, max_examples=40)
def test_a_pass_has_each_sentence_once_and_answers_come_back_in_order(rows_of, fixed, lengths):
    rows = rows_of(lengths, training=False, fixed=fixed)
    batches = list(rows.batches(0, 1))
    assert len(batches) == rows.steps
    assert sorted(rows.order[rows.order >= 0]) == list(range(len(lengths)))
    assert sum((tags >= 0).sum() for _, tags in batches) == sum(lengths)
    if fixed:
        assert {tags.shape for _, tags in batches} <= set(zip(rows.rows, rows.lengths, strict=True))
    else:
        assert (rows.order >= 0).all()
    answers = rows.in_order(inputs["words"] for inputs, _ in batches)
    for each, answer in zip(rows.sentences, answers, strict=True):
        assert np.array_equal(answer, rows.vocabulary.encode(each.tokens)["words"])
    truth = [rows.vocabulary.encode_tags(each.tags) for each in rows.sentences]
    assert np.array_equal(rows.truth, np.concatenate(truth))


def test_a_sentence_longer_than_all_buckets_is_not_cut(rows_of):
    rows = rows_of([5, 130, 7], training=False, lengths=[8, 16])
    assert rows.lengths == [8, 16, 32, 64, 128, 256]
    assert sorted(tags.shape[1] for _, tags in rows.batches(0, 1)) == [8, 256]
    with pytest.raises(ValueError, match="a sentence of 130 words; the longest bucket: 16"):
        rows_of([5, 130, 7], training=True, lengths=[8, 16])


def test_only_the_parts_that_a_network_uses_are_made(rows_of):
    inputs, _ = rows_of([3, 4], training=True, parts=["words"]).batch(0, 0)
    assert inputs.keys() == {"words"}


def test_sentences_without_tags_have_batches_too(rows_of):
    rows = rows_of([3, 9], training=False)
    bare = SentenceRows(
        [Sentence(each.tokens) for each in rows.sentences], rows.vocabulary, batch_words=8, training=False
    )
    for inputs, tags in bare.batches(0, 1):
        assert (tags == -1).all()
        assert (inputs["words"] > 0).any(axis=1).all()


def test_long_sentences_are_cut_between_spans():
    tags = ["B-x", "I-x", "E-x", "O", "S-y"] * 40
    sentence = Sentence(tuple(f"w{place}" for place in range(200)), tuple(tags))
    short = Sentence(("a",), ("O",))
    pieces, long = cut_long([short, sentence], 32, "iobes")
    assert long == 1
    assert pieces[0] == short
    assert sum((each.tokens for each in pieces[1:]), ()) == sentence.tokens
    assert sum((each.tags for each in pieces[1:]), ()) == sentence.tags
    assert max(len(each.tokens) for each in pieces) <= 32
    assert not any(faults(each.tags, "iobes") for each in pieces)


def test_a_span_longer_than_a_piece_is_cut_into_legal_ones():
    tags = ("B-x", *["I-x"] * 48, "E-x")
    pieces, _ = cut_long([Sentence(tuple(map(str, range(50))), tags)], 20, "iobes")
    assert [len(each.tokens) for each in pieces] == [20, 20, 10]
    assert [[span[:2] for span in spans(each.tags, "iobes", strict=True)] for each in pieces] == [
        [(0, 20)],
        [(0, 20)],
        [(0, 10)],
    ]
    pieces, _ = cut_long([Sentence(tuple(map(str, range(5))), tuple("ABCDE"))], 2, "plain")
    assert [each.tags for each in pieces] == [("A", "B"), ("C", "D"), ("E",)]
