import json
import zipfile

import keras
import numpy as np
import pytest

from kerastk.errors import RecipeError
from kerastk.networks.classifier import classifier, logits_model
from kerastk.training import device
from kerastk.training.device import choose_device, choose_precision, set_precision


@pytest.fixture
def no_gpu():
    # On JAX Keras raises, in place of giving an empty list.
    if choose_device("auto") != "cpu":
        pytest.skip("there is a GPU")


@pytest.fixture
def model():
    keras.utils.set_random_seed(5)
    made = classifier("mobilenet_v2_0.35", classes=3, image_size=32, dropout=0.1, weights=None)
    # In a random network signals die out, unless batch normalisation has seen some.
    layers = [each for each in made.layers if isinstance(each, keras.layers.BatchNormalization)]
    for each in layers:
        each.momentum = 0.0
    made(PHOTOS, training=True)
    return made


def _layers(model):
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _layers(layer)
        else:
            yield layer


def _policies(config):
    """All dtype policies named anywhere in a saved configuration."""
    if isinstance(config, dict):
        if config.get("class_name") == "DTypePolicy":
            yield config["config"]["name"]
        for value in config.values():
            yield from _policies(value)
    elif isinstance(config, list):
        for value in config:
            yield from _policies(value)


PHOTOS = np.random.default_rng(7).integers(0, 256, (8, 32, 32, 3), "uint8")


def test_bfloat16_changes_the_answers_a_little(shared):
    path = shared / "weights" / "mobilenet_v2_0.35_224_notop.weights.h5"
    model = classifier("mobilenet_v2_0.35", classes=3, image_size=32, dropout=0.1, weights=path)
    exact = np.asarray(model(PHOTOS))
    set_precision(model, "bfloat16")
    answers = model(PHOTOS)

    assert keras.backend.standardize_dtype(answers.dtype) == "float32"
    assert keras.backend.standardize_dtype(logits_model(model)(PHOTOS).dtype) == "float32"
    assert {keras.backend.standardize_dtype(each.dtype) for each in model.trainable_weights} == {"float32"}
    assert 0 < np.abs(np.asarray(answers) - exact).max() < 0.05


def test_back_in_float32_the_answers_are_the_same(model):
    exact = np.asarray(model(PHOTOS))
    set_precision(model, "bfloat16")
    set_precision(model, "float32")
    assert np.array_equal(model(PHOTOS), exact)


def test_a_saved_model_has_float32_policies_only(model, tmp_path):
    set_precision(model, "bfloat16")
    model.save(tmp_path / "mixed.keras")
    set_precision(model, "float32")
    model.save(tmp_path / "model.keras")

    def saved(name):
        return set(_policies(json.loads(zipfile.ZipFile(tmp_path / name).read("config.json"))))

    assert saved("mixed.keras") == {"mixed_bfloat16", "float32"}
    assert saved("model.keras") == {"float32"}
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True, compile=False)
    np.testing.assert_allclose(np.asarray(loaded(PHOTOS)), np.asarray(model(PHOTOS)), atol=1e-6)


@pytest.mark.parametrize("base", ["mobilenet_v2_0.35", "efficientnet_b0", "convnext_tiny"])
def test_all_layers_but_scaling_and_head_compute_in_the_precision(base):
    def stays(layer):
        scales = isinstance(layer, keras.layers.Rescaling | keras.layers.Normalization)
        return scales or layer.name in ("head", "probabilities")

    with keras.StatelessScope(initialize_variables=False):
        model = classifier(base, classes=3, image_size=32, dropout=0.1, weights=None)
    for precision, dtype in [("bfloat16", "bfloat16"), ("float16", "float16"), ("float32", "float32")]:
        set_precision(model, precision)
        assert {each.compute_dtype for each in _layers(model) if not stays(each)} == {dtype}
        assert {each.compute_dtype for each in _layers(model) if stays(each)} == {"float32"}
        assert {each.variable_dtype for each in _layers(model)} == {"float32"}


def test_training_in_bfloat16_leaves_weights_in_float32(model):
    set_precision(model, "bfloat16")
    logits = logits_model(model)
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    logits.compile(keras.optimizers.SGD(0.1), loss=loss, run_eagerly=True)
    before = np.array(model.get_layer("Conv1").kernel)
    assert np.isfinite(logits.train_on_batch(PHOTOS, np.eye(3, dtype="float32")[np.arange(8) % 3]))
    assert not np.array_equal(model.get_layer("Conv1").kernel, before)
    assert {keras.backend.standardize_dtype(each.dtype) for each in logits.trainable_weights} == {"float32"}


def test_the_cpu_is_there():
    assert choose_device("cpu") == "cpu"


@pytest.mark.usefixtures("no_gpu")
def test_auto_is_the_cpu_where_there_is_no_gpu():
    assert choose_device("auto") == "cpu"


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize("wanted", ["gpu", "gpu:0", "gpu:3"])
def test_a_gpu_that_is_not_there_is_refused(wanted):
    with pytest.raises(RecipeError, match=rf"device {wanted} is not there: .* sees no GPU\. Use cpu\."):
        choose_device(wanted)


def test_float16_on_a_cpu_is_refused():
    with pytest.raises(RecipeError, match="float16 is 4 times slower than float32 on a CPU; use float32 or bfloat16"):
        choose_precision("float16", "cpu")


def test_precision_on_a_cpu():
    assert choose_precision("auto", "cpu")[0] == "float32"
    assert choose_precision("bfloat16", "cpu") == ("bfloat16", "as asked")


@pytest.mark.parametrize(
    ("capability", "precision"),
    [((9, 0), "bfloat16"), ((8, 0), "bfloat16"), ((7, 5), "float16"), ((6, 1), "float32"), ((), "float32")],
)
def test_precision_on_a_gpu_is_what_its_units_have(capability, precision, monkeypatch):
    monkeypatch.setattr(device, "_compute_capability", lambda number: capability if number == 1 else None)
    found, reason = choose_precision("auto", "gpu:1")
    assert found == precision
    assert (".".join(map(str, capability)) or "unknown") in reason
    assert choose_precision("float16", "gpu:1") == ("float16", "as asked")
