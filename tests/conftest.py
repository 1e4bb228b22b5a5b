import os
from pathlib import Path

import pytest

# Longest first. A worker of `make test` takes a file whole, so short ones at the end keep both at work.
FOLDERS = ("faults", "training", "tests", "tasks", "evaluation", "networks", "hostile", "datasets")


def pytest_collection_modifyitems(items):
    order = {name: number for number, name in enumerate(FOLDERS)}
    items.sort(key=lambda item: order.get(item.path.parent.name, 0))


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


def shallow(patch):
    """Put a shallow network in the place of MobileNet at a quarter of its width: as many stages and features.

    Most of what the test of a run takes is the making of its graph, and this one has a fifth of the layers.
    """
    from keras import Model, applications, layers, utils

    real = applications.MobileNet

    def made(**arguments):
        if arguments.get("alpha") != 0.25:
            return real(**arguments)
        values = arguments["input_tensor"]
        for number, (filters, size) in enumerate([(16, 3), (32, 3), (64, 3), (128, 3), (256, 1)], start=1):
            convolution = layers.Conv2D(filters, size, strides=2, padding="same", use_bias=False, name=f"conv_{number}")
            values = layers.BatchNormalization(name=f"norm_{number}")(convolution(values))
            values = layers.ReLU(name=f"relu_{number}")(values)
        pooled = layers.GlobalAveragePooling2D(name="pool")(values)
        return Model(utils.get_source_inputs(arguments["input_tensor"]), pooled, name="mobilenet")

    patch.setattr("keras.applications.MobileNet", made)


@pytest.fixture(autouse=True)
def base(request, monkeypatch):
    """Outside the tests of networks `mobilenet_0.25` is a shallow one."""
    if request.path.parent.name != "networks":
        shallow(monkeypatch)


SMALL = {"base": "mobilenet_0.25", "weights": "none", "image_size": 32, "augment": "none", "threads": 2}


@pytest.fixture(scope="session")
def small_run(digits, tmp_path_factory):
    """A finished run on `digits` from random weights."""
    import kerastk

    folder = tmp_path_factory.mktemp("runs")
    recipe = kerastk.Finetune(data=str(digits), epochs=8, learning_rate=3e-3, runs=str(folder), **SMALL)
    with pytest.MonkeyPatch.context() as patch:
        shallow(patch)
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
def names():
    """The path of the small tagged corpus that ships."""
    from kerastk import shipped

    return shipped.data("kerastk:names")


# A tagger that is trained in seconds.
SMALL_TAGGER = {"width": 24, "word_size": 24, "batch_size": 400, "learning_rate": 0.01, "deterministic": True}


@pytest.fixture(scope="session")
def tagger_run(names, tmp_path_factory):
    """A finished run of a tagger of names."""
    import kerastk

    folder = tmp_path_factory.mktemp("runs")
    return kerastk.train(kerastk.Tag(data=names, epochs=8, runs=str(folder), **SMALL_TAGGER), show=False)


# Autoencoders that are trained in seconds.
SMALL_CODE = {"latent": 3, "kind": "dense", "widths": "16", "batch_size": 32, "false_alarms": 0.1}


@pytest.fixture(scope="session")
def image_code_run(digits, tmp_path_factory):
    """A finished run of a variational autoencoder of photos, two of whose four classes are normal."""
    import kerastk

    recipe = kerastk.Autoencode(
        data=str(digits), image_size=12, resize="stretch", variational=True, normal="0,1", keep_last=True, epochs=3,
        learning_rate=0.02, threads=2, runs=str(tmp_path_factory.mktemp("runs")), **SMALL_CODE,
    )  # fmt: skip
    return kerastk.train(recipe, show=False)


@pytest.fixture(scope="session")
def wines(tmp_path_factory):
    """A CSV file of 178 wines, 13 numbers with names and a column `cultivar` of each."""
    from sklearn.datasets import load_wine

    loaded, path = load_wine(), tmp_path_factory.mktemp("data") / "wines.csv"
    rows = zip(loaded.data.tolist(), loaded.target, strict=True)
    lines = [",".join([*map(str, row), f"cultivar {target}"]) for row, target in rows]
    path.write_text("\n".join([",".join([*loaded.feature_names, "cultivar"]), *lines]) + "\n")
    return path


@pytest.fixture(scope="session")
def row_code_run(wines, tmp_path_factory):
    """A finished run of an autoencoder of the rows of `wines`."""
    import kerastk

    recipe = kerastk.Autoencode(
        data=str(wines), label_column="cultivar", epochs=5, runs=str(tmp_path_factory.mktemp("runs")), **SMALL_CODE
    )
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
