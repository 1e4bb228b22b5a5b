import dataclasses
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

import kerastk
from kerastk import recipes
from kerastk.datasets import curves
from kerastk.demo import write_digits
from kerastk.errors import DataError
from kerastk.networks.bases import BASES
from kerastk.recipe import Recipe, dump, load, parse
from kerastk.screen import Screen
from kerastk.training.plan import plan

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("name", recipes.shipped_names())
def test_every_shipped_recipe_loads_and_its_head_tells_command_and_score(name):
    assert isinstance(getattr(recipes, name), Recipe)
    head = (recipes.folder() / f"{name}.toml").read_text().split("\n\n")[0]
    assert re.match(rf"# kerastk (demo|train {name})\b", head)
    assert "Time and score:" in head


def test_a_recipe_is_imported_by_name():
    from kerastk.recipes import digits

    assert digits.base == "mini"
    with pytest.raises(ImportError):
        from kerastk.recipes import nothing  # noqa: F401
    with pytest.raises(AttributeError, match="ships no recipe 'nothing'; it ships cats_dogs, cifar10-fast"):
        recipes.nothing  # noqa: B018


def test_hyphens_and_underscores_are_one_in_names():
    from kerastk.recipes import mnist_lenet, mnist_vae

    assert dataclasses.replace(mnist_lenet, epochs=1).epochs == 1
    assert mnist_lenet.epochs == 20
    assert mnist_vae == load(recipes.folder() / "mnist-vae.toml")
    assert getattr(recipes, "mnist-vae") == mnist_vae
    assert recipes.file("few-photos") == recipes.file("few_photos") == recipes.folder() / "few_photos.toml"
    assert recipes.file("mnist_vae") == recipes.folder() / "mnist-vae.toml"
    assert recipes.file("mnist") is None
    # No two files have one name.
    assert len({name.replace("-", "_") for name in recipes.shipped_names()}) == len(recipes.shipped_names())
    assert {"mnist_vae", "few_photos"} <= set(dir(recipes))


def test_a_shipped_recipe_dumps_what_its_file_says():
    for name in recipes.shipped_names():
        kind, given = parse(recipes.folder() / f"{name}.toml")
        assert dump(kind(**given)) == dump(getattr(recipes, name))


def test_the_demos_recipe_takes_its_first_epoch(tmp_path):
    paths = write_digits(tmp_path / "digits")
    assert len(paths) == 1797
    assert len({path.parent.name for path in paths}) == 10
    recipe = load(
        recipes.folder() / "digits.toml", data=str(tmp_path / "digits"), epochs=1, image_size=32, runs=str(tmp_path)
    )
    run = kerastk.train(recipe, show=False)
    assert run.metrics["test"]["photos"] == 269


@pytest.mark.parametrize("name", [name for name in recipes.shipped_names() if name != "digits"])
def test_every_other_recipe_can_be_planned(name, digits, names, tmp_path):
    recipe = load(recipes.folder() / f"{name}.toml", runs=str(tmp_path))
    given = {"data": names, "dev": None, "test": None} if recipe.task == "tag" else {"data": str(digits)}
    if recipe.task == "classify":
        given["image_size"] = recipe.image_size or 32
    if name == "imagenet-subset":
        given["classes"] = "0,1,3"
    settled = plan(dataclasses.replace(recipe, **given), screen=Screen(show=False), dry=True)
    machines = [f"rbm-{number}" for number in range(1, 5)]
    known = (["probe"], ["probe", "finetune"], ["all"], ["train"], [*machines, "train"])
    assert [phase.name for phase in settled.phases] in known
    assert all(count > 0 for count in settled.trainable.values())


def test_data_that_ships_is_called_by_name(tmp_path):
    settled = plan(kerastk.Tag(data="kerastk:names", runs=str(tmp_path)), screen=Screen(show=False))
    assert settled.folder.name == "names-lstm-crf-1"
    assert settled.recipe.data == "kerastk:names"
    # Of few sentences more epochs are automatic.
    assert settled.recipe.epochs == 60
    with pytest.raises(DataError, match=r"no data 'nothing' ships with kerastk; names does, and curves is made"):
        plan(kerastk.Tag(data="kerastk:nothing"), screen=Screen(show=False))


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """300 real handwritten digits of 28 x 28 pixels in a .npz file, 60 of them a test split."""
    from sklearn.datasets import load_digits

    loaded = load_digits()
    whole = (loaded.images[:300] * 15.9).astype(np.uint8).repeat(3, axis=1).repeat(3, axis=2)
    whole = np.pad(whole, ((0, 0), (2, 2), (2, 2)))
    path = tmp_path_factory.mktemp("arrays") / "digits.npz"
    labels = loaded.target[:300]
    np.savez(path, x_train=whole[:240], y_train=labels[:240], x_test=whole[240:], y_test=labels[240:])
    return str(path)


AUTOENCODERS = [name for name in recipes.shipped_names() if getattr(recipes, name).task == "autoencode"]


@pytest.mark.parametrize(
    "name",
    [each if each == "curves-autoencoder" else pytest.param(each, marks=pytest.mark.slow) for each in AUTOENCODERS],
)
def test_each_autoencoder_takes_its_first_epoch(name, images, digits, tmp_path, monkeypatch):
    monkeypatch.setattr(curves, "TRAINING", 200)
    monkeypatch.setattr(curves, "TEST", 50)
    recipe = getattr(recipes, name)
    given = {"runs": str(tmp_path), "epochs": 1}
    if recipe.data != "kerastk:curves":
        given["data"] = str(digits) if name == "photo-autoencoder" else images
    if recipe.pretrain is not None:
        given["rbm_epochs"] = 1
    run = kerastk.train(dataclasses.replace(recipe, **given), show=False)
    assert run.metrics["test"]["error"] > 0
    assert (recipe.normal is not None) == ("auroc" in run.metrics["test"]["anomalies"])


CLASSIFIERS = [name for name in recipes.shipped_names() if getattr(recipes, name).task == "classify"]


@pytest.mark.parametrize(
    "name", [each if each == "mnist-fast" else pytest.param(each, marks=pytest.mark.slow) for each in CLASSIFIERS]
)
def test_each_classifier_takes_its_first_epoch(name, images, tmp_path):
    recipe = getattr(recipes, name)
    # Bases take no images as small as these.
    size = 64 if recipe.net in BASES else None
    run = kerastk.train(
        dataclasses.replace(recipe, data=images, epochs=1, image_size=size, runs=str(tmp_path)), show=False
    )
    assert run.metrics["test"]["photos"] == 60
    assert kerastk.load(run.path)(np.zeros((28, 28), np.uint8)).label in run.labels["classes"]


def test_the_wheel_holds_the_recipes(tmp_path):
    build = "from hatchling.build import build_wheel; import sys; print(build_wheel(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", build, str(tmp_path)], cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    assert (tmp_path / "site" / "kerastk" / "shipped" / "data" / "names.conll").is_file()
    code = "import kerastk.recipes as r; print(r.folder(), r.digits.base, *r.shipped_names())"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path / "site", check=True, capture_output=True, text=True
    ).stdout.split()
    assert done[0] == str(tmp_path / "site" / "kerastk" / "shipped" / "recipes")
    assert done[1:] == ["mini", *recipes.shipped_names()]
    # The shipped base is whole there, too.
    done = subprocess.run(
        [sys.executable, "-m", "kerastk", "weights", "verify", "mini"],
        cwd=tmp_path / "site", check=True, capture_output=True, text=True,
    ).stdout.split()  # fmt: skip
    assert done == ["mini", str(tmp_path / "site/kerastk/shipped/models/mini/mini.weights.h5"), "kerastk"]
