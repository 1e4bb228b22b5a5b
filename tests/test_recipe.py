import dataclasses
import os

import pytest

from kerastk.errors import RecipeError
from kerastk.recipe import Finetune, construct, dump, load, split_fractions
from kerastk.storage import write_atomic


def test_defaults_stand_and_automatic_values_are_none():
    recipe = Finetune()
    assert (recipe.batch_size, recipe.label_smoothing, recipe.weights) == (32, 0.1, "imagenet")
    assert recipe.epochs is recipe.unfreeze is recipe.image_size is None


@pytest.mark.parametrize(
    "recipe",
    [
        Finetune(),
        Finetune(data='a "quoted"\nfolder/', base="resnet50", unfreeze=3, epochs=7, learning_rate=1e-4, strict=True),
        Finetune(weights="none", split="85/15", warmup_epochs=2, name="a run"),
        Finetune(unfreeze="head", head_epochs=4, dropout=0.0),
        Finetune(data=os.fsdecode(b"caf\xe9/photos")),
    ],
)
def test_dump_then_load_gives_the_same_recipe(recipe, tmp_path):
    path = tmp_path / "recipe.toml"
    write_atomic(path, dump(recipe))
    assert load(path) == recipe


def test_overrides_replace_the_values_of_a_file(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text('task = "finetune"\nepochs = 5\nbatch_size = 8\n')
    recipe = load(path, epochs=2)
    assert (recipe.epochs, recipe.batch_size) == (2, 8)


def test_a_recipe_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Finetune().epochs = 3


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"epochs": True}, "epochs must be a whole number; got True"),
        ({"epochs": 2.5}, "epochs must be a whole number; got 2.5"),
        ({"epochs": "many"}, "epochs must be a whole number; got 'many'"),
        ({"learning_rate": float("nan")}, "learning_rate must be"),
        ({"learning_rate": -1}, "learning_rate must be"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1; got 1.0"),
        ({"batch_size": None}, "batch_size must be given"),
        ({"resize": "squash"}, "resize must be one of crop, pad, stretch; got 'squash'"),
        ({"augment": 3}, "augment must be text; got 3"),
        ({"strict": "yes"}, "strict must be true or false; got 'yes'"),
        ({"split": "70/20"}, "split must be percentages that add up to 100"),
        ({"split": "100/0"}, "split must be percentages"),
        ({"split": "nan/15/15"}, "split must be percentages"),
        ({"device": "tpu"}, "device must be auto, cpu, gpu or gpu:N; got 'tpu'"),
        ({"device": "gpu:x"}, "device must be"),
        ({"unfreeze": "top"}, "unfreeze must be head, all or a number of stages; got 'top'"),
        ({"unfreeze": 0}, "at least 1 stage"),
        ({"unfreeze": -1}, "at least 1 stage"),
        ({"unfreeze": "9" * 5000}, "unfreeze must be head, all or a number of stages"),
        ({"warmup_epochs": 5, "epochs": 5}, "warmup_epochs must be below epochs, 5; got 5"),
        ({"name": "../elsewhere"}, "name must be a folder's name"),
        ({"data": "a\0b"}, "NUL"),
    ],
)
def test_a_wrong_value_is_refused_with_what_would_work(values, said):
    with pytest.raises(RecipeError, match=r"^[^\n]*$") as error:
        Finetune(**values)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("values", "unused"),
    [
        ({"weights": "none", "head_epochs": 2}, "head_epochs"),
        ({"weights": "none", "head_learning_rate": 0.1}, "head_learning_rate"),
        ({"weights": "none", "unfreeze": "all"}, "unfreeze"),
        ({"unfreeze": "head", "epochs": 3}, "epochs"),
        ({"unfreeze": "head", "learning_rate": 0.1}, "learning_rate"),
        ({"unfreeze": "head", "warmup_epochs": 1}, "warmup_epochs"),
        ({"strict": True, "max_bad": 0.1}, "max_bad"),
    ],
)
def test_an_option_without_effect_is_refused(values, unused):
    with pytest.raises(RecipeError, match=f"^{unused} has no effect"):
        Finetune(**values)


def test_float16_on_a_cpu_is_refused():
    with pytest.raises(RecipeError, match="float16 is 4 times slower"):
        Finetune(device="cpu", precision="float16")


def test_an_unknown_key_gets_the_nearest_names():
    with pytest.raises(RecipeError, match=r"no option 'learning-rat'. Did you mean learning_rate"):
        construct(Finetune, {"learning-rat": 1})
    with pytest.raises(RecipeError, match="Known: augment, base"):
        construct(Finetune, {"zzz": 1})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"epochs = 3", "task must be one of finetune; got None"),
        (b'task = "tag"', "task must be one of finetune; got 'tag'"),
        (b"epochs = = 3", "is not TOML"),
        (b"\xff\xfe", "is not TOML"),
        (b"epochs = " + b"9" * 5000, "is not TOML"),
        (b"a = " + b"[" * 5000, "is not TOML"),
        (b'task = "finetune"\nepochs = 1e3', "epochs must be a whole number; got 1000.0"),
        (b'task = "finetune"\n[data]\nx = 1', "data must be text"),
    ],
)
def test_a_wrong_file_is_one_line(text, said, tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_bytes(text)
    with pytest.raises(RecipeError) as error:
        load(path)
    assert said in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(RecipeError, match=r"cannot read the recipe .*none.toml.*No such file"):
        load(tmp_path / "none.toml")


def test_split_fractions():
    assert split_fractions("70/15/15") == (0.7, 0.15, 0.15)
    assert split_fractions("85/15") == (0.85, 0.15, 0.0)


FOUND = {"base": "vgg16", "image_size": 224, "threads": 2, "precision": "float32", "device": "cpu", "split": None,
         "name": "x"}  # fmt: skip


def test_resolve_fills_in_what_applies_and_nothing_else():
    pretrained = Finetune().resolve(stages=5, **FOUND)
    assert (pretrained.unfreeze, pretrained.head_epochs, pretrained.epochs, pretrained.patience) == (2, 3, 12, 5)
    head = Finetune(unfreeze="head").resolve(stages=5, **FOUND)
    assert head.epochs is head.learning_rate is head.warmup_epochs is None
    assert head.head_epochs == 20
    fresh = Finetune(weights="none").resolve(stages=5, **FOUND)
    assert fresh.unfreeze is fresh.head_epochs is fresh.head_learning_rate is None
    assert (fresh.epochs, fresh.learning_rate) == (30, 1e-3)
    assert Finetune().resolve(stages=1, **FOUND).unfreeze == "all"


def test_a_resolved_recipe_loads_and_resolves_to_itself(tmp_path):
    resolved = Finetune(strict=True).resolve(stages=5, **FOUND)
    (tmp_path / "r.toml").write_text(dump(resolved))
    again = load(tmp_path / "r.toml")
    assert again == resolved == again.resolve(stages=5, **FOUND)
