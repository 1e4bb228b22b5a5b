"""`kerastk.embed`, `kerastk embed` and `kerastk cache`: vectors, the files they go to, and where they are kept."""

import os
import shutil
import zipfile

import keras
import numpy as np
import pyarrow.parquet
import pytest
from click.testing import CliRunner

import kerastk
from kerastk.cli import commands
from kerastk.errors import DataError, RecipeError
from kerastk.storage import cache_folder
from kerastk.training.cache import Activations
from kerastk.training.store import Store


@pytest.fixture(scope="module")
def photos(digits, tmp_path_factory):
    """A folder of two classes with ten photos each, and a file that is none in the first."""
    folder = tmp_path_factory.mktemp("embedding") / "photos"
    for label in "12":
        (folder / label).mkdir(parents=True)
        for number in range(10):
            shutil.copy(digits / label / f"{number}.png", folder / label)
    (folder / "1" / "broken.png").write_bytes((digits / "1" / "0.png").read_bytes()[:60])
    return folder


@pytest.fixture(scope="module")
def flat(photos, tmp_path_factory):
    """The photos of one class without a folder of their own."""
    folder = tmp_path_factory.mktemp("embedding") / "flat"
    shutil.copytree(photos / "2", folder)
    (folder / "notes.txt").write_text("no photo")
    return folder


@pytest.fixture(scope="module")
def network(small_run):
    """What the network of `small_run` finds in photos."""
    predictor = kerastk.load(small_run)
    base = keras.Model(predictor.model.input, predictor.model.get_layer("head_dropout").input)
    return lambda paths: np.asarray(base(np.stack([predictor.pixels(path) for path in paths])))


@pytest.fixture
def forwards(monkeypatch):
    """The number of photos in each forward pass from here on."""
    counts, forward = [], Activations._forward

    def counted(self, network, images):
        counts.append(len(images))
        return forward(self, network, images)

    monkeypatch.setattr(Activations, "_forward", counted)
    return counts


def recipe(data, small_run, **values):
    return kerastk.Finetune(data=None if data is None else str(data), weights=str(small_run.path), threads=2, **values)


def invoke(*arguments):
    return CliRunner().invoke(commands, [str(each) for each in arguments], catch_exceptions=False)


def test_vectors_are_the_pooled_features_of_the_network(photos, small_run, network):
    found = kerastk.embed(recipe(photos, small_run))
    assert found.paths == [f"{label}/{number}.png" for label in "12" for number in range(10)]
    assert found.labels == 10 * ["1"] + 10 * ["2"]
    assert found.unreadable == 1
    assert (found.vectors.shape, found.vectors.dtype) == ((20, 256), np.float32)
    np.testing.assert_allclose(found.vectors, network([photos / path for path in found.paths]), atol=1e-3)


def test_photos_need_no_classes(flat, small_run, network, tmp_path):
    archive = tmp_path / "flat.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(flat.iterdir()):
            file.write(path, path.name)
    expected = network([flat / f"{number}.png" for number in range(10)])
    for data in (flat, archive):
        found = kerastk.embed(recipe(data, small_run))
        assert found.paths == [f"{number}.png" for number in range(10)]
        assert set(found.labels) == {""}
        assert found.unreadable == 0
        np.testing.assert_allclose(found.vectors, expected, atol=1e-3)


def test_a_list_stands_for_data_as_in_training(photos, small_run):
    rows = [(str(photos / "2" / "3.png"), "two"), (str(photos / "1" / "4.png"), "one")]
    found = kerastk.embed(recipe(None, small_run, cache="off"), data=rows)
    assert list(zip(found.paths, found.labels, strict=True)) == rows
    with pytest.raises(RecipeError, match="no data given"):
        kerastk.embed(recipe(None, small_run))


def test_what_was_computed_once_is_not_computed_again(photos, small_run, forwards, tmp_path):
    shutil.copytree(photos, tmp_path / "photos")
    first = kerastk.embed(recipe(tmp_path / "photos", small_run))
    assert forwards == [20]
    again = kerastk.embed(recipe(tmp_path / "photos", small_run))
    assert forwards == [20]
    assert np.array_equal(first.vectors, again.vectors)
    # Another name, another class, and one that is new.
    os.rename(tmp_path / "photos" / "1", tmp_path / "photos" / "one")
    (tmp_path / "photos" / "2" / "new.png").write_bytes((photos / "1" / "0.png").read_bytes() + b"\0")
    more = kerastk.embed(recipe(tmp_path / "photos", small_run))
    assert forwards == [20, 1]
    assert len(more.paths) == 21
    assert set(more.labels) == {"2", "one"}
    by_path = dict(zip(more.paths, more.vectors, strict=True))
    assert np.array_equal(by_path["one/4.png"], first.vectors[first.paths.index("1/4.png")])


def test_without_a_cache_nothing_is_left_and_the_vectors_are_the_same(photos, small_run, forwards):
    kept = kerastk.embed(recipe(photos, small_run))
    shutil.rmtree(cache_folder() / "activations")
    found = kerastk.embed(recipe(photos, small_run, cache="off"))
    assert forwards == [20, 20]
    assert not (cache_folder() / "activations").exists()
    np.testing.assert_allclose(found.vectors, kept.vectors, atol=1e-6)


def test_other_weights_give_other_vectors_from_stores_of_their_own(flat, small_run, forwards):
    of_run = kerastk.embed(recipe(flat, small_run))
    fresh = kerastk.Finetune(data=str(flat), base="mobilenet_0.25", image_size=32, weights="none", threads=2)
    random = kerastk.embed(fresh)
    assert forwards == [10, 10]
    assert np.abs(random.vectors - of_run.vectors).max() > 0.1
    # The seed decides what a fresh network sees.
    assert np.array_equal(kerastk.embed(fresh).vectors, random.vectors)


def test_a_folder_without_a_readable_photo_is_refused(photos, small_run, tmp_path):
    shutil.copy(photos / "1" / "broken.png", tmp_path)
    with pytest.raises(DataError, match=r"no readable photos in .*; 1 cannot be read"):
        kerastk.embed(recipe(tmp_path, small_run))


def read(path):
    """(paths, labels, vectors) of a file that `kerastk embed` wrote; what has no label is None there."""
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as file:
            assert set(file.files) == {"path", "label", "vector"}
            labels = [str(label) or None for label in file["label"]]
            return file["path"].tolist(), labels, file["vector"]
    table = pyarrow.parquet.read_table(path)
    assert table.column_names == ["path", "label", "vector"]
    return table["path"].to_pylist(), table["label"].to_pylist(), np.array(table["vector"].to_pylist(), np.float32)


@pytest.mark.parametrize("ending", ["parquet", "npz"])
def test_both_formats_hold_path_label_and_vector(ending, photos, flat, small_run, tmp_path):
    out = tmp_path / f"vectors.{ending}"
    result = invoke("embed", photos, "--weights", small_run.path, "--out", out)
    assert result.exit_code == 0
    assert result.output == f"20 photos of 256 values each, 1 unreadable left out -> {out}\n"
    paths, labels, vectors = read(out)
    expected = kerastk.embed(recipe(photos, small_run))
    assert (paths, labels) == (expected.paths, expected.labels)
    assert vectors.dtype == np.float32
    assert np.array_equal(vectors, expected.vectors)

    invoke("embed", flat, "--weights", small_run.path, "--out", out)
    assert read(out)[0] == [f"{number}.png" for number in range(10)]
    assert read(out)[1] == 10 * [None]


def test_names_that_are_no_utf8_are_written_and_photos_beside_classes_have_no_label(small_run, photos, tmp_path):
    folder = tmp_path / "photos" / os.fsdecode(b"caf\xe9")
    folder.mkdir(parents=True)
    shutil.copy(photos / "2" / "0.png", folder / os.fsdecode(b"\xff.png"))
    shutil.copy(photos / "2" / "1.png", tmp_path / "photos" / "alone.png")
    found = kerastk.embed(recipe(tmp_path / "photos", small_run))
    rows = {"alone.png": "", os.fsdecode(b"caf\xe9/\xff.png"): os.fsdecode(b"caf\xe9")}
    assert dict(zip(found.paths, found.labels, strict=True)) == rows
    for ending in ("parquet", "npz"):
        found.write(tmp_path / f"vectors.{ending}")
    paths, labels, _ = read(tmp_path / "vectors.npz")
    assert dict(zip(paths, labels, strict=True)) == rows | {"alone.png": None}
    paths, labels, _ = read(tmp_path / "vectors.parquet")
    assert dict(zip(paths, labels, strict=True)) == {"alone.png": None, "caf\ufffd/\ufffd.png": "caf\ufffd"}


def test_a_wrong_ending_is_refused_before_anything_is_loaded(monkeypatch, tmp_path):
    monkeypatch.setattr("kerastk.cli.answering.start_backend", lambda: pytest.fail("the backend was started"))
    result = CliRunner().invoke(commands, ["embed", "nowhere", "--out", str(tmp_path / "vectors.csv")])
    assert isinstance(result.exception, RecipeError)
    assert str(result.exception).startswith("--out must end in .parquet, .npz; got ")
    # So is an option that says nothing of vectors, and a recipe that cannot be.
    result = CliRunner().invoke(commands, ["embed", "nowhere", "--out", "vectors.npz", "--epochs", "3"])
    assert result.exit_code == 2
    assert "--epochs" in result.output
    result = CliRunner().invoke(
        commands, ["embed", "nowhere", "--out", "vectors.npz", "--cache", "off", "--cache-size", "1GB"]
    )
    assert str(result.exception).startswith("cache_size has no effect with cache off")


def test_the_cache_is_listed_and_cleared(photos, small_run, tmp_path):
    folder = tmp_path / "cache"
    empty = f"0.0 MB in 0 stores in {folder}\n"
    assert invoke("cache", "info", "--folder", folder).output == empty
    assert invoke("cache", "clear", "--folder", folder).output == "0.0 MB freed\n"
    # Enough for a tenth of a megabyte.
    for number, path in enumerate(sorted(photos.glob("*/[0-9].png")) * 6):
        (tmp_path / "many").mkdir(exist_ok=True)
        (tmp_path / "many" / f"{number}.png").write_bytes(path.read_bytes() + bytes(number))
    out = tmp_path / "vectors.npz"
    invoke("embed", tmp_path / "many", "--weights", small_run.path, "--cache", folder, "--out", out)
    # The cache of everybody is left alone.
    assert not (cache_folder() / "activations").exists()

    first, last = invoke("cache", "info", "--folder", folder).output.splitlines()
    assert first.split()[2:] == ["0.1", "MB", "mobilenet_0.25", "256", "float32", "plain"]
    assert last == f"0.1 MB in 1 stores in {folder}"
    assert invoke("cache", "clear", "--folder", folder).output == "0.1 MB freed\n"
    assert invoke("cache", "info", "--folder", folder).output == empty
    assert list(folder.iterdir()) == []


def test_clearing_leaves_what_is_in_use_and_says_so():
    root = cache_folder() / "activations"
    stores = [Store(root, {"base": base}, (4,), "float32") for base in ("vgg16", "resnet50")]
    stores[1].close()
    assert invoke("cache", "info").output.splitlines()[-1] == f"0.0 MB in 2 stores in {root}"
    assert invoke("cache", "clear").output == "0.0 MB freed; 1 stores are in use\n"
    (line, _) = invoke("cache", "info").output.splitlines()
    assert "vgg16" in line
    # The one in use still takes rows.
    with stores[0].writing():
        stores[0].append(["00" * 32], np.ones((1, 4), np.float32))
    assert np.array_equal(stores[0].gather(stores[0].places(["00" * 32])), np.ones((1, 4)))
    stores[0].close()
    assert invoke("cache", "clear").output == "0.0 MB freed\n"
    assert list(root.iterdir()) == []


def test_clearing_touches_nothing_but_stores(tmp_path):
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "HEAD").write_text("ref")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "key.json").write_text("{}")
    (tmp_path / "notes.txt").write_text("mine")
    Store(tmp_path, {"base": "vgg16"}, (4,), "float32").close()
    invoke("cache", "clear", "--folder", tmp_path)
    left = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file())
    assert left == [".git/HEAD", "notes.txt", "photos/key.json"]
