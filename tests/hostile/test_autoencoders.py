"""Runs of autoencoders from strangers: labels, thresholds and models that do not fit, and what is asked of them."""

import json
import shutil
import zipfile

import keras
import numpy as np
import pytest
from hypothesis import strategies as st
from keras.src.saving.saving_lib import save_model

import kerastk
from kerastk import reconstructor
from kerastk.datasets.item_inputs import RowReader
from kerastk.errors import RunError, WeightsError
from kerastk.evaluation.evaluate import evaluate
from kerastk.networks.autoencoder import Standard, autoencoder
from kerastk.recipe import Autoencode, construct, dump, load
from kerastk.run import Run
from kerastk.tasks import autoencoder_model
from kerastk.tasks.autoencoder_model import labels_of
from tests.hostile.test_fuzz import COUNTS, VALUES, as_json, changed, fuzz, spoiled

IMAGES = {
    "format": 1, "classes": ["cat", "dog"], "task": "autoencode", "items": "images", "shape": [16, 16, 3], "latent": 3,
    "variational": False, "score": "error", "image_size": 16, "resize": "crop", "colour": "RGB", "dtype": "uint8",
}  # fmt: skip
ROWS = {
    "format": 1, "classes": [""], "task": "autoencode", "items": "rows", "shape": [3], "latent": 2, "variational": True,
    "score": "error", "columns": ["a", "b", "c"], "mean": [1.0, -2.0, 0.0], "deviation": [1.0, 0.5, 30.0],
}  # fmt: skip
METRICS = {
    "validation": {"error": 2.5},
    "anomaly": {"score": "error", "threshold": 7.5, "false_alarms": 0.01, "calibrated_on": 100},
}
BOTH = pytest.mark.parametrize("labels", [IMAGES, ROWS], ids=["images", "rows"])


def network(labels, **options):
    """An untrained network as labels.json describes it."""
    standard = None
    if labels["items"] == "rows":
        standard = Standard(*(np.array(labels[name]) for name in ("mean", "deviation")))
    given = {"latent": labels["latent"], "variational": labels["variational"], "standard": standard, **options}
    shape = given.pop("shape", labels["shape"])
    return autoencoder(shape, kind="dense", widths=(4,), activation="relu", **given)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """The saved networks of IMAGES and ROWS, by what their items are."""
    folder = tmp_path_factory.mktemp("models")
    for labels in (IMAGES, ROWS):
        network(labels).save(folder / f"{labels['items']}.keras")
    return folder


@pytest.fixture
def make(models, tmp_path):
    """A run folder that `labels` describes, with its model."""

    def run(labels, metrics=METRICS, model=True):
        made = Run.create(tmp_path, f"run{len(list(tmp_path.iterdir()))}")
        made.write_environment({"versions": {}})
        made.write_recipe(Autoencode(data="x.csv", label_column="kind" if labels["items"] == "rows" else None))
        made.write_data(json.dumps({"files": []}))
        made.labels_json.write_text(json.dumps(labels))
        made.metrics_json.write_text(json.dumps(metrics))
        if model:
            shutil.copy(models / f"{labels['items']}.keras", made.model_keras)
        return made

    return run


@BOTH
def test_the_run_is_a_good_one(labels, make):
    found = kerastk.load(make(labels).path)
    assert (found.shape, found.threshold, found.false_alarms) == (tuple(labels["shape"]), 7.5, 0.01)
    given = np.zeros((2, *labels["shape"]), np.uint8 if labels is IMAGES else np.float32)
    assert found.score(given).shape == (2,)
    # Arrays of any size, with no rule how photos become such.
    plain = {name: value for name, value in IMAGES.items() if name not in ("image_size", "resize")}
    assert labels_of(make(plain | {"shape": [5, 7, 1]}, model=False))["shape"] == [5, 7, 1]
    assert labels_of(make(ROWS | {"columns": None}, model=False))["columns"] is None


# labels.json.

COMMON = [
    {"task": ["autoencode"]}, {"items": "rocks"}, {"items": ["rows"]}, {"items": None}, {"latent": 0}, {"latent": -1},
    {"latent": 2.0}, {"latent": True}, {"latent": 10**9}, {"latent": "3"}, {"latent": None}, {"latent": [3]},
    {"variational": 1}, {"variational": None}, {"variational": "yes"}, {"score": "distance"}, {"score": None},
    {"classes": None}, {"classes": "cat"}, {"classes": [1]}, {"classes": {"cat": 1}}, {"shape": None}, {"shape": []},
    {"shape": 16}, {"shape": "16"}, {"shape": {"16": 16}}, {"shape": [True]}, {"shape": [0]}, {"shape": [-3]},
    {"shape": [2**40]}, {"shape": [3.0]}, {"shape": ["3"]}, {"shape": [[3]]}, {"shape": [3, 3]}, {"shape": [10**400]},
]  # fmt: skip
OF_IMAGES = [
    {"shape": [16, 16]}, {"shape": [16, 16, 2]}, {"shape": [16, 16, 3, 1]}, {"shape": [32, 32, 3]},
    {"shape": [16, 8, 3]}, {"shape": [16, 16, 1]}, {"shape": [2**20, 2**20, 3]},
    {"shape": [2**13, 2**13, 3], "image_size": None, "resize": None},
    {"image_size": 7, "shape": [7, 7, 3]}, {"image_size": 513, "shape": [513, 513, 3]}, {"image_size": 16.0},
    {"image_size": True}, {"image_size": "16"}, {"image_size": None}, {"image_size": [16]}, {"resize": "squash"},
    {"resize": None}, {"resize": ["crop"]}, {"resize": {}}, {"items": "rows"},
]  # fmt: skip
OF_ROWS = [
    {"columns": ["a", "b"]}, {"columns": "abc"}, {"columns": [1, 2, 3]}, {"columns": {"a": 1}},
    {"columns": ["a", "b", "c" * 10**6]}, {"mean": None}, {"mean": 1.0}, {"mean": [1.0, 2.0]}, {"mean": ["1", 2, 3]},
    {"mean": [1, 2, float("nan")]}, {"mean": [1, 2, float("inf")]}, {"mean": [1, 2, True]}, {"mean": [1, 2, 1e39]},
    {"mean": [1, 2, 10**400]}, {"deviation": [1, 1, 0]}, {"deviation": [1, 1, -1]}, {"deviation": [1, 1]},
    {"deviation": [1, 1, float("nan")]}, {"deviation": None}, {"deviation": [[1], [1], [1]]}, {"items": "images"},
]  # fmt: skip


@pytest.mark.parametrize(
    ("labels", "change"),
    [(IMAGES, change) for change in COMMON + OF_IMAGES] + [(ROWS, change) for change in COMMON + OF_ROWS],
    ids=lambda value: f"{value}"[:40],
)
def test_labels_of_wrong_types_and_sizes_are_one_line(labels, change, make, refused):
    run = make(labels, model=False)
    run.labels_json.write_text(json.dumps(labels | change))
    assert refused(labels_of, run, kind=RunError) == f"{run.labels_json} does not describe an autoencoder."


@BOTH
def test_labels_that_lack_something_are_one_line(labels, make, refused):
    run = make(labels, model=False)
    needed = set(labels) - {"format", "colour", "dtype", "columns"}
    for name in needed:
        run.labels_json.write_text(json.dumps({key: value for key, value in labels.items() if key != name}))
        refused(labels_of, run, kind=RunError)


@COUNTS
@BOTH
def test_labels_and_figures_that_are_made_up(labels, examples, make, monkeypatch):
    monkeypatch.setattr(autoencoder_model, "load_model", lambda run, last: None)
    run = make(labels, model=False)

    def read(pair):
        run.labels_json.write_bytes(pair[0])
        run.metrics_json.write_bytes(pair[1])
        found = reconstructor.Reconstructor(run)
        assert 0 < found.batch_size <= 128
        assert 0 <= found.threshold < np.inf

    trees = [as_json(changed(each)) | spoiled([json.dumps(each).encode()]) for each in (labels, METRICS)]
    wholes = [st.just(json.dumps(each).encode()) for each in (labels, METRICS)]
    fuzz(examples, st.tuples(trees[0] | as_json(VALUES), wholes[1]) | st.tuples(wholes[0], trees[1]), read)


# metrics.json, data.json and recipe.toml.


@pytest.mark.parametrize(
    "metrics",
    [
        {}, {"anomaly": None}, {"anomaly": 7}, {"anomaly": []}, {"anomaly": {}}, {"anomaly": {"threshold": 1.0}},
        *({"anomaly": METRICS["anomaly"] | change}
          for change in ({"threshold": None}, {"threshold": "7"}, {"threshold": -1.0}, {"threshold": True},
                         {"threshold": float("nan")}, {"threshold": float("inf")}, {"threshold": [7.5]},
                         {"false_alarms": 2}, {"false_alarms": float("nan")}, {"false_alarms": "0.01"})),
    ],
    ids=str,
)  # fmt: skip
def test_a_threshold_that_is_none_is_one_line(metrics, make, refused):
    run = make(ROWS, metrics)
    assert refused(kerastk.load, run.path, kind=RunError) == f"{run.metrics_json} is damaged."


def test_a_run_that_did_not_come_to_its_end_is_one_line(make, refused):
    run = make(ROWS)
    run.metrics_json.unlink()
    assert "the run did not come so far" in refused(kerastk.load, run.path, kind=RunError)


def test_a_recipe_of_another_task_does_not_belong_to_the_run(make, refused):
    for labels in (ROWS, IMAGES):
        run = make(labels)
        run.write_recipe(kerastk.Finetune())
        data = np.zeros((4, *labels["shape"]), np.uint8 if labels is IMAGES else np.float32)
        assert "do not belong together" in refused(lambda run=run, data=data: evaluate(kerastk.load(run), data))


@pytest.mark.parametrize("data", [{}, {"files": 7}, {"files": [7]}, {"files": [{"sha256": ["x"], "split": "train"}]}])
def test_a_record_of_items_that_is_none_is_one_line(data, make, refused):
    run = make(ROWS)
    run.write_data(json.dumps(data))
    message = refused(lambda: evaluate(kerastk.load(run), np.eye(3, dtype=np.float32)), kind=RunError)
    assert message == f"{run.data_json} is damaged."


# Models.


def with_outputs(make):
    """The network of ROWS with other outputs: those that `make` makes of its input and outputs."""
    good = network(ROWS)
    return keras.Model(good.input, make(good.input, good.output))


def leak(item, outputs):
    """A reconstruction that hangs on more than the code."""
    return {**outputs, "reconstruction": keras.layers.Add()([outputs["reconstruction"], item])}


def two_inputs():
    good, second = network(ROWS), keras.Input((3,), name="second")
    made = keras.layers.Add()([good.output["reconstruction"], second])
    return keras.Model([good.input, second], {**good.output, "reconstruction": made})


def built(layer):
    layer.build((None, 3))
    return layer


WRONG = {
    "latent": lambda: network(ROWS, latent=3),
    "not variational": lambda: network(ROWS, variational=False),
    "shape": lambda: network(ROWS, shape=(4,), standard=Standard(np.zeros(4), np.ones(4))),
    "images": lambda: network(IMAGES, variational=True, latent=2),
    "mean": lambda: network(ROWS, standard=Standard(np.array([1.0, -2, 1]), np.array(ROWS["deviation"]))),
    "deviation": lambda: network(ROWS, standard=Standard(np.array(ROWS["mean"]), np.array([1, 0.5, 31]))),
    "more": lambda: with_outputs(lambda item, outputs: {**outputs, "more": keras.layers.Activation("relu")(item)}),
    "less": lambda: with_outputs(lambda item, outputs: {"code": outputs["code"]}),
    "leak": lambda: with_outputs(leak),
    "no dictionary": lambda: with_outputs(lambda item, outputs: outputs["reconstruction"]),
    "two inputs": two_inputs,
    "a layer": lambda: built(keras.layers.Dense(3)),
    "sequential": lambda: keras.Sequential([keras.Input((3,)), keras.layers.Dense(2), keras.layers.Dense(3)]),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_model_of_another_kind_does_not_belong_to_the_run(name, make, refused):
    run = make(ROWS, model=False)
    save_model(WRONG[name](), run.model_keras)
    message = refused(kerastk.load, run.path, kind=RunError, megabytes=200, seconds=120)
    assert message == f"{run.model_keras} and {run.labels_json} do not belong together."


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_a_model_of_images_takes_bytes(dtype, make):
    run = make(IMAGES, model=False)
    item = keras.Input((16, 16, 3), dtype=dtype)
    code = keras.layers.Dense(3)(keras.layers.Flatten()(item))
    made = keras.layers.Reshape((16, 16, 3))(keras.layers.Dense(768)(code))
    keras.Model(item, {"code": code, "reconstruction": made}).save(run.model_keras)
    if dtype == "uint8":
        assert kerastk.load(run.path).encode(np.zeros((16, 16, 3), np.uint8)).shape == (3,)
    else:
        with pytest.raises(RunError, match="do not belong together"):
            kerastk.load(run.path)


def test_a_class_that_no_autoencoder_has_is_refused(make, refused):
    run = make(ROWS)
    with zipfile.ZipFile(run.model_keras) as archive:
        found = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(found["config.json"])
    for node in (
        {"module": "keras.layers", "class_name": "Lambda", "config": {"function": "len"}},
        {"module": "os", "class_name": "ICNR", "config": {}, "registered_name": "kerastk>ICNR"},
        {"module": "kerastk.networks.autoencoder", "class_name": "encoder", "config": {}, "registered_name": None},
    ):
        changed_config = json.loads(json.dumps(config))
        next(
            each for each in changed_config["config"]["layers"] if each["class_name"] == "Dense"
        )["config"]["kernel_initializer"] = node  # fmt: skip
        with zipfile.ZipFile(run.model_keras, "w") as archive:
            for name, data in found.items():
                archive.writestr(name, json.dumps(changed_config) if name == "config.json" else data)
        assert "which no network of kerastk has" in refused(kerastk.load, run.path, kind=WeightsError)


def test_a_missing_or_broken_model_is_one_line(make, refused):
    run = make(IMAGES, model=False)
    assert "No such file" in refused(kerastk.load, run.path, kind=WeightsError)
    run.model_keras.write_bytes(b"PK\x03\x04")
    assert "cannot load" in refused(kerastk.load, run.path, kind=WeightsError)


# Recipes.

FIELDS = st.sampled_from([*Autoencode.__dataclass_fields__, "task", "Latent", "x"])


@COUNTS
def test_recipes_of_made_up_tables(examples, tmp_path):
    def read(table):
        recipe = construct(Autoencode, table)
        (tmp_path / "x.toml").write_text(dump(recipe), encoding="utf-8", errors="surrogateescape")
        assert load(tmp_path / "x.toml") == recipe

    fuzz(examples, st.dictionaries(FIELDS, VALUES, max_size=4), read)


# What is asked of it.


def test_commands_refuse_in_one_line(make, command, tmp_path):
    run = make(ROWS)
    (tmp_path / "x.csv").write_text("a,b,z\n1,2,3\n2,3,4\n")
    (tmp_path / "long.csv").write_bytes(b"1," * 2**21)
    (tmp_path / "x.npy").write_bytes(b"\x93NUMPY" + b"\xff" * 100)
    (tmp_path / "x.npz").write_bytes(b"PK\x03\x04")
    out = tmp_path / "out.npz"
    for data in ("x.csv", "long.csv", "x.npy", "x.npz", "none.csv", "x" * 5000 + ".csv"):
        for words in (["predict", run.path, tmp_path / data], ["evaluate", run.path, tmp_path / data],
                      ["embed", run.path, tmp_path / data, "--out", out], ["check", tmp_path / data]):  # fmt: skip
            if words[0] != "check" or data != "x.csv":
                command(*words)
    run.labels_json.write_text(json.dumps(ROWS | {"latent": "x"}))
    assert "does not describe an autoencoder" in command("predict", run.path, tmp_path / "x.csv")


@COUNTS
def test_tables_of_made_up_columns(examples, tmp_path):
    reader = RowReader(3, columns=["a", "b", "c"], label_column="kind")
    good = [b"a,b,c\n1,2,3\n4,5,6\n", b"kind,c,b,a\nx,1,2,3\ny,4,5,6\n", b"1,2,3\n4,5,6\n"]

    def read(data):
        (tmp_path / "x.csv").write_bytes(data)
        for _, items in reader.stream([tmp_path / "x.csv"], size=2):
            assert all(item.shape == (3,) and np.isfinite(item).all() for item in items)

    fuzz(examples, spoiled(good), read)
