"""The ten invariants of the design, each by its number; what belongs to one module is tested in more depth there."""

import ast
import dataclasses
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

import kerastk
from kerastk.datasets.images import decode
from kerastk.errors import RecipeError, RunError
from tests.test_imports import COMMANDS, loaded_by
from tests.training.test_trainer import recipe

PACKAGE = Path(kerastk.__file__).parent


def test_invariant_1_import_and_help_are_light():
    helps = "".join(f"\ncommands.main({[*command, '--help']!r}, standalone_mode=False)" for command in COMMANDS)
    assert loaded_by("import kerastk\nfrom kerastk.cli import commands" + helps) == "[]"


def test_invariant_2_one_decoder_serves_training_evaluation_and_prediction(small_run, digits, tmp_path):
    photo = Image.open(digits / "1" / "4.png").convert("RGB").resize((90, 50))
    exif = photo.getexif()
    exif[0x0112] = 6
    folder = tmp_path / "photos" / "1"
    folder.mkdir(parents=True)
    photo.save(folder / "turned.jpg", exif=exif)
    data = (folder / "turned.jpg").read_bytes()
    expected = decode(data, 32)
    predictor = kerastk.load(small_run)
    assert np.array_equal(predictor.pixels(data), expected)
    assert np.array_equal(predictor.pixels(folder / "turned.jpg"), expected)
    rows = [(str(folder / "turned.jpg"), "1")] + [(str(p), p.parent.name) for p in sorted(digits.glob("[01]/*.png"))]
    opened = kerastk.open_data(kerastk.Finetune(base="mobilenet_0.25", image_size=32, augment="none"), data=rows)
    found = [
        split.example(number)[0]
        for split in (opened.train, opened.val, opened.test)
        for number, each in enumerate(split.photos)
        if each.path.endswith("turned.jpg")
    ]
    assert np.array_equal(found[0], expected)
    users = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if any(
            isinstance(node, ast.Attribute) and ast.unparse(node) == "Image.open"
            for node in ast.walk(ast.parse(path.read_text()))
        )
    }
    assert users == {"datasets/images.py"}


def test_invariant_3_a_saved_model_holds_no_augmentation_and_takes_uint8(small_run, digits):
    model = keras.saving.load_model(small_run.model_keras, safe_mode=True)
    assert model.input.dtype == "uint8"
    assert {layer.dtype_policy.name for layer in model.layers} == {"float32"}
    photos = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    first, second = model(photos), model(photos)
    assert np.array_equal(first, second)
    assert np.allclose(np.sum(first, axis=1), 1, atol=1e-5)


def test_invariant_4_a_frozen_batch_normalization_stays_frozen_through_fit(small_run, pretrained_run):
    before = keras.saving.load_model(small_run.model_keras)
    after = keras.saving.load_model(pretrained_run.model_keras)
    moved = {
        variable.path
        for variable, other in zip(before.variables, after.variables, strict=True)
        if not np.array_equal(variable, other) and "seed" not in variable.path
    }
    assert moved
    assert not [path for path in moved if "moving_" in path]
    assert not [path for path in moved if path.startswith(("conv1", "conv_dw_1/", "conv_pw_5/"))]


def test_invariant_5_equal_seeds_give_equal_runs_whatever_the_threads(digits, tmp_path):
    asked = kerastk.Classify(
        data=str(digits), net="fast-4", image_size=12, augment="strong", dropout=0.2, deterministic=True, epochs=2,
        threads=2, runs=str(tmp_path / "runs"),
    )  # fmt: skip
    first = kerastk.train(asked, show=False)
    second = kerastk.train(dataclasses.replace(first.recipe, name="again", threads=1), show=False)
    one, other = (keras.saving.load_model(run.model_keras).weights for run in (first, second))
    assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    assert first.predictions_csv.read_bytes() == second.predictions_csv.read_bytes()


def test_invariant_6_copies_never_stand_on_two_sides_and_test_is_read_once(digits, tmp_path, monkeypatch):
    from kerastk.datasets.pipeline import Split

    rows = []
    for path in sorted(digits.glob("[01]/*.png")):
        copy = tmp_path / f"{path.parent.name}-{path.stem}.bmp"
        Image.open(path).convert("RGB").save(copy)
        rows += [(str(path), path.parent.name), (str(copy), path.parent.name)]
    passes = []
    batches = Split.batches

    def counted(split, *given):
        passes.append(split)
        return batches(split, *given)

    monkeypatch.setattr(Split, "batches", counted)
    bare = kerastk.Classify(net="fast-4", image_size=12, augment="none", epochs=2, runs=str(tmp_path / "runs"))
    run = kerastk.train(bare, data=rows, show=False)
    side = {Path(file["path"]).stem.split("-")[-1] + file["label"]: set() for file in run.data["files"]}
    for file in run.data["files"]:
        side[Path(file["path"]).stem.split("-")[-1] + file["label"]].add(file["split"])
    assert {len(splits) for splits in side.values()} == {1}
    tests = [
        split
        for split in passes
        if {photo.path for photo in split.photos}
        == {file["path"] for file in run.data["files"] if file["split"] == "test"}
    ]
    assert len(tests) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["--weights", "none", "--unfreeze", "2"],
        ["--unfreeze", "head", "--epochs", "3"],
        ["--head", "svm", "--probe", "train"],
        ["--cache", "off", "--views", "3"],
        ["--strict", "--max-bad", "0.5"],
        ["--learning-rat", "0.1"],
        ["--base", "resnet51"],
    ],
    ids=" ".join,
)
def test_invariant_7_what_would_not_be_used_is_refused_before_anything_is_loaded(arguments):
    # The data is not even looked for: it does not exist.
    command = [sys.executable, "-m", "kerastk", "finetune", "nowhere", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "nowhere" not in done.stderr
    assert "Traceback" not in done.stderr


def test_invariant_7_a_split_that_would_not_be_used_is_refused(digits, tmp_path):
    rows = [
        (str(path), path.parent.name, ("train", "val", "test")[number % 3])
        for number, path in enumerate(sorted(digits.glob("*/*.png")))
    ]
    with pytest.raises(kerastk.KerastkError, match="--split 80/10/10 would not be used"):
        kerastk.train(kerastk.Finetune(weights="none", split="80/10/10", runs=str(tmp_path)), data=rows)


def test_invariant_8_refusals_are_one_line_and_leave_no_run_folder(digits, small_run, tmp_path):
    for values in ({"base": "resnet5"}, {"image_size": 8}, {"device": "gpu"}, {"name": "x", "precision": "float16"}):
        with pytest.raises(RecipeError, match=r"^[^\n]+$"):
            kerastk.train(recipe(digits, tmp_path, **values))
    with pytest.raises(RecipeError, match="no data given"):
        kerastk.train(kerastk.Finetune(runs=str(tmp_path / "runs")))
    with pytest.raises(RunError, match="exists already"):
        kerastk.train(recipe(digits, tmp_path, runs=str(small_run.path.parent), name=small_run.path.name))
    assert not (tmp_path / "runs").exists()


def test_invariant_9_every_write_goes_through_the_atomic_one(small_run):
    writers = {"open", "write_text", "write_bytes", "save", "save_weights"}
    found = {}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                modes = [a.value for a in node.args[1:] if isinstance(a, ast.Constant)]
                opened = called == "open" and any(set("wax+") & set(str(mode)) for mode in modes)
                writes = called in writers - {"open"} or opened
                if writes:
                    found.setdefault(path.relative_to(PACKAGE).as_posix(), set()).add(called)
    # Storage is the atomic one. Pillow saves into memory in images and photo_inputs; archive unpacks into a folder
    # that is renamed as a whole, and so does a checkpoint; the store of the cache grows by rows, each with its
    # checksum; a lock holds nothing.
    assert found == {
        "run.py": {"open", "save"}, "training/checkpoint.py": {"write_text"}, "training/keeper.py": {"save"},
        "datasets/images.py": {"save"}, "datasets/photo_inputs.py": {"save"}, "datasets/archive.py": {"open"},
        "training/store.py": {"open"},
    }  # fmt: skip
    assert not [path for path in small_run.path.iterdir() if path.name.startswith(".")]


def test_invariant_9_run_folders_carry_a_format_version(small_run):
    import json

    for path in (small_run.environment_json, small_run.labels_json, small_run.data_json, small_run.metrics_json):
        assert json.loads(path.read_text())["format"] == 1


def test_invariant_10_tensorflow_is_imported_only_for_what_is_its_own():
    where = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
            if any(name.split(".")[0] == "tensorflow" for name in names):
                where.add(path.relative_to(PACKAGE).as_posix())
    # Devices, determinism, event files, gradients, fused kernels; a run on JAX is in tests/training/test_backends.py.
    assert where == {
        "networks/fused.py", "testing.py", "training/device.py", "training/plan.py", "training/tensorboard.py",
    }  # fmt: skip
