import csv
import dataclasses
import json
import os
import shutil
import subprocess
import sys

import keras
import numpy as np
import pandas
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import kerastk
from kerastk.errors import DataError, Diverged, RecipeError, WeightsError
from kerastk.screen import Screen
from kerastk.tasks.finetune import settle
from kerastk.training.plan import plan
from tests.conftest import SMALL


def recipe(digits, tmp_path, **values):
    return kerastk.Finetune(data=str(digits), **{**SMALL, "epochs": 1, "runs": str(tmp_path / "runs"), **values})


def quick(digits, tmp_path, **values):
    """What trains in a second, where it does not matter which network it is."""
    common = {"net": "fast-4", "image_size": 12, "augment": "none", "threads": 2, "learning_rate": 5e-4, "epochs": 1}
    return kerastk.Classify(data=str(digits), **{**common, "runs": str(tmp_path / "runs"), **values})


def copy_with(run, folder, **files):
    folder.mkdir()
    for path in run.path.iterdir():
        if path.is_file():
            (folder / path.name).write_bytes(files.get(path.name, path.read_bytes()))
    return folder


def test_a_small_run_learns(small_run):
    assert small_run.metrics["test"]["accuracy"] >= 0.8
    assert small_run.metrics["test"]["photos"] == 24


def test_the_log_has_a_row_an_epoch_with_all_figures(pretrained_run):
    rows = pretrained_run.log
    assert [(row["phase"], row["epoch"]) for row in rows] == [("head", "1"), ("finetune", "2"), ("finetune", "3")]
    for row in rows:
        assert 0 <= float(row["wait_share"]) <= 1
        assert float(row["photos_per_second"]) > 0
        assert float(row["learning_rate"]) > 0
        assert {"loss", "accuracy", "cross_entropy", "val_loss", "val_accuracy", "val_cross_entropy"} <= set(row)


def test_the_best_model_is_the_one_of_the_lowest_validation_cross_entropy(pretrained_run, small_run):
    for run in (pretrained_run, small_run):
        lowest = min(run.log, key=lambda row: float(row["val_cross_entropy"]))
        best = run.metrics["best"]
        assert best["epoch"] == int(lowest["epoch"])
        assert best["val_cross_entropy"] == pytest.approx(float(lowest["val_cross_entropy"]))
        # The saved model is that of this epoch, not the last one's.
        assert run.metrics["validation"]["cross_entropy"] == pytest.approx(best["val_cross_entropy"], abs=1e-4)


def test_plain_keras_in_a_process_without_kerastk_answers_the_same(small_run, digits, tmp_path):
    predictor = kerastk.load(small_run)
    photo = predictor.pixels(digits / "1" / "5.png")
    np.save(tmp_path / "photo.npy", photo[None])
    code = (
        "import sys, keras, numpy as np\n"
        "model = keras.saving.load_model(sys.argv[1], safe_mode=True)\n"
        "np.save(sys.argv[3], model.predict(np.load(sys.argv[2]), verbose=0))\n"
        "assert not [m for m in sys.modules if m.startswith('kerastk')]\n"
    )
    out = tmp_path / "answer.npy"
    subprocess.run(
        [sys.executable, "-c", code, small_run.model_keras, tmp_path / "photo.npy", out],
        check=True, cwd=tmp_path, capture_output=True,
    )  # fmt: skip
    assert np.allclose(np.load(out)[0].max(), predictor(photo).probability, atol=1e-6)


def test_a_phase_that_stops_early_leaves_the_figures_right(digits, small_run, tmp_path):
    class StopHead(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = epoch == 0

    recipe = kerastk.Finetune(
        data=str(digits), weights=str(small_run.path), unfreeze=1, probe="train", head_epochs=9, epochs=2,
        runs=str(tmp_path),
    )  # fmt: skip
    run = kerastk.train(recipe, callbacks=[StopHead()], show=False)
    assert [row["epoch"] for row in run.log] == ["1", "10", "11"]
    lowest = min(run.log, key=lambda row: float(row["val_cross_entropy"]))
    assert run.metrics["best"]["epoch"] == int(lowest["epoch"])
    assert run.metrics["best"]["phase"] == lowest["phase"]


def test_the_recipe_of_a_run_plans_the_same_again(pretrained_run, small_run):
    for run in (pretrained_run, small_run):
        again = plan(dataclasses.replace(run.recipe, name="again"), screen=Screen(show=False))
        assert dataclasses.replace(again.recipe, name=run.path.name) == run.recipe


def test_batches_that_are_too_few_for_a_step_are_told_of_and_none_at_all_refused(digits, tmp_path):
    def notes(**values):
        # 112 photos: 4 batches an epoch.
        return plan(recipe(digits, tmp_path, batch_size=32, **values), screen=Screen(show=False)).notes

    assert notes(epochs=3, accumulate=6) == notes(epochs=3) == []
    assert notes(epochs=3, accumulate=5) == ["the last 2 of the 12 batches of phase all make no step (accumulate 5)"]
    with pytest.raises(RecipeError, match=r"no step in phase all, which has 12 batches; use at most 12\."):
        notes(epochs=3, accumulate=13)


def test_a_saved_model_can_be_trained_on_by_plain_keras(small_run, pretrained_run):
    for run in (small_run, pretrained_run):
        model = keras.saving.load_model(run.model_keras)
        assert all(layer.trainable for layer in model.layers)
        momenta = {layer.momentum for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)}
        assert momenta == {0.99}


def test_muon_is_refused_where_it_would_be_adamw_for_all_but_the_head(tmp_path):
    for base, said in (("efficientnet_b0", "efficientnet_b0"), (None, "mobilenet_v2")):
        with pytest.raises(RecipeError, match=f"^muon turns matrices alone, and {said} has none below its head; "):
            # The data is not even looked for: it does not exist.
            kerastk.train(kerastk.Finetune(data=str(tmp_path / "nowhere"), base=base, optimizer="muon"))
    asked = kerastk.Finetune(base="convnext_tiny", optimizer="muon")
    assert settle(asked).optimizer == "muon"


def test_what_is_no_recipe_is_refused():
    with pytest.raises(RecipeError, match=r"train takes a recipe, such as .*; got .photos/.\."):
        kerastk.train("photos/")


def test_a_class_name_that_is_no_utf8_survives_a_run(digits, tmp_path):
    photos = tmp_path / "photos"
    for digit, name in (("0", os.fsdecode(b"caf\xe9")), ("1", "esc\x1b[31m $x_")):
        shutil.copytree(digits / digit, photos / name)
    run = kerastk.train(quick(photos, tmp_path))
    assert run.labels["classes"] == [os.fsdecode(b"caf\xe9"), "esc\x1b[31m $x_"]
    assert kerastk.load(run)(photos / "esc\x1b[31m $x_" / "0.png").label in run.labels["classes"]


def test_data_json_lists_every_file(small_run, digits):
    data = small_run.data
    assert len(data["files"]) == 160
    assert {file["split"] for file in data["files"]} == {"train", "val", "test"}
    assert data["counts"]["train"] == {"0": 28, "1": 28, "2": 28, "3": 28}
    assert data["set_aside"] == []


def test_predictions_are_of_the_test_split_in_full(small_run):
    rows = list(csv.DictReader(open(small_run.predictions_csv)))
    wanted = {file["path"] for file in small_run.data["files"] if file["split"] == "test"}
    assert {row["path"] for row in rows} == wanted
    right = sum(row["truth"] == row["prediction"] for row in rows) / len(rows)
    assert right == pytest.approx(small_run.metrics["test"]["accuracy"])


def test_the_seed_decides_the_first_weights(digits, tmp_path):
    def kernel(seed):
        settled = plan(recipe(digits, tmp_path, seed=seed), screen=Screen(show=False))
        return np.array(settled.model.get_layer("head").kernel)

    assert np.array_equal(kernel(0), kernel(0))
    assert not np.array_equal(kernel(0), kernel(1))


def test_event_files_hold_the_curves_on_one_step_counter(pretrained_run):
    def load(split):
        return EventAccumulator(str(pretrained_run.events / split), size_guidance={"tensors": 0, "images": 0}).Reload()

    import tensorflow

    train, validation = load("train"), load("validation")
    steps = -(-112 // 32)
    for events in (train, validation):
        assert [event.step for event in events.Tensors("cross_entropy")] == [steps, 2 * steps, 3 * steps]
    values = [float(tensorflow.make_ndarray(event.tensor_proto)) for event in validation.Tensors("cross_entropy")]
    assert values == pytest.approx([float(row["val_cross_entropy"]) for row in pretrained_run.log])
    rates = [event.step for event in train.Tensors("learning_rate")]
    assert rates == sorted(set(rates))
    assert {"photos_per_second", "wait_share", "augmented training photos", "confusion matrix (test)"} <= set(
        train.Tags()["tensors"]
    )
    grid = tensorflow.make_ndarray(train.Tensors("augmented training photos")[0].tensor_proto)
    assert tensorflow.io.decode_png(grid[2]).shape == (4 * 32, 8 * 32, 3)
    assert "_hparams_/session_start_info" in train.Tags().get("tensors", []) + list(train.summary_metadata)


def test_users_callbacks_are_called_in_every_phase_and_named_when_stateless(digits, small_run, tmp_path, capsys):
    class Count(keras.callbacks.Callback):
        epochs = 0

        def on_epoch_end(self, epoch, logs=None):
            self.epochs += 1

    count = Count()
    recipe = kerastk.Finetune(
        data=str(digits), weights=str(small_run.path), probe="train", head_epochs=1, epochs=2, runs=str(tmp_path)
    )
    kerastk.train(recipe, callbacks=[count])
    assert count.epochs == 3
    assert "Count: no get_state and set_state" in " ".join(capsys.readouterr().out.split())


def test_a_list_and_a_data_frame_stand_for_data(digits, tmp_path):
    rows = [(str(path), path.parent.name) for path in sorted(digits.glob("*/*.png"))]
    frame = pandas.DataFrame(rows, columns=["path", "label"])
    bare = dataclasses.replace(quick(digits, tmp_path), data=None)
    run = kerastk.train(bare, data=frame, show=False)
    assert run.path.name == "table-fast-4-1"
    assert run.data["sha256"] == kerastk.open_data(bare, data=rows).manifest.sha256
    with pytest.raises(RecipeError, match="data is given twice"):
        kerastk.train(quick(digits, tmp_path), data=rows)


def test_85_15_has_no_test_split_and_says_so(digits, tmp_path, capsys):
    run = kerastk.train(quick(digits, tmp_path, split="85/15"))
    assert "test" not in run.metrics
    assert not run.predictions_csv.exists()
    assert "no test split" in capsys.readouterr().out


@pytest.mark.parametrize("unfreeze", ["head", "all", 3])
def test_every_kind_of_unfreezing_runs(unfreeze, digits, small_run, tmp_path):
    values = {} if unfreeze == "head" else {"epochs": 1}
    run = kerastk.train(
        kerastk.Finetune(
            data=str(digits),
            weights=str(small_run.path),
            unfreeze=unfreeze,
            runs=str(tmp_path),
            **values,
        ),
        show=False,
    )
    parameters = json.loads(run.environment_json.read_text())["trainable_parameters"]
    assert parameters["probe"] == 256 * 4 + 4
    assert unfreeze == "head" or parameters["finetune"] > parameters["probe"]
    assert [row["phase"] for row in run.log] == ["probe"] + ["finetune"] * (unfreeze != "head")


def test_mixed_precision_trains_and_saves_float32(digits, tmp_path):
    run = kerastk.train(recipe(digits, tmp_path, precision="bfloat16"), show=False)
    model = keras.saving.load_model(run.model_keras)
    assert {layer.dtype_policy.name for layer in model.layers} == {"float32"}
    assert np.isfinite(run.metrics["validation"]["cross_entropy"])


def test_weights_of_another_base_or_a_broken_run_are_refused(digits, small_run, tmp_path):
    with pytest.raises(RecipeError, match="base vgg16 does not fit the weights"):
        kerastk.train(kerastk.Finetune(data=str(digits), base="vgg16", weights=str(small_run.path)))
    with pytest.raises(RecipeError, match="image_size must be that of"):
        kerastk.train(kerastk.Finetune(data=str(digits), image_size=64, weights=str(small_run.path)))
    broken = copy_with(small_run, tmp_path / "broken", **{"model.keras": b"no model"})
    with pytest.raises(WeightsError, match="cannot load"):
        kerastk.train(kerastk.Finetune(data=str(digits), weights=str(broken)))
    with pytest.raises(WeightsError, match="no weights at"):
        kerastk.train(kerastk.Finetune(data=str(digits), weights="nowhere.h5"))


def test_too_many_stages_are_refused(digits, small_run, tmp_path):
    with pytest.raises(RecipeError, match=r"unfreeze 40: .* has 5"):
        kerastk.train(kerastk.Finetune(data=str(digits), weights=str(small_run.path), unfreeze=40))


@pytest.mark.parametrize(
    ("batch_size", "said"),
    [(32, "the loss is no longer a number at epoch 1, batch 2"), (112, "val_cross_entropy .* after epoch 1")],
)
def test_a_loss_that_is_no_number_is_one_line(batch_size, said, digits, tmp_path):
    class Poison(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.trainable_variables[0].assign(self.model.trainable_variables[0] * float("nan"))

    # After the only batch of an epoch the rate of the schedule is 0 already.
    with pytest.raises(Diverged, match=rf"{said}, learning rate up to 0\.0005; try --learning-rate 5e-05 or"):
        kerastk.train(quick(digits, tmp_path, batch_size=batch_size), callbacks=[Poison()], show=False)


def test_a_photo_that_vanishes_in_mid_run_is_named(digits, tmp_path):
    photos = tmp_path / "photos"
    shutil.copytree(digits, photos)

    class Remove(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            for path in photos.glob("2/*.png"):
                path.unlink()

    with pytest.raises(DataError, match=r"2/\d+.png: No such file or directory"):
        kerastk.train(quick(photos, tmp_path, epochs=3), callbacks=[Remove()], show=False)


def test_build_and_open_data_serve_a_loop_of_ones_own(digits, tmp_path):
    mine = quick(digits, tmp_path, batch_size=16)
    model = kerastk.build(mine)
    data = kerastk.open_data(mine)
    model.compile("adam", "categorical_crossentropy")
    for images, labels in data.train:
        assert images.shape == (16, 12, 12, 3)
        assert images.dtype == np.uint8
        loss = model.train_on_batch(images, labels)
    assert np.isfinite(loss)
    assert sum(len(images) for images, _ in data.test) == 24
    assert not (tmp_path / "runs").exists()


def test_check_finds_what_it_should_from_python(digits, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (20, 20), "red").save(tmp_path / name / "same.png")
    kinds = {finding.kind for finding in kerastk.check(tmp_path).findings}
    assert kinds == {"two-labels", "tiny-class"}
