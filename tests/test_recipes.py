import dataclasses
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import kerastk
from kerastk import recipes
from kerastk.demo import write_digits
from kerastk.errors import DataError
from kerastk.recipe import Recipe, dump, load, parse
from kerastk.screen import Screen
from kerastk.training.plan import plan

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("name", recipes.shipped_names())
def test_every_shipped_recipe_loads_and_its_head_tells_command_and_score(name):
    assert isinstance(getattr(recipes, name), Recipe)
    head = (recipes.folder() / f"{name}.toml").read_text().split("\n\n")[0]
    assert re.match(r"# kerastk (demo|train \w+)", head)
    assert "Time and score:" in head


def test_a_recipe_is_imported_by_name():
    from kerastk.recipes import digits

    assert digits.base == "mobilenet_0.25"
    with pytest.raises(ImportError):
        from kerastk.recipes import nothing  # noqa: F401
    with pytest.raises(AttributeError, match="ships no recipe 'nothing'; it ships cats_dogs, digits"):
        recipes.nothing  # noqa: B018


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
    settled = plan(dataclasses.replace(recipe, **given), screen=Screen(show=False), dry=True)
    assert [phase.name for phase in settled.phases] in (["probe"], ["probe", "finetune"], ["train"])
    assert all(count > 0 for count in settled.trainable.values())


def test_data_that_ships_is_called_by_name(tmp_path):
    settled = plan(kerastk.Tag(data="kerastk:names", runs=str(tmp_path)), screen=Screen(show=False))
    assert settled.folder.name == "names-lstm-crf-1"
    assert settled.recipe.data == "kerastk:names"
    # Of few sentences more epochs are automatic.
    assert settled.recipe.epochs == 60
    with pytest.raises(DataError, match=r"no data 'nothing' ships with kerastk; names does\."):
        plan(kerastk.Tag(data="kerastk:nothing"), screen=Screen(show=False))


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
    assert done[1:] == ["mobilenet_0.25", *recipes.shipped_names()]
