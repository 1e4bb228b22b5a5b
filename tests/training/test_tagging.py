import math

import keras
import numpy as np
import pytest
from keras import ops

from kerastk.datasets.buckets import SentenceRows
from kerastk.datasets.sentence import Sentence
from kerastk.datasets.vocabulary import Vocabulary
from kerastk.evaluation.spans import tagging
from kerastk.networks.tagger import Characters, tagger
from kerastk.training.tagging import TagValidation, answers

CLASSES = ["O", "B-PER", "I-PER"]
# Seven sentences, so that a batch of many short ones is filled up; two have a tag that training never saw.
DEV = [
    (("Ana", "Lopes", "sleeps"), ("B-PER", "I-PER", "O")),
    (("Po", "floods"), ("B-LOC", "O")),
    (("Yes",), ("O",)),
    (("We", "met", "Ana", "in", "Turin", "on", "a", "Monday", "."), ("O", "O", "B-PER", "O", "B-LOC", *["O"] * 4)),
    (("Bo", "Li", "left"), ("B-PER", "I-PER", "O")),
    (("No", "."), ("O", "O")),
    (("Ana", "knows", "Bo"), ("B-PER", "O", "B-PER")),
]


@pytest.fixture(scope="module", params=["crf", "softmax"])
def judged(request):
    """A random tagger, the sentences in batches that are filled up, and the figures."""
    keras.utils.set_random_seed(1)
    sentences = [Sentence(words, tags) for words, tags in DEV]
    vocabulary = Vocabulary.of(
        [words for words, _ in DEV], CLASSES, max_words=100, min_count=1, fold_digits=True, lower=True, word_length=8
    )
    model = tagger(
        words=vocabulary.sizes["words"], tags=3, word_size=6, vectors=None, train_vectors=True,
        characters=Characters(network="cnn", count=vocabulary.sizes["characters"], size=4, values=3, widths=(3,)),
        casings=0, casing_size=0, cell="gru", layers=1, width=5, dropout=0.2, output=request.param, legal=None,
    )  # fmt: skip
    output, random = model.get_layer("probabilities"), np.random.default_rng(0)
    output.set_weights([random.normal(size=each.shape) for each in output.get_weights()])
    rows = SentenceRows(sentences, vocabulary, batch_words=16, training=False, parts=("words", "characters"))
    assert (rows.order < 0).any()
    validation = TagValidation(model, "iob2")
    validation.rows = rows
    return model, rows, validation


def test_a_tag_that_training_never_saw_counts_as_wrong(judged):
    model, rows, validation = judged
    figures = validation.figures()
    guess = [[CLASSES[number] for number in each.tags] for each in answers(model, rows)]
    expected = tagging([tags for _, tags in DEV], guess, "iob2")
    assert figures["val_accuracy"] == pytest.approx(expected["token_accuracy"])
    assert figures["val_f1"] == pytest.approx(expected["f1"])
    assert figures["val_error"] == pytest.approx(1 - expected["f1"])


def test_the_loss_is_the_mean_over_the_words_of_sentences_without_such_tags(judged):
    model, rows, validation = judged
    scores = keras.Model(model.input, model.get_layer("head").output)
    logs = words = 0
    for sentence in rows.sentences:
        if "B-LOC" in sentence.tags:
            continue
        alone = SentenceRows([sentence], rows.vocabulary, batch_words=1, training=False, parts=rows.parts)
        inputs, truth = alone.batch(0, 0)
        likelihood = model.get_layer("probabilities").log_likelihood(scores(inputs), truth, truth >= 0)
        logs, words = logs + float(ops.convert_to_numpy(likelihood)[0]), words + len(sentence.tokens)
    assert validation.figures()["val_loss"] == pytest.approx(-logs / words, rel=1e-5)


def test_without_any_such_sentence_there_is_no_loss(judged):
    model, rows, _ = judged
    validation = TagValidation(model, "iob2")
    strange = [each for each in rows.sentences if "B-LOC" in each.tags]
    validation.rows = SentenceRows(strange, rows.vocabulary, batch_words=16, training=False, parts=rows.parts)
    figures = validation.figures()
    assert math.isnan(figures.pop("val_loss"))
    assert all(0 <= each <= 1 for each in figures.values())
