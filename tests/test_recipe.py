import dataclasses
import os

import pytest

from kerastk.errors import RecipeError
from kerastk.notation import OPTIMIZERS, SCHEDULES, schedule_numbers, seconds, size_bytes, split_fractions
from kerastk.recipe import Autoencode, Classify, Finetune, construct, dump, load
from kerastk.storage import write_atomic


def test_defaults_stand_and_automatic_values_are_none():
    recipe = Finetune()
    assert (recipe.batch_size, recipe.head, recipe.cache, recipe.weights) == (32, "dense", "auto", "imagenet")
    assert recipe.epochs is recipe.unfreeze is recipe.probe is recipe.weight_decay is recipe.image_size is None


@pytest.mark.parametrize(
    "recipe",
    [
        Finetune(),
        Finetune(data='a "quoted"\nfolder/', base="resnet50", unfreeze=3, epochs=7, learning_rate=1e-4, strict=True),
        Finetune(weights="none", split="85/15", warmup_epochs=2, name="a run"),
        Finetune(unfreeze="head", probe="train", head_epochs=4, dropout=0.0),
        Finetune(head="knn", cache="elsewhere/cache", cache_size="1.5tb"),
        Finetune(probe="none", layer_decay=0.75, views=3, cache_dtype="float32"),
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
        ({"head": "tree"}, "head must be one of dense, svm, knn; got 'tree'"),
        ({"probe": "maybe"}, "probe must be one of solve, train, none; got 'maybe'"),
        ({"layer_decay": 0.0}, "layer_decay must be at least 0.01 and at most 1; got 0.0"),
        ({"layer_decay": 1.5}, "layer_decay must be at least 0.01 and at most 1; got 1.5"),
        ({"views": 0}, "views must be at least 1"),
        ({"cache_dtype": "int8"}, "cache_dtype must be one of float32, float16, bfloat16; got 'int8'"),
        ({"cache_size": 2_000_000}, "cache_size must be text; got 2000000"),
        *(
            ({"cache_size": text}, f"cache_size must be a number of bytes like 500MB or 20GB; got {text!r}")
            for text in ("lots", "", "0", "0.0GB", "-1GB", "1e9", "nan", "20 XB", "20GBB", "GB", "9" * 40)
        ),
        *(
            ({"time": text}, f"time must be hours, minutes and seconds like 90s, 10m or 1h30m; got {text!r}")
            for text in ("", "10", "0m", "m", "1m2h", "-1m", "1.5h", "forever", "9" * 50 + "s")
        ),
        ({"schedule": "cosin"}, "no schedule 'cosin'; did you mean cosine?"),
        ({"schedule": "x"}, "no schedule 'x'; known: constant, cosine"),
        ({"schedule": "constant:final=1"}, "the schedule constant takes no numbers, each once; got 'final=1'"),
        ({"schedule": "cosine:0.1"}, "the schedule cosine takes final=NUMBER, each once; got '0.1'"),
        ({"schedule": "cosine:final=0:final=0"}, "each once"),
        ({"schedule": "cosine:final=2"}, "final of the schedule cosine must be a number from 0 to 1; got '2'"),
        ({"schedule": "restarts:cycles=1.5"}, "cycles of the schedule restarts must be a whole number from 1 to 20"),
        ({"schedule": "step:at=0.8/0.6"}, "at of the schedule step must be rising numbers like 0.5/0.75, from 0.01"),
        ({"schedule": "step:factor=nan"}, "factor of the schedule step must be a number"),
        ({"schedule": "plateau:patience=5", "patience": 5}, "lowers nothing before patience 5 ends it"),
        ({"optimizer": "adamm"}, "optimizer must be one of adamw, sgd, rmsprop"),
        ({"momentum": 0.9}, "the optimizer adamw takes no momentum; sgd, rmsprop, muon do."),
        ({"optimizer": "lion", "nesterov": True}, "the optimizer lion takes no nesterov; sgd, muon do."),
        ({"optimizer": "adam", "weight_decay": 0.1}, "the optimizer adam takes no weight_decay; adamw, sgd"),
        ({"optimizer": "sgd", "nesterov": True, "momentum": 0}, "nesterov is a kind of momentum"),
        ({"layer_decay": 0.7, "accumulate": 2}, "accumulate does not go with layer_decay"),
        ({"ema": 1.0}, "ema must be at least 0 and below 1"),
        ({"learning_rate": "fast"}, "learning_rate must be a number or auto; got 'fast'"),
        ({"learning_rate": "0.1"}, "learning_rate must be a number or auto; got '0.1'"),
        ({"min_delta": -1.0}, "min_delta must be at least 0"),
        ({"data": "a\0b"}, "NUL"),
        ({"histograms": "yes"}, "histograms must be true or false; got 'yes'"),
        ({"gradient_norms": None}, "gradient_norms must be given"),
        ({"profile": 10}, "profile must be text; got 10"),
        *(
            (
                {"profile": text},
                f"at most 100 steps, counted from 1, like 10:20; got {text!r}",
            )
            for text in ("", "10", "0:5", "7:6", "1:101", "1:2:3", "-1:3", "1.5:3", " 1:2", "a:b", "1:" + "9" * 40)
        ),
    ],
)
def test_a_wrong_value_is_refused_with_what_would_work(values, said):
    with pytest.raises(RecipeError, match=r"^[^\n]*$") as error:
        Finetune(**values)
    assert said in str(error.value)


CACHED = ("views", "cache_size", "cache_dtype")
TRAINED = (
    "optimizer", "accumulate", "on_nan",
    "schedule", "l1", "l2", "patience", "min_delta", "start_from_epoch", "weight_decay", "clipnorm", "label_smoothing",
    "dropout",
)  # fmt: skip
MAIN = ("epochs", "learning_rate", "warmup_epochs")
HEAD = ("head_epochs", "head_learning_rate")
MIXED = ("manifold_mixup", "mixup", "cutmix")
WATCHED = ("histograms", "gradient_norms", "profile")
SOLVED = ("layer_decay", *MIXED, "epoch_parts", "views", "cache_dtype", "ema", "keep_last", *WATCHED)
VALUES = {
    "views": 2, "cache_size": "1GB", "cache_dtype": "float16", "patience": 2, "weight_decay": 0.1, "clipnorm": 1.0,
    "label_smoothing": 0.1, "dropout": 0.3, "epochs": 3, "learning_rate": 0.1, "warmup_epochs": 1.0, "head_epochs": 2,
    "head_learning_rate": 0.1, "unfreeze": "all", "probe": "solve", "layer_decay": 0.5, "cache": "folder",
    "max_bad": 0.1, "manifold_mixup": 0.2, "mixup": 0.2, "cutmix": 1.0, "epoch_parts": 2, "histograms": True,
    "gradient_norms": True, "profile": "1:2", "schedule": "cosine", "l1": 1e-4, "l2": 1e-4, "focal_gamma": 1.0,
    "on_nan": "rollback", "optimizer": "sgd", "accumulate": 2, "ema": 0.9, "min_delta": 0.01, "start_from_epoch": 2,
    "time": "10m", "keep_last": True,
}  # fmt: skip
# What each kind of recipe does not use.
UNUSED = [
    ({"weights": "none"}, (*CACHED, *HEAD, "unfreeze", "probe", "layer_decay", "manifold_mixup", "cache")),
    ({"cache": "off"}, CACHED),
    # The head is not trained by itself.
    ({}, HEAD),
    ({"probe": "solve"}, HEAD),
    ({"probe": "none"}, HEAD),
    # Nothing but the head is fitted.
    ({"unfreeze": "head", "probe": "train"}, (*MAIN, "layer_decay", *MIXED)),
    # And that is done at once.
    ({"unfreeze": "head"}, (*MAIN, *HEAD, *TRAINED, *SOLVED, "time")),
    ({"unfreeze": "head", "probe": "solve"}, (*MAIN, *HEAD, *TRAINED, *SOLVED, "time")),
    ({"head": "svm"}, (*MAIN, *HEAD, *TRAINED, *SOLVED, "probe")),
    ({"head": "knn"}, (*MAIN, *HEAD, *TRAINED, *SOLVED, "probe")),
    # Nothing of what is trained is frozen.
    ({"unfreeze": "all"}, (*HEAD, "views", "cache_dtype", "manifold_mixup")),
    ({"unfreeze": "all", "probe": "none"}, (*HEAD, "views", "cache_dtype", "manifold_mixup")),
    # What is mixed anew in each batch is not kept.
    ({"mixup": 0.2}, ("views", "cache_dtype", "cache")),
    ({"cutmix": 1.0, "mixup": 0.2}, ("views", "cache_dtype", "cache")),
    *(({"balance": balance}, ("focal_gamma",)) for balance in ("none", "weights", "sample")),
    ({"strict": True}, ("max_bad",)),
]


@pytest.mark.parametrize(("values", "unused"), [(values, name) for values, names in UNUSED for name in names])
def test_an_option_without_effect_is_refused(values, unused):
    with pytest.raises(RecipeError, match=rf"^{unused} has no effect [^\n]*; leave it out\.$"):
        Finetune(**values, **{unused: VALUES[unused]})


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"weights": "none", "head": "svm"}, "head svm needs pretrained features"),
        ({"weights": "none", "head": "knn"}, "head knn needs pretrained features"),
        ({"head": "svm", "unfreeze": 2}, "head svm is fitted on a frozen base; leave unfreeze out"),
        ({"head": "knn", "unfreeze": "all"}, "head knn is fitted on a frozen base; leave unfreeze out"),
        ({"unfreeze": "head", "probe": "none"}, "unfreeze head and probe none leave nothing to train"),
        ({"unfreeze": "head", "balance": "sample"}, "balance sample has no effect where the head is solved"),
        ({"head": "svm", "balance": "focal"}, "balance focal has no effect where the head is solved"),
        ({"head": "knn", "balance": "weights"}, "balance weights has no effect with head knn"),
        ({"mixup": 0.2, "manifold_mixup": 0.4}, "manifold_mixup mixes what mixup or cutmix has mixed already"),
    ],
)
def test_what_cannot_go_together_is_refused(values, said):
    with pytest.raises(RecipeError, match=r"^[^\n]*$") as error:
        Finetune(**values)
    assert said in str(error.value)


@pytest.mark.parametrize(
    "values",
    [
        {"unfreeze": "head", "probe": "train", "head_epochs": 2, "head_learning_rate": 0.1, "dropout": 0.3, "views": 2,
         "weight_decay": 0.1, "clipnorm": 0, "label_smoothing": 0.0, "patience": 1, "cache_dtype": "float16",
         "histograms": True, "gradient_norms": True, "profile": "1:100"},
        {"unfreeze": "all", "probe": "train", "views": 2, "cache_dtype": "float16"},
        {"unfreeze": "all", "layer_decay": 0.75},
        {"probe": "none", "layer_decay": 1},
        {"head": "svm", "unfreeze": "head", "cache": "off", "histograms": False, "gradient_norms": False},
        {"weights": "none", "cache": "off"},
        {"weights": "none", "mixup": 0.2, "cutmix": 1.0},
        {"mixup": 0.2, "probe": "train", "views": 2, "cache_size": "1GB"},
        {"cutmix": 1.0, "manifold_mixup": 0.0},
        {"balance": "focal", "focal_gamma": 1.0, "l1": 1e-5, "l2": 1e-4},
        {"unfreeze": "head", "balance": "weights"},
        {"unfreeze": "head", "probe": "train", "balance": "sample"},
        {"head": "svm", "balance": "weights"},
        {"weights": "none", "dropout": 0.3, "weight_decay": 0.1, "clipnorm": 0, "label_smoothing": 0.0, "patience": 1},
    ],
)  # fmt: skip
def test_what_a_run_uses_is_taken(values):
    recipe = Finetune(**values)
    assert {name: getattr(recipe, name) for name in values} == values


@pytest.mark.parametrize(
    ("text", "size"),
    [("20GB", 20e9), ("1.5tb", 1.5e12), ("500MB", 500e6), ("500 mb", 500e6), ("7K", 7000), ("12", 12), ("12B", 12)],
)
def test_a_size_is_read_in_decimal_units(text, size):
    assert size_bytes(text) == size
    assert Finetune(cache_size=text).cache_size == text


def test_the_numbers_of_a_schedule_are_read():
    assert schedule_numbers("step:factor=0.2:at=0.6/0.8") == ("step", {"factor": 0.2, "at": (0.6, 0.8)})
    assert schedule_numbers("restarts:cycles=4") == ("restarts", {"cycles": 4})
    assert schedule_numbers("cosine") == ("cosine", {})


@pytest.mark.parametrize(
    ("text", "expected"), [("90s", 90), ("10m", 600), ("1h30m", 5400), ("1h 1m 1s", 3661), ("2h", 7200)]
)
def test_a_time_is_read_in_hours_minutes_and_seconds(text, expected):
    assert seconds(text) == expected
    assert Finetune(time=text).time == text


def test_float16_on_a_cpu_is_refused():
    with pytest.raises(RecipeError, match="float16 is 4 times slower"):
        Finetune(device="cpu", precision="float16")


def test_an_unknown_key_gets_the_nearest_names():
    with pytest.raises(RecipeError, match=r"no option 'learning-rat'. Did you mean learning_rate"):
        construct(Finetune, {"learning-rat": 1})
    with pytest.raises(RecipeError, match="Known: accumulate, augment"):
        construct(Finetune, {"zzz": 1})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"epochs = 3", "task must be one of finetune, classify, tag, autoencode; got None"),
        (b'task = "segment"', "task must be one of finetune, classify, tag, autoencode; got 'segment'"),
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
         "split_seed": None, "name": "x"}  # fmt: skip


def resolved(solvable=True, stages=5, **values):
    return Finetune(**values).resolve(stages=stages, solvable=solvable, **FOUND)


def test_resolve_fills_in_the_defaults():
    pretrained = resolved()
    assert (pretrained.unfreeze, pretrained.probe, pretrained.epochs, pretrained.patience) == (1, "solve", 16, 5)
    assert (pretrained.weight_decay, pretrained.clipnorm, pretrained.label_smoothing, pretrained.dropout) == (
        0.05, 1.0, 0.1, 0.2,
    )  # fmt: skip
    # The more is trained, the more gently.
    assert [resolved(unfreeze=unfreeze).learning_rate for unfreeze in (1, 2, "all")] == [3e-4, 1e-4, 1e-4]
    assert resolved(probe="train").head_epochs == 3
    assert resolved(probe="train", unfreeze="head").head_epochs == 20
    fresh = resolved(weights="none")
    assert (fresh.epochs, fresh.learning_rate, fresh.patience) == (30, 1e-3, 15)
    assert resolved(stages=1).unfreeze == "all"


def test_from_random_weights_half_of_a_long_training_may_pass_without_progress():
    # ResNet-20 on CIFAR-10, 100 epochs of one_cycle: the lowest loss of the first 31 was that of epoch 16.
    found = {name: value for name, value in FOUND.items() if name != "base"}
    for kind in (
        lambda **values: resolved(weights="none", **values),
        lambda **values: Classify(**values).resolve(net="resnet20", decoded=False, dropout=0.0, **found),
    ):
        assert [kind(**each).patience for each in ({}, {"epochs": 8}, {"epochs": 100})] == [15, 15, 50]
        assert kind(epochs=100, patience=3).patience == 3
    assert resolved(epochs=100).patience == 5


def test_the_learning_rate_and_the_decay_go_by_the_optimizer():
    sgd, adam = resolved(optimizer="sgd"), resolved(optimizer="adam", probe="train")
    assert (sgd.learning_rate, sgd.weight_decay) == pytest.approx((9e-3, 0.05 / 30))
    assert (adam.learning_rate, adam.weight_decay, adam.head_learning_rate) == (3e-4, None, 2e-3)
    assert resolved(optimizer="sgd", learning_rate=1.0).learning_rate == 1.0
    assert resolved().optimizer == "adamw"


def test_the_optimizers_of_a_recipe_are_those_of_the_training():
    from kerastk.training import optimizers, schedules

    assert set(OPTIMIZERS) == set(optimizers.OPTIMIZERS)
    for name, (scale, numbers) in OPTIMIZERS.items():
        assert scale == optimizers.OPTIMIZERS[name].rate_scale
        taken = set(optimizers.OPTIMIZERS[name].numbers) & {"momentum", "nesterov", "weight_decay"}
        assert set(numbers) == taken
    for name, numbers in schedules.SCHEDULES.items():
        for key, number in numbers.numbers.items():
            assert isinstance(SCHEDULES[name][key], range) == number.whole
            assert (SCHEDULES[name][key][0], SCHEDULES[name][key][-1]) == (number.low, number.high)
    assert set(SCHEDULES) == {*schedules.SCHEDULES, "plateau"}


def test_activations_are_mixed_where_something_is_frozen():
    assert resolved().manifold_mixup == 0.4
    assert resolved(unfreeze=4).manifold_mixup == 0.4
    assert resolved(manifold_mixup=0).manifold_mixup == 0
    for everything in ({"unfreeze": "all"}, {"unfreeze": 5}, {"weights": "none"}, {"unfreeze": "head"}):
        assert resolved(**everything).manifold_mixup is None
    # Either the photos or what is made of them.
    assert [(each.mixup, each.manifold_mixup) for each in (resolved(), resolved(mixup=0.2))] == [(0, 0.4), (0.2, 0)]
    with pytest.raises(RecipeError, match="manifold_mixup has no effect with unfreeze 5: nothing is frozen"):
        resolved(unfreeze=5, manifold_mixup=0.2)


# What a kind of recipe holds once it is resolved, of the fields that not every kind has.
KINDS = [
    ({}, ("unfreeze", "probe", *MAIN, *TRAINED)),
    ({"probe": "train"}, ("unfreeze", "probe", *HEAD, *MAIN, *TRAINED)),
    ({"probe": "none"}, ("unfreeze", "probe", *MAIN, *TRAINED)),
    ({"unfreeze": "all", "layer_decay": 0.75}, ("unfreeze", "probe", "layer_decay", *MAIN, *TRAINED)),
    ({"unfreeze": "head"}, ("unfreeze", "probe")),
    ({"unfreeze": "head", "probe": "train"}, ("unfreeze", "probe", *HEAD, *TRAINED)),
    ({"head": "svm"}, ("unfreeze",)),
    ({"head": "knn"}, ("unfreeze",)),
    ({"weights": "none"}, (*MAIN, *TRAINED)),
    ({"strict": True, "cache": "off"}, ("unfreeze", "probe", *MAIN, *TRAINED)),
]


@pytest.mark.parametrize(("values", "held"), KINDS)
def test_resolve_fills_in_what_applies_and_nothing_else(values, held):
    recipe = resolved(**values)
    optional = {"unfreeze", "probe", "layer_decay", *MAIN, *HEAD, *TRAINED}
    assert {name for name in optional if getattr(recipe, name) is not None} == set(held)
    assert (recipe.max_bad is None) == recipe.strict


def test_a_head_that_cannot_be_solved_is_trained():
    assert resolved(solvable=False).probe == "train"
    recipe = resolved(solvable=False, unfreeze="head")
    assert (recipe.probe, recipe.head_epochs, recipe.patience, recipe.dropout) == ("train", 20, 5, 0.2)
    # Who asks for it gets it.
    assert resolved(solvable=False, probe="solve").probe == "solve"
    assert resolved(solvable=False, head="knn").probe is None


@pytest.mark.parametrize("solvable", [True, False])
@pytest.mark.parametrize("values", [values for values, _ in KINDS])
def test_a_resolved_recipe_loads_and_resolves_to_itself(values, solvable, tmp_path):
    recipe = resolved(solvable, **values)
    (tmp_path / "r.toml").write_text(dump(recipe))
    again = load(tmp_path / "r.toml")
    assert again == recipe == again.resolve(stages=5, solvable=solvable, **FOUND)


# Autoencoders.

CODES = {
    "data": "x.npz", "latent": 8, "widths": ["64", "32"], "kind": "dense", "noise": "gaussian:0.5",
    "normal": ["a", "b"], "false_alarms": 0.05, "sparsity": "kl:0.1:0.2", "image_size": 32, "resize": "pad",
    "features": "resnet50", "label_column": "kind", "augment": "flip", "max_bad": 0.1, "threads": 2,
    "learning_rate": "auto",
}  # fmt: skip


def test_an_autoencoders_defaults_stand_and_automatic_values_are_none():
    recipe = Autoencode()
    assert (recipe.batch_size, recipe.false_alarms, recipe.variational, recipe.binarise) == (128, 0.01, False, False)
    named = ("kind", "latent", "widths", "activation", "upsample", "loss", "noise", "normal", "image_size", "epochs")
    assert all(getattr(recipe, name) is None for name in named)
    assert (recipe.normal_classes, Autoencode(normal=" a , b c").normal_classes) == ((), ("a", "b c"))


@pytest.mark.parametrize(
    "values",
    [
        {}, CODES, {"variational": True, "beta": 0, "free_bits": 0.5, "loss": "mse", "binarise": True},
        {"masked": 0.5, "patch": 4, "upsample": "subpixel", "contraction": 1e-4},
        {"pretrain": "rbm", "rbm_epochs": 3, "rbm_steps": 2, "rbm_learning_rate": 1, "rbm_momentum": 0.5,
         "rbm_weight_decay": 0, "activation": "sigmoid", "kind": "dense", "sparsity": "l1:0.01", "strict": True},
    ],
    ids=lambda values: ",".join(values)[:30],
)  # fmt: skip
def test_an_autoencoders_recipe_comes_back_from_its_file(values, tmp_path):
    recipe = Autoencode(**values)
    write_atomic(tmp_path / "r.toml", dump(recipe))
    again = load(tmp_path / "r.toml")
    assert again == recipe
    assert type(again) is Autoencode
    for name, value in values.items():
        assert getattr(again, name) == (",".join(value) if isinstance(value, list) else value)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"latent": 0}, "latent must be at least 1 and at most 65536; got 0"),
        ({"latent": 1.5}, "latent must be a whole number"),
        ({"false_alarms": 0}, "false_alarms must be at least 1e-06 and at most 0.5; got 0"),
        ({"image_size": 7}, "image_size must be at least 8 and at most 512 pixels; got 7"),
        ({"resize": "squash"}, "resize must be one of crop, pad, stretch; got 'squash'"),
        ({"kind": "deep"}, "kind must be one of dense, conv; got 'deep'"),
        ({"activation": "tanh"}, "activation must be one of relu"),
        ({"upsample": "shuffle"}, "upsample must be one of transpose, subpixel, resize"),
        ({"loss": "l2"}, "loss must be one of mse, bce, mae, ssim, huber; got 'l2'"),
        ({"masked": 1}, "masked must be at least 0.01 and at most 0.99"),
        ({"contraction": 0}, "contraction must be at least 1e-09"),
        ({"pretrain": "dbn"}, "pretrain must be one of rbm; got 'dbn'"),
        ({"rbm_momentum": 1, "pretrain": "rbm"}, "rbm_momentum must be at least 0 and below 1"),
        ({"widths": "64,0"}, "widths must be at most"),
        ({"widths": "64;32"}, "widths must be at most"),
        ({"widths": ",".join(["8"] * 100)}, "widths must be at most"),
        ({"widths": [64, 32]}, "widths must be text; got [64, 32]"),
        *(({"noise": text}, "noise must be a kind and how much of it, like gaussian:0.5")
          for text in ("gaussian", "gaussian:0", "masking:1", "rain:0.5", "gaussian:nan", "")),
        *(({"sparsity": text}, "sparsity must be l1:WEIGHT or kl:SHARE[:WEIGHT]")
          for text in ("l1", "l1:0", "kl:1", "kl:0.1:0", "kl:0.1:1:1", "l2:1", "l1:inf", "")),
        ({"normal": "a,,b"}, "normal must be names of classes with commas between; got 'a,,b'"),
        ({"normal": ""}, "normal must be names of classes"),
        ({"augment": "flipp"}, "augment: no step 'flipp'"),
        ({"warmup_epochs": 3, "epochs": 3}, "warmup_epochs must be below epochs, 3; got 3"),
        ({"noise": "masking:0.5", "masked": 0.5}, "noise and masked each show other pixels than the image's; choose"),
        ({"masked": 0.5, "binarise": True}, "masked and binarise each show other pixels"),
        ({"noise": "masking:0.5", "masked": 0.5, "binarise": True}, "noise and masked and binarise each show"),
        ({"masked": 0.5, "loss": "ssim"}, "loss ssim compares whole windows, of which masked hides parts; use mse."),
        ({"variational": True, "loss": "mae"}, "variational needs a likelihood: loss mse or bce; got mae."),
        ({"pretrain": "rbm", "kind": "conv"}, "pretrain rbm trains dense layers; with kind conv leave it out."),
        ({"pretrain": "rbm", "activation": "relu"}, "the units of an rbm are logistic: activation sigmoid; got relu."),
        ({"pretrain": "rbm", "variational": True}, "pretrain rbm needs a linear code; leave variational and sparsity"),
        ({"pretrain": "rbm", "sparsity": "kl:0.1"}, "pretrain rbm needs a linear code"),
    ],
    ids=lambda value: str(value)[:40],
)  # fmt: skip
def test_what_an_autoencoder_cannot_be_is_refused(values, said):
    with pytest.raises(RecipeError, match=r"^[^\n]*$") as error:
        Autoencode(**values)
    assert said in str(error.value)


OF_RBM = {"rbm_epochs": 2, "rbm_steps": 2, "rbm_learning_rate": 0.1, "rbm_momentum": 0.5, "rbm_weight_decay": 0.0}
# What each kind of autoencoder does not use, and why.
UNUSED_CODES = [
    ({"kind": "dense"}, {"upsample": "resize"}, "with kind dense, which has no images inside"),
    ({}, {"patch": 4}, "without masked"),
    ({}, {"beta": 2, "free_bits": 0.1}, "without variational"),
    ({}, OF_RBM, "without pretrain rbm"),
    ({"strict": True}, {"max_bad": 0.1}, "with strict, which refuses any finding"),
    (
        {"variational": True}, {"sparsity": "l1:0.1", "contraction": 0.1},
        "with variational, which has a penalty on the codes of its own",
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("values", "name", "value", "reason"),
    [(values, *field, reason) for values, unused, reason in UNUSED_CODES for field in unused.items()],
)
def test_an_option_without_effect_on_an_autoencoder_is_refused(values, name, value, reason):
    assert Autoencode(**values)
    with pytest.raises(RecipeError) as error:
        Autoencode(**values, **{name: value})
    assert str(error.value) == f"{name} has no effect {reason}; leave it out."


def test_an_unknown_option_of_an_autoencoder_gets_the_nearest_names():
    with pytest.raises(RecipeError, match=r"autoencode has no option 'latents'. Did you mean latent"):
        construct(Autoencode, {"latents": 1})
    with pytest.raises(RecipeError, match=r"autoencode has no option 'base'"):
        construct(Autoencode, {"base": "resnet50"})


def resolved_code(shape, decoded=False, steps=100, **values):
    return Autoencode(**values).resolve(
        steps=steps, shape=shape, decoded=decoded, precision="float32", device="cpu", threads=2, split=None,
        split_seed=None, name="x",
    )  # fmt: skip


CODE_KINDS = [
    ((28, 28, 1), {}), ((64, 64, 3), {"decoded": True}), ((5,), {}), ((28, 28, 1), {"variational": True}),
    ((28, 28, 1), {"pretrain": "rbm"}), ((28, 28, 1), {"masked": 0.5}), ((5,), {"optimizer": "adam"}),
    ((64, 64, 3), {"decoded": True, "strict": True}),
]  # fmt: skip


def test_what_is_automatic_goes_by_the_items():
    conv, rows, rbm = resolved_code((28, 28, 1)), resolved_code((5,)), resolved_code((28, 28, 1), pretrain="rbm")
    assert (conv.kind, conv.latent, conv.widths, conv.activation, conv.upsample, conv.loss) == (
        "conv", 64, "32,64", "swish", "resize", "mse",
    )  # fmt: skip
    assert (rows.kind, rows.latent, rows.widths, rows.upsample, rows.loss) == ("dense", 2, "16,8", None, "mse")
    assert (rbm.kind, rbm.activation, rbm.loss, rbm.rbm_epochs, rbm.rbm_steps) == ("dense", "sigmoid", "bce", 20, 1)
    assert (resolved_code((28, 28, 1), variational=True).loss, resolved_code((5,), variational=True).loss) == (
        "bce", "mse",
    )  # fmt: skip
    # Few items, more epochs: as many as make 5,000 steps, at most 200.
    assert [resolved_code((5,), steps=steps).epochs for steps in (1000, 60, 1)] == [50, 84, 200]
    assert resolved_code((5,), optimizer="adam").weight_decay is None


@pytest.mark.parametrize(("shape", "values"), CODE_KINDS, ids=str)
def test_a_resolved_autoencoder_loads_and_resolves_to_itself(shape, values, tmp_path):
    recipe = resolved_code(shape, **values)
    (tmp_path / "r.toml").write_text(dump(recipe))
    again = load(tmp_path / "r.toml")
    decoded = values.get("decoded", False)
    assert again == recipe
    assert again.resolve(
        steps=100, shape=shape, decoded=decoded, precision="float32", device="cpu", threads=2, split=None,
        split_seed=None, name="x",
    ) == again  # fmt: skip
    assert (recipe.image_size, recipe.augment) == ((shape[0], "none") if decoded else (None, None))
    assert (recipe.max_bad is None) == (recipe.strict or not decoded)
