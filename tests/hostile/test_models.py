"""Model files that were made to do harm: none is loaded, and none runs."""

import json
import os
import pathlib
import pickle
import shutil
import zipfile

import h5py
import keras
import pytest
from keras.src.backend.common import global_state

import kerastk
from kerastk.errors import KerastkError, RunError, WeightsError
from kerastk.networks import saved
from kerastk.networks.classifier import classifier


class Evil:
    """Makes a file where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return pathlib.Path.touch, (self.path,)


@pytest.fixture
def sign(tmp_path, monkeypatch):
    """A file that hostile code makes."""
    monkeypatch.setenv("KERASTK_EVIL", str(tmp_path / "evil"))
    return tmp_path / "evil"


@pytest.fixture
def run(small_run, tmp_path):
    """A copy of a good run."""
    return shutil.copytree(small_run.path, tmp_path / "run")


@pytest.fixture
def rewrite(run):
    """Writes model.keras anew: its configuration changed in place by a function, its members by another."""

    def make(change=lambda config: None, members=lambda found: found, method=zipfile.ZIP_STORED):
        with zipfile.ZipFile(run / "model.keras") as archive:
            found = [(name, archive.read(name)) for name in archive.namelist()]
        config = json.loads(dict(found)["config.json"])
        change(config)
        found = [(name, json.dumps(config).encode() if name == "config.json" else data) for name, data in found]
        with zipfile.ZipFile(run / "model.keras", "w", method) as archive:
            for name, data in members(found):
                archive.writestr(name, data)
        return run

    return make


def build(weights, **options):
    recipe = kerastk.Finetune(weights=str(weights), **options)
    return kerastk.build(recipe, data=[("1.jpg", "cat"), ("2.jpg", "dog")])


def refusal(run, kind=WeightsError):
    """The line with which the model is refused, the same by either door."""
    lines = []
    for load in (kerastk.load, build):
        with pytest.raises(kind) as caught:
            load(run)
        lines.append(str(caught.value))
    assert len(set(lines)) == 1
    assert "\n" not in lines[0]
    assert len(lines[0]) < 1000
    return lines[0]


def test_a_model_written_anew_is_still_loaded(rewrite, digits):
    assert kerastk.load(rewrite())(digits / "1" / "0.png").label in "0123"


def with_pickle(path, sign):
    path.write_bytes(pickle.dumps(Evil(sign), protocol=2))


def with_hdf5(path, sign):
    keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]).save(path.with_suffix(".h5"))
    path.with_suffix(".h5").rename(path)


def with_pickle_in_zip(path, sign):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Evil(sign)))


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (with_pickle, "it is a pickle, which would run code"),
        (with_hdf5, "it is an HDF5 file"),
        (with_pickle_in_zip, "this holds 'archive/data.pkl'"),
        (lambda path, sign: path.write_bytes(b""), "not the zip file that Keras 3 writes"),
        (lambda path, sign: path.write_bytes(b"no model"), "not the zip file that Keras 3 writes"),
        (lambda path, sign: path.write_bytes(path.read_bytes()[:-100]), "not the zip file that Keras 3 writes"),
        (lambda path, sign: path.unlink(), "No such file"),
    ],
)
def test_other_files_in_its_place_are_refused_with_the_reason(write, reason, run, sign):
    write(run / "model.keras", sign)
    message = refusal(run)
    assert message.startswith(f"cannot load {run / 'model.keras'}: ")
    assert reason in message
    assert not sign.exists()


def test_a_link_a_folder_and_a_pipe_in_its_place_are_refused(run, tmp_path):
    path = run / "model.keras"
    path.rename(tmp_path / "elsewhere.keras")
    path.symlink_to(tmp_path / "elsewhere.keras")
    assert "link" in refusal(run, RunError)
    path.unlink()
    path.mkdir()
    assert "no file" in refusal(run, RunError)
    path.rmdir()
    os.mkfifo(path)
    assert "no file" in refusal(run, RunError)


# Code.


def evil_model(path):
    """Saves a model with a Lambda layer that makes a file whenever it is called, and when it is loaded."""
    inputs = keras.Input((32, 32, 3), dtype="uint8")
    # Loaded, it knows no other names than those of Keras's module.
    outputs = keras.layers.Lambda(lambda x: (open(__import__("os").environ["KERASTK_EVIL"], "w"), x)[1])(inputs)
    keras.Model(inputs, outputs).save(path)
    pathlib.Path(os.environ["KERASTK_EVIL"]).unlink()


def test_a_lambda_is_refused_and_does_not_run(run, sign):
    evil_model(run / "model.keras")
    # It is able to.
    keras.saving.load_model(run / "model.keras", safe_mode=False)
    assert sign.exists()
    sign.unlink()
    assert "Lambda" in refusal(run) or "__lambda__" in refusal(run)
    assert not sign.exists()


def test_nothing_turns_safe_mode_off(run, sign, monkeypatch):
    evil_model(run / "model.keras")
    # The list of classes put aside, Keras refuses it as well, whatever it has been told.
    monkeypatch.setattr(saved, "CLASSES", saved.CLASSES | {"Lambda", "__lambda__"})
    before = global_state.get_global_attribute("safe_mode_saving")
    keras.config.enable_unsafe_deserialization()
    try:
        message = refusal(run)
        assert global_state.get_global_attribute("safe_mode_saving") is False
    finally:
        global_state.set_global_attribute("safe_mode_saving", before)
    assert "lambda" in message
    assert not sign.exists()


@keras.saving.register_keras_serializable("hostile")
class Registered(keras.layers.Layer):
    """A layer of the user's own; a stranger's model must not choose to make one."""

    @classmethod
    def from_config(cls, config):
        pathlib.Path(os.environ["KERASTK_EVIL"]).touch()
        return cls()


NODES = {
    "keras.layers.Lambda": {"module": "keras.layers", "class_name": "Lambda", "config": {"function": "len"}},
    "keras.layers.TFSMLayer": {"module": "keras.layers", "class_name": "TFSMLayer", "config": {"filepath": "/"}},
    "Lambda": {"class_name": "Lambda", "config": {"function": ["code", None, None]}},
    "os.system": {"module": "os", "class_name": "system", "config": {"command": "true"}},
    "os.getcwd": {"module": "os", "class_name": "function", "config": "getcwd", "registered_name": "getcwd"},
    "builtins.eval": {"module": "builtins", "class_name": "function", "config": "1", "registered_name": "eval"},
    "keras_hub.models.Dense": {"module": "keras_hub.models", "class_name": "Dense", "config": {}},
    "hostile>Registered": {
        "module": "keras.layers", "class_name": "Dense", "config": {}, "registered_name": "hostile>Registered",
    },
    "keras.utils.get_file": {"module": "keras.utils", "class_name": "get_file", "config": {"origin": "http://x"}},
    "keras.layers.StringLookup": {
        "module": "keras.layers", "class_name": "StringLookup", "config": {"vocabulary": "/etc/passwd"},
    },
    "__typespec__": {"class_name": "__typespec__", "spec_name": "x", "module": "os", "config": []},
    "['Dense']": {"module": "keras.layers", "class_name": ["Dense"], "config": {}},
}  # fmt: skip


@pytest.mark.parametrize("name", NODES)
@pytest.mark.parametrize("place", ["layer", "initializer", "deep"])
def test_a_class_that_no_network_has_is_refused_wherever_it_stands(name, place, rewrite, sign):
    def change(config):
        layers = config["config"]["layers"]
        if place == "layer":
            layers.append({**NODES[name], "name": "evil", "inbound_nodes": []})
        elif place == "initializer":
            next(each for each in layers if each["class_name"] == "Dense")["config"]["kernel_initializer"] = NODES[name]
        else:
            layers[0]["build_config"] = [{"more": [NODES[name]]}]

    message = refusal(rewrite(change))
    assert name.rpartition(".")[2] in message
    assert "which no network of kerastk has" in message
    assert not sign.exists()


# Sizes.


def test_a_model_that_is_compressed_is_refused(rewrite):
    assert "are not compressed" in refusal(rewrite(method=zipfile.ZIP_DEFLATED), RunError)


def test_a_member_that_is_compressed_is_refused_whatever_size_it_claims(rewrite):
    # Random bytes only grow; and the size that a member claims need not be true.
    def noise(found):
        return [("metadata.json", os.urandom(5000)), *found[1:]]

    run = rewrite(members=noise)
    assert kerastk.load(run)
    with zipfile.ZipFile(run / "model.keras") as archive:
        found = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(run / "model.keras", "w") as archive:
        for name, data in found.items():
            archive.writestr(name, data, zipfile.ZIP_DEFLATED if name == "metadata.json" else zipfile.ZIP_STORED)
    assert "are not compressed" in refusal(run, RunError)


def test_a_model_that_swells_is_refused(rewrite, refused):
    def swell(found):
        return [*found[:-1], ("model.weights.h5", bytes(64 * 2**20))]

    run = rewrite(members=swell, method=zipfile.ZIP_DEFLATED)
    assert "unpacks to more than it is" in refused(saved.load, run / "model.keras", kind=RunError, megabytes=8)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("members", "reason"),
    [
        (lambda found: [*found, ("assets/../../evil", b"x")], "'assets/../../evil'"),
        (lambda found: [*found, found[0]], "not each of them once"),
        (lambda found: found[:-1], "not each of them once"),
        (lambda found: [], "not each of them once"),
    ],
)
def test_members_that_a_model_does_not_have_are_refused(members, reason, rewrite):
    assert reason in refusal(rewrite(members=members))


def test_a_huge_configuration_is_refused_unread(rewrite, monkeypatch):
    monkeypatch.setattr(saved, "MAX_CONFIG", 1000)
    assert "its config.json is larger than" in refusal(rewrite())


@pytest.mark.parametrize("config", ["[" * 100_000, "null", "[]", '"x"', "{}", "\xff", '{"class_name": "Functional"}'])
def test_a_configuration_of_no_model_is_one_line(config, rewrite):
    def spoil(found):
        return [(name, config.encode("latin-1") if name == "config.json" else data) for name, data in found]

    assert "cannot load" in refusal(rewrite(members=spoil))


def test_a_model_of_another_shape_does_not_belong_to_the_run(run, small_run):
    for size, classes in ((32, 5), (64, 4)):
        classifier("mobilenet_0.25", classes=classes, image_size=size, dropout=0, weights=None).save(
            run / "model.keras"
        )
        assert "do not belong together" in refusal(run, RunError)
    inputs = [keras.Input((32, 32, 3), dtype="uint8") for _ in range(2)]
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Add()(inputs))
    keras.Model(inputs, keras.layers.Dense(4)(pooled)).save(run / "model.keras")
    assert "do not belong together" in refusal(run, RunError)
    # Of the right shape, but without the layers that a new head takes the place of.
    keras.Sequential([inputs[0], keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(4)]).save(
        run / "model.keras"
    )
    assert "do not belong together" in refusal(run, RunError)


# Weights files.


@pytest.mark.parametrize("name", ["x.pkl", "x.pt", "x.npz", "x.keras", "x.weights.json", "x"])
def test_a_file_that_is_no_hdf5_by_its_name_is_refused(name, tmp_path, sign):
    (tmp_path / name).write_bytes(pickle.dumps(Evil(sign)))
    with pytest.raises(WeightsError, match=r"is no weights file that kerastk reads; expected \.weights\.h5"):
        build(tmp_path / name, base="mobilenet_0.25", image_size=32)
    assert not sign.exists()


@pytest.mark.parametrize("name", ["x.h5", "x.weights.h5"])
@pytest.mark.parametrize("outside", [False, True])
def test_weights_that_are_a_pickle_or_lead_outside_are_refused(name, outside, tmp_path, sign):
    if outside:
        with h5py.File(tmp_path / "secret.h5", "w") as file:
            file.create_group("layers/conv2d/vars")
        with h5py.File(tmp_path / name, "w") as file:
            file["layers"] = h5py.ExternalLink(str(tmp_path / "secret.h5"), "/layers")
            file["model_weights"] = h5py.ExternalLink(str(tmp_path / "secret.h5"), "/layers")
    else:
        (tmp_path / name).write_bytes(pickle.dumps(Evil(sign)))
    with pytest.raises(KerastkError) as caught:
        build(tmp_path / name, base="mobilenet_0.25", image_size=32)
    assert "does not hold the weights of mobilenet_0.25" in str(caught.value)
    assert ("ExternalLink" in str(caught.value)) == outside
    assert not sign.exists()
