import importlib.util
import shutil
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from kerastk import shipped
from kerastk.datasets.photos import open_photos
from kerastk.errors import WeightsError
from kerastk.networks.bases import BASES
from kerastk.networks.classifier import classifier, features_model
from kerastk.networks.weights import file_hash, imagenet, local, verify
from kerastk.training.probe import logistic

ROW = BASES["mini"]


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "nothing"))
    monkeypatch.delenv("KERASTK_WEIGHTS", raising=False)


def _features(weights):
    keras.utils.set_random_seed(3)
    return features_model(classifier("mini", classes=2, image_size=ROW.image_size, dropout=0.0, weights=weights))


def test_its_weights_are_here_small_and_whole():
    path = imagenet(ROW)
    assert path.stat().st_size <= 3_000_000
    assert verify(ROW, path) == "kerastk"
    kinds = set()
    with h5py.File(path) as file:
        file.visititems(lambda _, each: kinds.add(each.dtype) if isinstance(each, h5py.Dataset) else None)
    assert kinds == {np.dtype("float16")}
    assert file_hash(path) in (path.parent / "README.md").read_text()


def test_every_weight_is_the_files_own(photos):
    ours, random = _features("imagenet"), _features(None)
    assert {each.dtype for each in ours.weights} == {"float32"}
    for one, other in zip(ours.weights, random.weights, strict=True):
        values = np.asarray(one)
        assert np.array_equal(values, values.astype(np.float16))
        assert not np.array_equal(values, np.asarray(other))
    found = np.asarray(ours(photos(4, ROW.image_size)))
    assert np.isfinite(found).all()
    assert np.ptp(found, axis=0).max() > 0.1


def test_a_damaged_file_is_refused(tmp_path, monkeypatch):
    shutil.copytree(shipped.folder("models") / "mini", tmp_path / "mini")
    monkeypatch.setattr(shipped, "folder", lambda name: tmp_path)
    path = local(ROW)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(WeightsError, match=r"is damaged.*Install kerastk again"):
        _features("imagenet")
    path.unlink()
    with pytest.raises(WeightsError, match=r"cannot read .*mini\.weights\.h5"):
        _features("imagenet")


def test_it_knows_more_of_photos_than_random_weights(shared, tmp_path):
    with zipfile.ZipFile(shared / "data" / "caltech24.zip") as archive:
        names = [name for name in archive.namelist() if not name.endswith("/")]
        every_third = sorted({name.split("/")[-2] for name in names})[::3]
        archive.extractall(tmp_path, [name for name in names if name.split("/")[-2] in every_third])
    data = open_photos(
        str(tmp_path), split="40/30/30", fractions=(0.4, 0.3, 0.3), split_seed=0, strict=False,
        max_bad=0.01, image_size=ROW.image_size, resize="crop", augment="none", batch_size=64, threads=2, seed=0,
    )  # fmt: skip

    def score(weights):
        network, seen = _features(weights), []
        for split in (data.train.plain(ROW.image_size), data.val, data.test):
            pairs = [(np.asarray(network(images)), labels.argmax(axis=1)) for images, labels in split]
            seen.append(tuple(np.concatenate(each) for each in zip(*pairs, strict=True)))
        head = logistic(*seen[0], *seen[1])
        return (head.probabilities(seen[2][0]).argmax(axis=1) == seen[2][1]).mean()

    assert score("imagenet") > score(None) + 0.2


def test_the_file_is_made_of_a_run(tmp_path, photos):
    place = Path(__file__).parents[2] / "models" / "store.py"
    spec = importlib.util.spec_from_file_location("store", place)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    keras.utils.set_random_seed(5)
    trained = classifier("mini", classes=7, image_size=ROW.image_size, dropout=0.1, weights=None)
    trained.save(tmp_path / "model.keras")

    before = keras.config.dtype_policy()
    module.store(tmp_path, tmp_path / "made" / ROW.file)
    assert keras.config.dtype_policy() == before

    made = classifier("mini", classes=2, image_size=ROW.image_size, dropout=0.0, weights=tmp_path / "made" / ROW.file)
    images = photos(4, ROW.image_size)
    expected = np.asarray(features_model(trained)(images))
    np.testing.assert_allclose(np.asarray(features_model(made)(images)), expected, rtol=0.02, atol=0.02)
