import importlib
import itertools
import json
import zipfile

import keras
import numpy as np
import pytest
from keras import ops

from kerastk.errors import RecipeError, WeightsError
from kerastk.networks import saved
from kerastk.networks.characters import CharacterCNN
from kerastk.networks.crf import CRF
from kerastk.networks.tagger import Characters, Legal, kernel_notes, objective, scores_model, tagger
from kerastk.testing import check_gradients
from kerastk.training.device import set_precision

WORDS, TAGS, TIME = 30, 4, 6
CNN = Characters(network="cnn", count=20, size=5, values=4, widths=(1, 3))
LSTM = Characters(network="lstm", count=20, size=5, values=4)
LEGAL = Legal(
    transitions=np.array([[1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1], [1, 1, 0, 0]], bool),
    starts=np.array([1, 1, 0, 0], bool),
    ends=np.array([1, 0, 0, 1], bool),
)


def small(**options):
    keras.utils.set_random_seed(3)
    given = {
        "words": WORDS, "tags": TAGS, "word_size": 6, "vectors": None, "train_vectors": True, "characters": CNN,
        "casings": 4, "casing_size": 2, "cell": "lstm", "layers": 1, "width": 5, "dropout": 0.3, "output": "crf",
        "legal": None,
    }  # fmt: skip
    model = tagger(**given | options)
    random = np.random.default_rng(1)
    output = model.get_layer("probabilities")
    output.set_weights([random.normal(size=each.shape) for each in output.get_weights()])
    return model


def sentences(length=TIME, names=("words", "casing", "spelling", "spelling_characters")):
    """Three sentences of 6, 1 and 4 words, padded to `length`; and their tags."""
    random = np.random.default_rng(2)
    real = np.arange(TIME) < np.array([6, 1, 4])[:, None]
    given = {
        "words": random.integers(1, WORDS, (3, TIME)) * real,
        "casing": random.integers(1, 4, (3, TIME)) * real,
        "spelling": random.integers(1, 9, (3, TIME)) * real,
    }
    spelled = random.integers(1, 20, (9, 7)) * (np.arange(7) < 4) * (np.arange(9) > 0)[:, None]
    tags = np.where(real, random.integers(0, TAGS, (3, TIME)), -1)
    pad = ((0, 0), (0, length - TIME))
    found = {name: np.pad(each, pad) for name, each in given.items()} | {"spelling_characters": spelled}
    return {name: found[name].astype("int32") for name in names}, np.pad(tags, pad, constant_values=-1).astype("int32")


def arrays(outputs):
    return {name: ops.convert_to_numpy(each) for name, each in outputs.items()}


NETWORKS = {
    "lstm-crf": {},
    "gru-softmax": {"cell": "gru", "output": "softmax", "layers": 2},
    "rnn-legal": {"cell": "rnn", "legal": LEGAL, "casings": 0, "casing_size": 0},
    "spelled by an lstm": {"characters": LSTM},
    "words alone": {"characters": None, "casings": 0, "casing_size": 0},
}


@pytest.fixture(params=NETWORKS, ids=str, scope="module")
def network(request):
    model = small(**NETWORKS[request.param])
    return model, list(model.input)


def test_its_answers_have_the_shapes_and_padding_that_are_promised(network):
    model, names = network
    given, tags = sentences(names=names)
    found = arrays(model(given))
    real = tags >= 0
    assert found["tags"].shape == (3, TIME)
    assert found["probabilities"].shape == (3, TIME, TAGS)
    assert {name: each.dtype.name for name, each in found.items()} == {"tags": "int32", "probabilities": "float32"}
    assert np.array_equal(found["tags"] < 0, ~real)
    np.testing.assert_allclose(found["probabilities"].sum(axis=-1), real, atol=1e-5)


def test_more_padding_and_other_sentences_change_nothing(network):
    model, names = network
    given, _ = sentences(names=names)
    found = arrays(model(given))
    longer = arrays(model(sentences(TIME + 5, names=names)[0]))
    assert np.array_equal(longer["tags"][:, :TIME], found["tags"])
    np.testing.assert_allclose(longer["probabilities"][:, :TIME], found["probabilities"], atol=1e-6)
    alone = {name: each if name == "spelling_characters" else each[2:3, :4] for name, each in given.items()}
    alone = arrays(model(alone))
    assert np.array_equal(alone["tags"][0], found["tags"][2, :4])
    np.testing.assert_allclose(alone["probabilities"][0], found["probabilities"][2, :4], atol=1e-6)


def test_more_room_for_characters_changes_nothing():
    given, _ = sentences()
    wider = {**given, "spelling_characters": np.pad(given["spelling_characters"], ((0, 4), (0, 3)))}
    for characters in (CNN, LSTM):
        model = small(characters=characters)
        one, two = arrays(model(given)), arrays(model(wider))
        np.testing.assert_allclose(one["probabilities"], two["probabilities"], atol=1e-6)


def test_saved_and_loaded_it_answers_equally(network, tmp_path):
    model, names = network
    given, _ = sentences(names=names)
    model.save(tmp_path / "model.keras")
    loaded = saved.load(tmp_path / "model.keras")
    before, after = arrays(model(given)), arrays(loaded(given))
    assert all(np.array_equal(before[name], after[name]) for name in before)
    assert [each.name for each in loaded.layers] == [each.name for each in model.layers]


@pytest.mark.parametrize("kind", ["CRF", "CharacterCNN"])
@pytest.mark.parametrize("change", [{"module": "os"}, {"registered_name": "kerastk>Other"}], ids=str)
def test_what_only_looks_like_our_layers_is_refused(tmp_path, kind, change):
    path = tmp_path / "model.keras"
    small().save(path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(members["config.json"])
    next(each for each in config["config"]["layers"] if each["class_name"] == kind).update(change)
    members["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(WeightsError, match="which no network of kerastk has"):
        saved.load(path)


def test_what_is_trained_shares_all_weights_and_its_loss_is_the_mean_over_words(network):
    model, names = network
    given, tags = sentences(names=names)
    fitted, loss = scores_model(model), objective(model)
    assert {id(each) for each in fitted.weights} == {id(each) for each in model.weights}
    emissions = fitted(given)
    output = model.get_layer("probabilities")
    logs = ops.convert_to_numpy(output.log_likelihood(emissions, tags, tags >= 0))
    assert float(loss(tags, emissions)) == pytest.approx(-logs.sum() / (tags >= 0).sum(), rel=1e-5)
    # More padding changes nothing.
    given, padded = sentences(TIME + 4, names=names)
    assert float(loss(padded, fitted(given))) == pytest.approx(-logs.sum() / (tags >= 0).sum(), rel=1e-5)


@pytest.mark.parametrize("name", ["lstm-crf", pytest.param("gru-softmax", marks=pytest.mark.slow)])
@pytest.mark.parametrize("jit", [pytest.param(True, marks=pytest.mark.slow, id="xla"), pytest.param(False, id="graph")])
def test_it_learns(name, jit):
    model = small(**NETWORKS[name], dropout=0.0)
    before = [np.array(each) for each in model.trainable_weights]
    given, tags = sentences()
    fitted = scores_model(model)
    fitted.compile(optimizer=keras.optimizers.Adam(0.05), loss=objective(model), jit_compile=jit)
    losses = [float(fitted.train_on_batch(given, tags)) for _ in range(25)]
    assert losses[-1] < losses[0] / 3
    assert float(fitted.test_on_batch(given, tags)) < losses[0] / 3
    assert np.array_equal(arrays(model(given))["tags"], tags)
    for variable, start in zip(model.trainable_weights, before, strict=True):
        assert not np.array_equal(np.array(variable), start), variable.path


def test_dropout_is_for_training_alone_and_takes_a_feature_from_a_whole_sentence():
    model = small(dropout=0.5, layers=2)
    given, _ = sentences()
    one, two = arrays(model(given)), arrays(model(given, training=False))
    assert np.array_equal(one["probabilities"], two["probabilities"])
    dropped = ops.convert_to_numpy(model.get_layer("dropout_0")(np.ones((2, 9, 40), "float32"), training=True))
    assert (dropped == dropped[:, :1]).all()
    assert set(np.unique(dropped)) == {0.0, 2.0}


def test_given_vectors_are_started_from_and_stay_where_frozen():
    vectors = np.random.default_rng(0).normal(size=(WORDS, 6)).astype("float32")
    given, tags = sentences()
    for train in (True, False):
        model = small(vectors=vectors, train_vectors=train)
        assert np.array_equal(model.get_layer("word_vectors").get_weights()[0], vectors)
        fitted = scores_model(model)
        fitted.compile(optimizer="adam", loss=objective(model))
        fitted.train_on_batch(given, tags)
        assert np.array_equal(model.get_layer("word_vectors").get_weights()[0], vectors) == (not train)


def test_in_bfloat16_the_emissions_and_the_crf_stay_in_float32():
    model = small(legal=LEGAL)
    given, tags = sentences()
    exact = arrays(model(given))["probabilities"]
    set_precision(model, "bfloat16")
    assert keras.backend.standardize_dtype(model.get_layer("recurrent_1").compute_dtype) == "bfloat16"
    assert keras.backend.standardize_dtype(scores_model(model)(given).dtype) == "float32"
    found = arrays(model(given))
    assert found["probabilities"].dtype == np.float32
    np.testing.assert_allclose(found["probabilities"], exact, atol=0.05)
    for row, length in zip(found["tags"], (tags >= 0).sum(axis=1), strict=True):
        assert all(LEGAL.transitions[pair] for pair in itertools.pairwise(row[:length]))


def test_the_gradients_of_the_character_network_are_right():
    # By its weights; a relu's kink and a tie of the maximum are further away than the step, by the seed.
    keras.utils.set_random_seed(5)
    layer = CharacterCNN(9, size=3, filters=4, widths=(1, 3))
    characters = np.array([[1, 2, 3, 0, 0], [4, 5, 6, 7, 8], [0, 0, 0, 0, 0]])
    layer(characters)
    assert check_gradients(layer, characters).compared > 60


def test_words_are_told_apart_by_how_they_begin_and_end():
    keras.utils.set_random_seed(5)
    layer = CharacterCNN(9, size=3, filters=8, widths=(3,))
    ab, ba, padding = ops.convert_to_numpy(layer(np.array([[1, 2, 0, 0], [2, 1, 0, 0], [0, 0, 0, 0]])))
    assert not np.allclose(ab, ba)
    assert (padding == 0).all()
    # The last character of a word that takes all the room stands before a zero too.
    full, roomy = (ops.convert_to_numpy(layer(np.array([[1, 2, 3, 4] + [0] * room]))) for room in (0, 2))
    np.testing.assert_allclose(full, roomy, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cell": "qrnn"}, "cell must be one of lstm, gru, rnn"),
        ({"output": "svm"}, "output must be one of softmax, crf"),
        ({"output": "softmax", "legal": LEGAL}, "softmax would not use them"),
        ({"vectors": np.zeros((3, 6), "float32")}, r"vectors must be \(words, word_size\) = \(30, 6\); got \(3, 6\)"),
        ({"characters": Characters(network="bert", count=3, size=3, values=3)}, "must be cnn or lstm; got 'bert'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_it_would_not_use_is_refused(options, message):
    with pytest.raises(RecipeError, match=message):
        small(**options)


def test_the_output_layer_is_what_was_asked_for():
    assert isinstance(small(legal=LEGAL).get_layer("probabilities"), CRF)
    assert np.array_equal(small(legal=LEGAL).get_layer("probabilities").transitions, LEGAL.transitions)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the fused kernel is used on TensorFlow alone")
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_the_conditions_of_the_fused_kernel_hold(cell, monkeypatch):
    rnn = importlib.import_module("keras.src.backend.tensorflow.rnn")
    monkeypatch.setattr(rnn, "_is_gpu_available", lambda: True)
    asked = []
    kernel = f"_cudnn_{cell}"

    def unavailable(inputs, *given):
        mask = next(each for each in given if getattr(each, "dtype", None) == "bool")
        asked.append(bool(rnn._is_sequence_right_padded(mask)) and not bool(rnn._has_fully_masked_sequence(mask)))
        raise rnn.tf.errors.NotFoundError(None, None, "no such kernel on this machine")

    monkeypatch.setattr(rnn, kernel, unavailable)
    model = small(cell=cell, layers=2, characters=LSTM)
    model(sentences(TIME + 2)[0])
    # Both directions of two layers; those of the characters are an LSTM in any case.
    assert asked == [True] * (6 if cell == "lstm" else 4)
    assert kernel_notes(model, device="gpu:0", xla=False) == [
        "fused kernel on", "XLA off: it cannot compile the fused kernel"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "backend", "device", "xla", "expected"),
    [
        ({}, "tensorflow", "cpu", False, ("only a GPU has it", "XLA off: on a CPU each shape")),
        ({}, "tensorflow", "cpu", True, ("only a GPU has it", "XLA on")),
        ({"cell": "rnn"}, "tensorflow", "gpu:0", True, ("none for the cell rnn", "XLA on")),
        ({"cell": "rnn"}, "tensorflow", "gpu:0", False, ("none for the cell rnn", "XLA off: Keras does without it")),
        ({}, "jax", "gpu:0", True, ("on jax Keras does not use it for padded", "XLA on")),
        ({}, "torch", "gpu:0", False, ("on torch Keras does not use it", "XLA off: the PyTorch backend has none")),
    ],
    ids=str,
)
def test_the_notes_say_what_runs_and_why_not(options, backend, device, xla, expected, monkeypatch):
    model = small(characters=None, casings=0, **options)
    monkeypatch.setattr(keras.backend, "backend", lambda: backend)
    notes = kernel_notes(model, device=device, xla=xla)
    assert all(part in note for part, note in zip(expected, notes, strict=True)), notes


def test_an_unusual_cell_is_told():
    model = small()
    model.get_layer("recurrent_1").forward_layer.unroll = True
    assert kernel_notes(model, device="gpu:0", xla=False)[0].endswith("the usual one with tanh, sigmoid and biases")
