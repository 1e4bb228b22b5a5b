import json
import zipfile

import keras
import numpy as np
import pytest

from kerastk.errors import WeightsError
from kerastk.networks import saved
from kerastk.networks.maxout import Maxout
from kerastk.testing import check_gradients

NORMAL = np.random.default_rng(5).normal
ROWS = NORMAL(size=(6, 4)).astype("float32")


def _expected(inputs, layer):
    kernel, bias = (np.asarray(each, np.float64) for each in layer.get_weights())
    pieces = [
        inputs @ kernel[:, number :: layer.pieces] + bias[number :: layer.pieces] for number in range(layer.pieces)
    ]
    return np.max(pieces, axis=0)


@pytest.mark.parametrize(("shape", "pieces"), [((6, 4), 2), ((6, 4), 3), ((2, 3, 5), 2), ((2, 3, 3, 2), 4)])
def test_each_unit_is_the_largest_of_its_pieces(shape, pieces):
    inputs = NORMAL(size=shape).astype("float32")
    layer = Maxout(7, pieces, bias_initializer="normal")
    outputs = np.asarray(layer(inputs))
    assert outputs.shape == (*shape[:-1], 7) == layer.compute_output_shape(shape)
    np.testing.assert_allclose(outputs, _expected(inputs, layer), rtol=1e-4, atol=1e-5)
    assert layer.count_params() == (shape[-1] + 1) * 7 * pieces


def test_two_pieces_can_be_the_absolute_value():
    layer = Maxout(1, use_bias=False)
    layer.build((None, 1))
    layer.set_weights([np.array([[1.0, -1.0]])])
    np.testing.assert_allclose(np.asarray(layer(np.array([[-3.0], [2.0]]))), [[3], [2]])


def test_its_gradients_are_right():
    assert check_gradients(Maxout(3, pieces=3), ROWS).compared == ROWS.size + 4 * 9 + 9
    check_gradients(Maxout(2, use_bias=False), NORMAL(size=(2, 3, 4)))


def test_two_pieces_keep_the_mean_square():
    keras.utils.set_random_seed(1)
    values = NORMAL(size=(50, 512)).astype("float32")
    for _ in range(4):
        values = Maxout(512)(values)
    assert np.mean(np.square(np.asarray(values))) == pytest.approx(1, rel=0.2)


def test_it_computes_under_its_policy_and_passes_masks_on():
    layer = Maxout(3, dtype="mixed_bfloat16")
    assert keras.backend.standardize_dtype(layer(ROWS).dtype) == "bfloat16"
    assert layer.kernel.dtype == "float32"
    tokens = keras.layers.Embedding(5, 4, mask_zero=True)(np.array([[1, 2, 0]]))
    assert np.asarray(keras.src.backend.get_keras_mask(Maxout(3)(tokens))).tolist() == [[True, True, False]]


@pytest.mark.parametrize("values", [{"units": 0}, {"units": 2.5}, {"units": 3, "pieces": 1}], ids=str)
def test_wrong_numbers_are_refused(values):
    with pytest.raises(ValueError, match=r"must be a whole number from \d"):
        Maxout(**values)


@pytest.fixture
def model_file(tmp_path):
    photo = keras.Input((8, 8, 3), dtype="uint8", name="photo")
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(photo))
    hidden = Maxout(5, pieces=3, bias_initializer="ones", name="hidden")(pooled)
    model = keras.Model(photo, keras.layers.Dense(2, activation="softmax")(hidden))
    model.save(tmp_path / "model.keras")
    return tmp_path / "model.keras", model


def test_saved_and_loaded_it_gives_the_same(model_file):
    path, model = model_file
    photos = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), np.uint8)
    for loaded in (saved.load(path), keras.saving.load_model(path, safe_mode=True)):
        assert np.array_equal(np.asarray(loaded(photos)), np.asarray(model(photos)))
        assert loaded.get_layer("hidden").get_config() == model.get_layer("hidden").get_config()


@pytest.mark.parametrize(
    "change",
    [{"module": "os"}, {"class_name": "Lambda"}, {"registered_name": "kerastk>Other"}, {"registered_name": ["x"]}],
    ids=str,
)
def test_what_only_looks_like_it_is_refused(model_file, change):
    path, _ = model_file
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(members["config.json"])
    next(each for each in config["config"]["layers"] if each["class_name"] == "Maxout").update(change)
    members["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(WeightsError, match="which no network of kerastk has"):
        saved.load(path)
