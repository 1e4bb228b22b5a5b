import dataclasses
import gc
import subprocess
import sys
import zipfile

import h5py
import keras
import numpy as np
import pytest
from keras.src.applications import efficientnet
from keras.src.backend import config
from keras.src.legacy.saving import legacy_h5_format
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from kerastk.errors import RecipeError, WeightsError
from kerastk.networks.bases import BASES
from kerastk.networks.classifier import classifier, logits_model, with_new_head
from kerastk.networks.cuts import features, stages
from kerastk.networks.weights import file_hash


def _network(base, size, **arguments):
    return getattr(keras.applications, BASES[base].function)(
        include_top=False, pooling="avg", input_shape=(size, size, 3), **arguments
    )


def _features(model, images):
    # Keras keeps what every layer gives until the call ends: 3 GB for all photos at once.
    network = keras.Model(model.input, features(model))
    return np.concatenate([network(batch) for batch in np.split(images, range(16, len(images), 16))])


def test_every_base_builds_trains_saves_and_answers_equally(member, small, photos, tmp_path):
    model = small(member)
    size = BASES[member].smallest
    # On two photos, the batch statistics of the deepest networks let gradients overflow.
    images = photos(8, size)
    names = [cut.layer for cut in stages(model)]
    assert len(names) == len(set(names)) >= 1
    assert model.input.dtype == "uint8"
    assert model.output.shape == (None, 3)

    before = [np.array(each) for each in model.trainable_weights]
    logits = logits_model(model)
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    logits.compile(keras.optimizers.SGD(0.1, global_clipnorm=1.0), loss=loss, run_eagerly=True)
    assert np.isfinite(logits.train_on_batch(images, np.eye(3, dtype="float32")[np.arange(8) % 3]))
    changed = [(np.array(new) != old).any() for new, old in zip(model.trainable_weights, before, strict=True)]
    assert changed[0], "the gradient does not reach the first layer"
    assert np.mean(changed) > 0.5

    answers = np.asarray(model(images))
    np.testing.assert_allclose(answers.sum(axis=1), 1, rtol=1e-5)
    path = tmp_path / "model.keras"
    model.save(path)
    loaded = keras.saving.load_model(path, safe_mode=True, compile=False)
    path.unlink()
    for one, other in zip(loaded.weights, model.weights, strict=True):
        assert np.array_equal(one, other)
    np.testing.assert_allclose(np.asarray(loaded(images)), answers, atol=1e-6)
    assert [cut.layer for cut in stages(loaded)] == names
    del loaded, logits
    gc.collect()


@pytest.mark.parametrize(
    "base",
    [
        "resnet50", pytest.param("densenet121", marks=pytest.mark.slow), "mobilenet_v2_0.35", "efficientnet_b0",
        "efficientnet_v2_b0",
    ],
)  # fmt: skip
def test_scaling_inside_is_preprocess_input_outside(base, small, photos):
    model = small(base)
    size = BASES[base].smallest
    images = photos(3, size)
    alpha = BASES[base].alpha
    keras_own = _network(base, size, weights=None, **({} if alpha is None else {"alpha": alpha}))
    keras_own.set_weights(keras.Model(model.input, features(model)).get_weights())
    preprocess_input = sys.modules[_module(base)].preprocess_input

    expected = np.asarray(keras_own(preprocess_input(images.astype("float32"))))
    # Random networks make much of a rounding; they make much more of another scaling.
    np.testing.assert_allclose(_features(model, images), expected, rtol=0, atol=5e-3)
    assert np.abs(np.asarray(keras_own(images[..., ::-1] / 200.0)) - expected).max() > 0.1


def _module(base):
    return getattr(keras.applications, BASES[base].function).__module__


def test_uint8_in_float32_probabilities_out(small, photos):
    model = small("mobilenet_v2_0.35")
    answers = model(photos(4, 32))
    assert model.input.name == "photo"
    assert keras.backend.standardize_dtype(answers.dtype) == "float32"
    answers = np.asarray(answers)
    assert answers.min() >= 0
    np.testing.assert_allclose(answers.sum(axis=1), 1, rtol=1e-6)
    # Different photos, different answers.
    assert np.ptp(answers, axis=0).max() > 1e-4


def test_two_calls_on_one_batch_are_equal(small, photos):
    model = small("efficientnet_b0")
    images = photos(4, 32)
    assert np.array_equal(model(images), model(images))
    assert not [each for each in model.layers if type(each).__name__.startswith("Random")]


def test_logits_are_those_of_the_probabilities(small, photos):
    model = small("mobilenet_v2_0.35")
    images = photos(2, 32)
    found = np.asarray(keras.ops.softmax(logits_model(model)(images)))
    np.testing.assert_allclose(found, np.asarray(model(images)), atol=1e-6)


def test_the_base_stands_flat_in_the_model(member, graph):
    model = graph(member, BASES[member].image_size)
    nested = [each for each in model.layers if isinstance(each, keras.Model)]
    if BASES[member].family == "ConvNeXt":
        # Keras's own: its stem and its downsampling are two layers in a row each.
        assert len(nested) == 4
        assert {len(each.layers) for each in nested} == {2}
    else:
        assert nested == []
    assert [each.name for each in model.layers[-3:]] == ["head_dropout", "head", "probabilities"]


def test_a_new_head_keeps_the_base(small, photos):
    model = small("mobilenet_v2_0.35")
    images = photos(2, 32)
    new = with_new_head(model, classes=7, dropout=0.5, keep_head=False)

    assert new.output.shape == (None, 7)
    assert new.get_layer("head_dropout").rate == 0.5
    assert np.array_equal(_features(new, images), _features(model, images))


def test_a_new_head_keeps_the_old_ones_weights_on_request(small, photos):
    model = small("mobilenet_v2_0.35")
    images = photos(2, 32)
    kept = with_new_head(model, classes=3, dropout=0.5, keep_head=True)
    other = with_new_head(model, classes=3, dropout=0.5, keep_head=False)

    assert np.array_equal(kept(images), model(images))
    assert not np.array_equal(other(images), model(images))


def test_a_loaded_model_takes_a_new_head(small, photos, tmp_path):
    small("mobilenet_v2_0.35").save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True, compile=False)
    new = with_new_head(loaded, classes=4, dropout=0.1, keep_head=False)
    assert np.asarray(new(photos(2, 32))).shape == (2, 4)


@pytest.mark.parametrize(("base", "least"), [("mobilenet_v2", 32), ("xception", 71), ("inception_v3", 75)])
def test_an_image_size_too_small_is_refused(base, least):
    with pytest.raises(RecipeError, match=f"image_size must be at least {least} with {base}; got {least - 1}"):
        classifier(base, classes=2, image_size=least - 1, dropout=0.1, weights=None)


def test_plain_keras_opens_a_saved_model_and_answers_the_same(small, photos, tmp_path):
    bases = ["mobilenet_v2_0.35", "resnet50"]
    images = photos(4, 32)
    np.save(tmp_path / "photos.npy", images)
    for base in bases:
        small(base).save(tmp_path / f"{base}.keras")
        config = zipfile.ZipFile(tmp_path / f"{base}.keras").read("config.json")
        assert b"kerastk" not in config
    script = (
        "import sys, keras, numpy as np\n"
        "images = np.load('photos.npy')\n"
        f"for base in {bases}:\n"
        "    model = keras.saving.load_model(base + '.keras', safe_mode=True)\n"
        "    np.save(base + '.npy', np.asarray(model(images)))\n"
        "assert not any(name.startswith('kerastk') for name in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    for base in bases:
        found = np.load(tmp_path / f"{base}.npy")
        np.testing.assert_allclose(found, np.asarray(small(base)(images)), rtol=0, atol=1e-6)


def _flowers(shared, count):
    """(photos, labels): `count` of each class at 96 pixels."""
    images, labels = [], []
    with zipfile.ZipFile(shared / "data" / "flowers5.zip") as archive:
        names = sorted(name for name in archive.namelist() if name.lower().endswith((".jpg", ".jpeg", ".png")))
        classes = sorted({name.split("/")[-2] for name in names})
        for number, label in enumerate(classes):
            for name in [name for name in names if name.split("/")[-2] == label][:count]:
                with archive.open(name) as file:
                    images.append(np.asarray(Image.open(file).convert("RGB").resize((96, 96))))
                labels.append(number)
    return np.stack(images), np.array(labels)


def test_imagenet_weights_from_a_file_know_flowers(shared):
    path = shared / "weights" / "mobilenet_v2_1.0_224_notop.weights.h5"
    images, labels = _flowers(shared, 36)
    test = np.arange(len(labels)) % 3 == 0

    def accuracy(weights):
        keras.utils.set_random_seed(3)
        model = classifier("mobilenet_v2", classes=5, image_size=96, dropout=0.1, weights=weights)
        found = _features(model, images)
        probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=500))
        return probe.fit(found[~test], labels[~test]).score(found[test], labels[test])

    assert accuracy(path) > 0.65
    assert accuracy(None) < 0.5


def test_weights_of_another_width_load_too(shared, photos):
    path = shared / "weights" / "mobilenet_v2_0.35_224_notop.weights.h5"
    model = classifier("mobilenet_v2_0.35", classes=3, image_size=64, dropout=0.1, weights=str(path))
    keras_own = _network("mobilenet_v2_0.35", 64, weights=None, alpha=0.35)
    keras_own.load_weights(path)
    images = photos(2, 64)
    expected = np.asarray(keras_own(images / 127.5 - 1))
    np.testing.assert_allclose(_features(model, images), expected, atol=1e-4)


def _refused(base, path):
    with pytest.raises(WeightsError) as caught:
        classifier(base, classes=2, image_size=32, dropout=0.1, weights=path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def test_weights_of_another_base_are_refused(shared):
    folder = shared / "weights"
    for base, file in [
        ("mobilenet_v2_0.35", "mobilenet_v2_1.0_224_notop.weights.h5"),
        ("mobilenet_v2", "mobilenet_v2_0.35_224_notop.weights.h5"),
        ("mobilenet_0.25", "mobilenet_v2_0.35_224_notop.weights.h5"),
        ("mobilenet_0.5", "mobilenet_v1_0.25_128_top.weights.h5"),
        ("vgg16", "mobilenet_v2_0.35_224_notop.weights.h5"),
    ]:
        assert f"does not hold the weights of {base} without its head" in _refused(base, folder / file)


def test_weights_of_a_deeper_base_of_the_family_are_refused(tmp_path):
    network = _network("vgg19", 32, weights=None)
    network.save_weights(tmp_path / "vgg19.weights.h5")
    assert "does not hold the weights of vgg16" in _refused("vgg16", tmp_path / "vgg19.weights.h5")


@pytest.mark.parametrize("part", [0.1, 0.5, 0.99])
def test_a_cut_file_is_refused(part, small, tmp_path):
    _network("mobilenet_0.25", 32, weights=None, alpha=0.25).save_weights(tmp_path / "whole.weights.h5")
    content = (tmp_path / "whole.weights.h5").read_bytes()
    path = tmp_path / "cut.weights.h5"
    path.write_bytes(content[: int(part * len(content))])
    _refused("mobilenet_0.25", path)


@pytest.mark.parametrize("name", ["x.weights.h5", "x.h5"])
@pytest.mark.parametrize("content", [b"", b"<html>not found</html>"])
def test_a_file_that_holds_no_weights_is_refused(name, content, tmp_path):
    (tmp_path / name).write_bytes(content)
    assert "does not hold the weights of mobilenet_0.25" in _refused("mobilenet_0.25", tmp_path / name)


def test_a_missing_file_and_a_wrong_ending_are_refused(tmp_path):
    assert "give imagenet, none, a weights file or a run's folder" in _refused("vgg16", tmp_path / "no.h5")
    (tmp_path / "x.pt").write_bytes(b"PK")
    assert "expected .weights.h5 or Keras's own .h5" in _refused("vgg16", tmp_path / "x.pt")


def _rescalings(model):
    return [each for each in model.layers if isinstance(each, keras.layers.Rescaling) and each.name != "scaling"]


def test_keras_own_file_of_the_first_efficientnets_goes_through_keras_cache(monkeypatch, tmp_path, photos, small):
    """Only with weights="imagenet" does Keras add the second Rescaling that its own file was trained with."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "home"))
    # Keras itself has read the variable when it was imported.
    monkeypatch.setattr(config, "_KERAS_DIR", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    plain = _network("efficientnet_b0", 32, weights=None)
    model = small("efficientnet_b0")
    plain.set_weights(keras.Model(model.input, features(model)).get_weights())
    given = tmp_path / "given.h5"
    with h5py.File(given, "w") as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, plain)
    md5 = file_hash(given, "md5")
    row = dataclasses.replace(BASES["efficientnet_b0"], hash=md5)
    monkeypatch.setitem(BASES, "efficientnet_b0", row)
    monkeypatch.setitem(efficientnet.WEIGHTS_HASHES, "b0", ("", md5))

    model = classifier("efficientnet_b0", classes=3, image_size=32, dropout=0.1, weights=given)

    assert (tmp_path / "home" / "models" / row.file).read_bytes() == given.read_bytes()
    assert len(_rescalings(model)) == len(_rescalings(plain)) + 1
    keras_own = _network("efficientnet_b0", 32, weights="imagenet")
    images = photos(2, 32)
    expected = np.asarray(keras_own(images.astype("float32")))
    np.testing.assert_allclose(_features(model, images), expected, rtol=0, atol=5e-3)
    assert np.abs(np.asarray(plain(images.astype("float32"))) - expected).max() > 0.1

    # Found there by the next one that asks for ImageNet's.
    again = classifier("efficientnet_b0", classes=3, image_size=32, dropout=0.1, weights="imagenet")
    assert np.array_equal(_features(again, images), _features(model, images))


def test_another_file_of_the_first_efficientnets_goes_into_the_plain_network(monkeypatch, tmp_path, photos, small):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "home"))
    plain = small("efficientnet_b0")
    keras_own = _network("efficientnet_b0", 32, weights=None)
    keras_own.save_weights(tmp_path / "mine.weights.h5")

    model = classifier("efficientnet_b0", classes=3, image_size=32, dropout=0.1, weights=tmp_path / "mine.weights.h5")

    assert len(_rescalings(model)) == len(_rescalings(plain))
    images = photos(2, 32)
    np.testing.assert_allclose(
        _features(model, images), np.asarray(keras_own(images.astype("float32"))), rtol=1e-4, atol=1e-5
    )
    assert not (tmp_path / "home").exists()
