import os
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("KERASTK_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="session")
def shared():
    folder = Path(os.environ.get("KERASTK_SHARED") or Path(__file__).parents[2] / "shared")
    if not folder.is_dir():
        pytest.skip(f"no {folder}; set KERASTK_SHARED to the folder with the data sets and weights")
    return folder


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    """A folder of 4 classes with 40 real handwritten digits each, as PNG files of 8 x 8 pixels."""
    from sklearn.datasets import load_digits

    from kerastk.datasets.images import to_png

    folder = tmp_path_factory.mktemp("data") / "digits"
    loaded = load_digits()
    for digit in range(4):
        (folder / str(digit)).mkdir(parents=True)
        for number, pixels in enumerate(loaded.images[loaded.target == digit][:40]):
            (folder / str(digit) / f"{number}.png").write_bytes(to_png((pixels * 15.9).astype("uint8")))
    return folder


SMALL = {"base": "mobilenet_0.25", "weights": "none", "image_size": 32, "augment": "none", "threads": 2}


@pytest.fixture(scope="session")
def small_run(digits, tmp_path_factory):
    """A finished run on `digits` from random weights."""
    import kerastk

    folder = tmp_path_factory.mktemp("runs")
    recipe = kerastk.Finetune(data=str(digits), epochs=8, learning_rate=3e-3, runs=str(folder), **SMALL)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERASTK_CACHE", str(folder / "cache"))
        return kerastk.train(recipe, show=False)


@pytest.fixture(scope="session")
def pretrained_run(digits, small_run, tmp_path_factory):
    """A finished run of two trained phases that starts from the network of `small_run`."""
    import kerastk

    folder = tmp_path_factory.mktemp("runs")
    recipe = kerastk.Finetune(
        data=str(digits), weights=str(small_run.path), unfreeze=1, probe="train", head_epochs=1, epochs=2,
        runs=str(folder), threads=2,
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERASTK_CACHE", str(folder / "cache"))
        return kerastk.train(recipe, show=False)


@pytest.fixture(scope="session")
def names_run(tmp_path_factory):
    """A finished run of a small tagger on the sentences of data/names.conll."""
    import kerastk

    folder = tmp_path_factory.mktemp("runs")
    recipe = kerastk.Tag(
        data=str(Path(__file__).parents[1] / "data" / "names.conll"), width=16, characters="none", epochs=12,
        learning_rate=0.02, runs=str(folder),
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERASTK_CACHE", str(folder / "cache"))
        return kerastk.train(recipe, show=False)


def woken(model, photos):
    """The model with the batch statistics of `photos`: in a random network signals else die out or explode."""
    import keras

    layers = [each for each in model.layers if isinstance(each, keras.layers.BatchNormalization)]
    momenta = [each.momentum for each in layers]
    for each in layers:
        each.momentum = 0.0
    model(photos, training=True)
    for each, momentum in zip(layers, momenta, strict=True):
        each.momentum = momentum
    return model
