import itertools

import keras
import numpy as np
import pytest
from keras import ops

from kerastk.networks import saved
from kerastk.networks.crf import CRF
from kerastk.testing import check_gradients

TAGS, TIME = 4, 5
LENGTHS = np.array([5, 1, 3, 4])
# The tags of a scheme: O, B, I, E; I and E go on with what B began.
LEGAL = {
    "transitions": np.array([[1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1], [1, 1, 0, 0]], bool),
    "starts": np.array([1, 1, 0, 0], bool),
    "ends": np.array([1, 0, 0, 1], bool),
}


def made(scale=1.0, seed=0, **ruled):
    """A layer with random scores, emissions (4, TIME, TAGS), tags and mask."""
    random = np.random.default_rng(seed)
    layer = CRF(TAGS, **ruled)
    layer.build((None, None, TAGS))
    layer.set_weights([random.normal(size=each.shape) * scale for each in layer.get_weights()])
    emissions = (random.normal(size=(4, TIME, TAGS)) * scale).astype("float32")
    return layer, emissions, random.integers(0, TAGS, (4, TIME)), np.arange(TIME) < LENGTHS[:, None]


def paths(layer, emissions, length):
    """Every allowed path of a sentence with its score, in float64."""
    transitions, starts, ends = (np.asarray(each, np.float64) for each in layer.get_weights())
    emissions = emissions.astype(np.float64)
    found = {}
    for path in itertools.product(range(TAGS), repeat=length):
        pairs = list(itertools.pairwise(path))
        if layer.starts[path[0]] and layer.ends[path[-1]] and all(layer.transitions[pair] for pair in pairs):
            own = sum(emissions[time, tag] for time, tag in enumerate(path))
            found[path] = own + starts[path[0]] + ends[path[-1]] + sum(transitions[pair] for pair in pairs)
    return found


def log_sum(scores):
    scores = np.array(list(scores))
    return scores.max() + np.log(np.exp(scores - scores.max()).sum())


@pytest.mark.parametrize("ruled", [{}, LEGAL], ids=["free", "legal"])
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_enumeration_of_all_paths_gives_the_same(ruled, scale):
    layer, emissions, _, mask = made(scale, **ruled)
    best, scores = layer.viterbi(emissions, mask)
    marginals = ops.convert_to_numpy(layer.marginals(emissions, mask))
    for row, length in enumerate(LENGTHS):
        found = paths(layer, emissions[row], length)
        total = log_sum(found.values())
        expected = max(found, key=found.get)
        assert tuple(ops.convert_to_numpy(best)[row][:length]) == expected
        assert float(scores[row]) == pytest.approx(found[expected], rel=1e-5)
        probability = np.zeros((length, TAGS))
        for path, score in found.items():
            probability[np.arange(length), path] += np.exp(score - total)
        np.testing.assert_allclose(marginals[row, :length], probability, atol=1e-5 * scale)
        every = list(found)
        tags = np.zeros((len(every), TIME), int)
        tags[:, :length] = every
        repeated = (np.repeat(each[row : row + 1], len(every), axis=0) for each in (emissions, mask))
        emitted, masks = repeated
        logs = ops.convert_to_numpy(layer.log_likelihood(emitted, tags, masks))
        np.testing.assert_allclose(logs, np.array(list(found.values())) - total, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("ruled", [{}, LEGAL], ids=["free", "legal"])
def test_its_gradients_are_right(ruled):
    layer, emissions, _, mask = made(**ruled)
    # Of allowed paths: what is ruled out has a score of -1e30, in which no difference is left.
    tags = np.where(mask, np.array([[0, 1, 2, 2, 3], [0] * 5, [1, 2, 3, 0, 0], [0, 0, 1, 3, 0]]), -1)

    @keras.saving.register_keras_serializable(package="tests")
    class Likelihood(keras.layers.Layer):
        def __init__(self, crf, **options):
            super().__init__(**options)
            self.crf = crf if isinstance(crf, keras.Layer) else keras.saving.deserialize_keras_object(crf)

        def build(self, shape):
            if not self.crf.built:
                self.crf.build(shape)

        def call(self, given):
            return self.crf.log_likelihood(given, tags, mask)

        def get_config(self):
            return {**super().get_config(), "crf": keras.saving.serialize_keras_object(self.crf)}

    checked = Likelihood(layer)
    checked.build((None, None, TAGS))
    assert check_gradients(checked, emissions, most=40).compared == 40 + 16 + 4 + 4
    assert np.ptp(layer.get_weights()[0]) != 0


def test_padding_changes_nothing():
    layer, emissions, tags, mask = made(**LEGAL)
    wild = np.concatenate([emissions, np.full((4, 3, TAGS), 1e4, "float32")], axis=1)
    wild[:, :TIME][~mask] = -1e4
    longer = np.pad(mask, ((0, 0), (0, 3)))
    for before, after in zip(layer(emissions, mask=mask), layer(wild, mask=longer), strict=True):
        before, after = (ops.convert_to_numpy(each) for each in (before, after))
        np.testing.assert_allclose(after[:, :TIME], before, atol=1e-6)
        assert (after[:, TIME:] == (-1 if after.ndim == 2 else 0)).all()
    tags = np.where(mask, tags, -1)
    padded = np.pad(tags, ((0, 0), (0, 3)), constant_values=-1)
    free, *_ = made()
    np.testing.assert_allclose(
        ops.convert_to_numpy(free.log_likelihood(wild, padded, longer)),
        ops.convert_to_numpy(free.log_likelihood(emissions, tags, mask)), rtol=1e-5,
    )  # fmt: skip
    bare = free.log_likelihood(emissions, tags, np.where(LENGTHS[:, None] > 1, mask, False))
    whole = free.log_likelihood(emissions, tags, mask)
    np.testing.assert_allclose(*(ops.convert_to_numpy(each) for each in (bare, whole)), rtol=1e-5)
    alone = free.log_likelihood(emissions[2:3, :3], tags[2:3, :3])
    assert float(alone[0]) == pytest.approx(float(free.log_likelihood(emissions, tags, mask)[2]), rel=1e-5)


@pytest.mark.parametrize("scale", [1.0, 40.0])
def test_long_sentences_are_summed_exactly_whatever_the_size_of_the_scores(scale):
    """Against logarithms in float64; scores of 40 leave sums that float32 has no number for."""
    random = np.random.default_rng(4)
    layer, lengths, time = CRF(7), np.array([150, 90, 1]), 150
    layer.build((None, None, 7))
    layer.set_weights([random.normal(size=each.shape) * scale for each in layer.get_weights()])
    transitions, starts, ends = (np.asarray(each, np.float64) for each in layer.get_weights())
    emissions = (random.normal(size=(3, time, 7)) * scale).astype("float32")
    mask = np.arange(time) < lengths[:, None]
    tags = random.integers(0, 7, (3, time))
    found = ops.convert_to_numpy(layer.marginals(emissions, mask))
    logs = ops.convert_to_numpy(layer.log_likelihood(emissions, tags, mask))
    for row, length in enumerate(lengths):
        own = emissions[row, :length].astype(np.float64)
        before, after = [starts], [ends]
        for word in range(1, length):
            sums = (before[-1] + own[word - 1])[:, None] + transitions
            before.append(np.logaddexp.reduce(sums, axis=0))
            sums = transitions + (own[length - word] + after[-1])
            after.append(np.logaddexp.reduce(sums, axis=1))
        both = np.array(before) + own + np.array(after[::-1])
        total = np.logaddexp.reduce(both[0])
        np.testing.assert_allclose(found[row, :length], np.exp(both - total), atol=2e-5 * scale)
        path = tags[row, :length]
        score = own[np.arange(length), path].sum() + starts[path[0]] + ends[path[-1]]
        score += transitions[path[:-1], path[1:]].sum()
        assert logs[row] == pytest.approx(score - total, rel=1e-4)


@pytest.mark.parametrize("scale", [1.0, 1e6])
def test_what_is_ruled_out_never_comes_out(scale):
    for seed in range(5):
        layer, emissions, _, mask = made(scale, seed, **LEGAL)
        tags, probabilities = (ops.convert_to_numpy(each) for each in layer(emissions, mask=mask))
        assert np.isfinite(probabilities).all()
        for row, length in zip(tags, LENGTHS, strict=True):
            assert layer.starts[row[0]]
            assert layer.ends[row[length - 1]]
            assert all(layer.transitions[pair] for pair in itertools.pairwise(row[:length]))
        assert (probabilities[:, 0][:, ~layer.starts] == 0).all()


class Fixed(keras.Model):
    """Gives what it gets, and has the layer's weights."""

    def __init__(self, crf):
        super().__init__()
        self.crf = crf

    def call(self, emissions):
        return emissions


def test_a_path_that_is_ruled_out_has_a_gradient_that_is_a_number():
    layer, emissions, _, mask = made(**LEGAL)
    model = Fixed(layer)
    model.compile(
        optimizer=keras.optimizers.SGD(0.1), loss=lambda tags, given: -layer.log_likelihood(given, tags, mask)
    )
    model.train_on_batch(emissions, np.full((4, TIME), 2))
    assert len(model.get_weights()) == 3
    assert all(np.isfinite(each).all() for each in model.get_weights())


def test_it_learns_which_tags_follow():
    # The words say nothing; the tags alternate.
    keras.utils.set_random_seed(1)
    layer = CRF(2)
    layer.build((None, None, 2))
    words, tags = np.zeros((16, 6, 2), "float32"), np.tile([0, 1], (16, 3))
    model = Fixed(layer)
    model.compile(optimizer=keras.optimizers.Adam(0.2), loss=lambda tags, given: -layer.log_likelihood(given, tags))
    model.fit(words, tags, epochs=20, verbose=0)
    found, probabilities = layer(words)
    assert np.array_equal(ops.convert_to_numpy(found), tags)
    assert ops.convert_to_numpy(probabilities)[:, 0, 0].min() > 0.8


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "bfloat16", "mixed_float16"])
def test_it_computes_in_float32_under_any_policy(policy):
    layer, emissions, tags, mask = made()
    other = CRF(TAGS, dtype=policy)
    other.build((None, None, TAGS))
    other.set_weights(layer.get_weights())
    assert {str(each.dtype) for each in other.weights} == {"float32"}
    for one, two in zip(layer(emissions, mask=mask), other(emissions, mask=mask), strict=True):
        assert np.array_equal(ops.convert_to_numpy(one), ops.convert_to_numpy(two))
    logs = (ops.convert_to_numpy(each.log_likelihood(emissions, tags, mask)) for each in (layer, other))
    assert np.array_equal(*logs)


def test_saved_and_loaded_it_gives_the_same(tmp_path):
    layer, emissions, _, mask = made(**LEGAL)
    scores, real = keras.Input((None, TAGS)), keras.Input((None,), dtype="bool")
    model = keras.Model([scores, real], layer(scores, mask=real))
    model.save(tmp_path / "model.keras")
    loaded = saved.load(tmp_path / "model.keras")
    for before, after in zip(model([emissions, mask]), loaded([emissions, mask]), strict=True):
        assert np.array_equal(ops.convert_to_numpy(before), ops.convert_to_numpy(after))
    again = next(each for each in loaded.layers if isinstance(each, CRF))
    assert again.get_config() == layer.get_config()
    assert np.array_equal(again.transitions, LEGAL["transitions"])


def test_sentences_of_one_word_and_of_any_length():
    layer, emissions, _, _ = made()
    tags, probabilities = layer(emissions[:, :1])
    assert tuple(tags.shape) == (4, 1)
    np.testing.assert_allclose(ops.convert_to_numpy(probabilities).sum(axis=-1), 1, rtol=1e-6)
    model = keras.Sequential([keras.Input((None, TAGS)), layer])
    for length in (1, 4, 200):
        tags, probabilities = model.predict(np.zeros((2, length, TAGS)), verbose=0)
        assert tags.shape == (2, length)
        np.testing.assert_allclose(probabilities.sum(axis=-1), 1, rtol=1e-4)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"tags": 0}, "whole number from 1"),
        ({"tags": 2, "starts": np.ones(3, bool)}, r"starts must be a boolean array of shape \(2,\)"),
        ({"tags": 2, "transitions": np.ones((2, 2))}, "transitions must be a boolean array"),
        ({"tags": 2, "ends": np.zeros(2, bool)}, "no path of 1 words"),
        ({"tags": 2, "transitions": np.zeros((2, 2), bool)}, "no path of 2 words"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_makes_no_sense_is_refused(values, message):
    with pytest.raises(ValueError, match=message):
        CRF(**values)
