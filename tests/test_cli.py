import csv
import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import kerastk
from kerastk.cli import commands, main
from kerastk.datasets.images import decode
from kerastk.errors import GateError, KerastkError, RecipeError, RunError
from kerastk.run import Run


def invoke(*arguments):
    return CliRunner().invoke(commands, [str(each) for each in arguments], catch_exceptions=False)


def refused(*arguments, kind=KerastkError):
    result = CliRunner().invoke(commands, [str(each) for each in arguments])
    assert isinstance(result.exception, kind), result.output
    return str(result.exception)


def process(*arguments, **environment):
    command = [sys.executable, "-m", "kerastk", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | environment)


def test_a_mistake_is_one_line_and_exit_code_2(tmp_path, monkeypatch, capfd):
    for arguments in (
        ["finetune"],
        ["finetune", tmp_path / "none"],
        ["finetune", tmp_path, "--base", "resnet5"],
        ["finetune", tmp_path, "--epochs", "none"],
        ["finetune", tmp_path, "--dry-run", "--assert-accuracy", "0.9"],
        ["predict", tmp_path, tmp_path],
        ["predict", tmp_path, tmp_path, "--out", "x.xls"],
        ["train", "flower"],
        ["check", tmp_path],
        ["evaluate", tmp_path, tmp_path],
        ["embed", tmp_path / "none", "--out", "x.npz"],
        ["embed", tmp_path, "--out", "x.csv"],
        ["finetune", tmp_path, "--cache", "off", "--views", "3"],
        ["finetune", tmp_path, "--cache-size", "lots"],
        ["weights", "fetch", "nothing"],
        ["train", tmp_path / "none.toml"],
        ["report", tmp_path / "none"],
        ["report", tmp_path],
        ["report", tmp_path, "--out", "x.pdf"],
        ["autoencode"],
        ["autoencode", tmp_path / "none.npy"],
        ["autoencode", tmp_path, "--latent", "0"],
        ["autoencode", tmp_path, "--dry-run", "--assert-error", "1"],
        ["check", tmp_path / "none.npy"],
        ["check", tmp_path, "--label-column", "x"],
        ["embed", tmp_path, tmp_path, tmp_path, "--out", "x.npz"],
        ["embed", tmp_path, tmp_path, "--out", "x.npz"],
        ["lr-find", tmp_path / "none.npy"],
        ["runs", tmp_path / "none"],
    ):
        monkeypatch.setattr(sys, "argv", ["kerastk", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capfd.readouterr()
        assert ended.value.code == 2, arguments
        assert len(err.strip().splitlines()) == 1, (arguments, err)
        assert err.startswith("kerastk: ")
        assert out == ""


def test_click_usage_errors_exit_2_too():
    done = process("finetune", "--no-such-option")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_bases_and_recipes_are_listed():
    assert "resnet50_v2" in invoke("bases").output
    assert {line.split()[0] for line in invoke("recipes").output.splitlines()} >= {"digits", "flowers"}


def test_finetune_help_is_grouped_with_common_options_first():
    text = invoke("finetune", "--help").output
    heads = ["Common options:", "Data options:", "Network options:", "Training options:", "Output options:"]
    places = [text.index(head) for head in heads]
    assert places == sorted(places)
    assert places[0] < text.index("--base") < places[1] < text.index("--max-bad") < places[2]


def test_train_help_needs_no_recipe_and_shows_the_options_of_one():
    assert "NAME|FILE" in invoke("train").output
    assert "--head-epochs" in invoke("train", "digits", "--help").output


def test_a_recipe_is_called_with_hyphens_or_underscores_and_the_nearest_names_are_told():
    for name in ("mnist-fast", "mnist_fast", "few-photos"):
        assert "--learning-rate" in invoke("train", name, "--help").output
    for name, near in (
        ("mnist", "did you mean mnist-autoencoder or mnist-denoising or .* or mnist-fast or "),
        ("flower", "did you mean flowers or flowers-inception_v3 or "),
        ("cifar10-resnet", r"did you mean cifar10-resnet20\?"),
        ("qqq", "shipped: cats_dogs, cifar10-fast, "),
    ):
        message = refused("train", name, kind=RecipeError)
        assert re.match(f"no recipe is called '{name}'; {near}", message)


def test_a_recipe_of_another_task_is_refused_naming_both(tmp_path, monkeypatch):
    from kerastk import recipe

    class Tag(recipe.Recipe):
        task = "tag"

    monkeypatch.setitem(recipe.TASKS, "tag", Tag)
    (tmp_path / "tag.toml").write_text('task = "tag"\n')
    message = refused("finetune", "--recipe", tmp_path / "tag.toml", kind=RecipeError)
    assert "tag" in message
    assert "finetune" in message


def test_dry_run_prints_recipe_split_and_phases_and_writes_nothing(digits, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = invoke("finetune", digits, "--base", "mobilenet-0.25", "--image-size", 64, "--unfreeze", 2, "--dry-run")
    assert result.exit_code == 0
    assert 'base = "mobilenet_0.25"' in result.output
    assert 'name = "digits-mobilenet_0.25-1"' in result.output
    assert "all      112   24    24" in result.output
    assert "finetune: the head and the top 2 stages" in result.output
    assert os.listdir(tmp_path) == []


def test_only_explicit_options_override_a_file(digits, tmp_path):
    (tmp_path / "r.toml").write_text(
        f'task = "finetune"\ndata = {json.dumps(str(digits))}\nbase = "mobilenet_0.25"\nimage_size = 32\n'
        'batch_size = 8\nepochs = 7\nweights = "none"\nstrict = false\n'
    )
    text = invoke("train", tmp_path / "r.toml", "--epochs", 2, "--runs", tmp_path / "runs", "--dry-run").output
    assert "epochs = 2\n" in text
    assert "batch_size = 8\n" in text


def test_the_three_lines_of_the_readme(digits, tmp_path):
    runs = tmp_path / "runs"
    options = ["--base", "mobilenet_0.25", "--weights", "none", "--image-size", 32, "--epochs", 1, "--runs", runs]
    done = process("finetune", digits, *options)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "tensorboard --logdir" in done.stdout
    run = runs / "digits-mobilenet_0.25-1"
    assert {path.name for path in run.iterdir()} == {
        "recipe.toml", "environment.json", "data.json", "log.csv", "events", "model.keras", "labels.json",
        "metrics.json", "mistakes.json", "predictions.csv", "report.html",
    }  # fmt: skip
    command = " ".join(map(str, ["kerastk", "finetune", digits, *options]))
    assert json.loads((run / "environment.json").read_text())["command"] == command

    done = process("predict", run, digits / "0", "--out", tmp_path / "answers.csv", "--top", 3)
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader(open(tmp_path / "answers.csv")))
    assert len(rows) == 40
    assert list(rows[0]) == ["path", "label", "probability", "label_2", "probability_2", "label_3", "probability_3",
                             "error"]  # fmt: skip


def test_a_taken_name_is_refused(digits, small_run):
    message = refused("finetune", digits, "--runs", small_run.path.parent, "--name", small_run.path.name, kind=RunError)
    assert "exists already" in message


def test_evaluate_warns_of_photos_that_were_trained_on_and_gates(small_run, digits, tmp_path):
    result = invoke("evaluate", small_run.path, digits, "--out", tmp_path / "figures.json")
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert "was trained on 136 of these 160 photos" in " ".join(result.output.split())
    assert (figures["photos"], figures["trained_on"], figures["unseen"]["photos"]) == (160, 136, 24)
    assert figures["unseen"]["accuracy"] == pytest.approx(small_run.metrics["test"]["accuracy"])
    mixed = tmp_path / "mixed"
    shutil.copytree(digits, mixed)
    (mixed / "0" / "0.png").rename(mixed / "1" / "of another class.png")
    said = refused("evaluate", small_run.path, mixed, "--assert-accuracy", 1.0, kind=GateError)
    assert "is below the demanded 1" in said


def test_evaluate_and_predict_average_views(small_run, digits, tmp_path):
    figures, plain = tmp_path / "figures.json", tmp_path / "plain.json"
    invoke("evaluate", small_run.path, digits, "--tta", "mirror,shift", "--out", figures)
    invoke("evaluate", small_run.path, digits, "--out", plain)
    views, plain = json.loads(figures.read_text()), json.loads(plain.read_text())
    assert views["tta"] == "mirror,shift"
    assert "tta" not in plain
    assert views["cross_entropy"] != plain["cross_entropy"]
    photo = digits / "3" / "1.png"
    label, probability = kerastk.load(small_run, tta="mirror")(photo)
    assert f"{label} {probability:.3f}" in invoke("predict", small_run.path, photo, "--tta", "mirror").output
    assert "got 'flip'" in refused("predict", small_run.path, photo, "--tta", "flip")


def test_evaluate_refuses_a_class_the_model_does_not_know(small_run, tmp_path, digits):
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "a.png").write_bytes((digits / "0" / "0.png").read_bytes())
    assert "does not know the class 'cat'; it knows '0', '1'" in refused("evaluate", small_run.path, tmp_path)


def test_check_shows_findings_and_writes_all(digits, tmp_path):
    folder = tmp_path / "photos"
    for label in ("a", "b"):
        (folder / label).mkdir(parents=True)
        for number in range(10):
            (folder / label / f"{number}.png").write_bytes(
                (digits / str(ord(label) - 97) / f"{number}.png").read_bytes()
            )
    (folder / "a" / "[bold]broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    result = invoke("check", folder, "--out", tmp_path / "findings.json")
    assert "[bold]broken.jpg" in result.output
    found = json.loads((tmp_path / "findings.json").read_text())
    assert [(f["kind"], f["paths"]) for f in found if f["kind"] == "damaged"] == [("damaged", ["a/[bold]broken.jpg"])]
    assert "findings" in refused("check", folder, "--strict", kind=GateError)


def test_a_gate_that_is_not_met_is_exit_code_1(small_run, digits):
    done = process("evaluate", small_run.path, digits, "--assert-accuracy", "1.0")
    accuracy_line = next(line for line in done.stdout.splitlines() if line.startswith("all"))
    assert done.returncode == (0 if "accuracy 100.0 %" in accuracy_line else 1)


def test_a_gate_of_nan_is_never_met(small_run, digits):
    assert "below the demanded nan" in refused(
        "evaluate", small_run.path, digits, "--assert-accuracy", "nan", kind=GateError
    )


def test_predicting_an_empty_folder_is_an_error_and_leaves_no_file(small_run, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "there is no file in" in refused(
        "predict", small_run.path, tmp_path / "empty", "--out", tmp_path / "x.csv", kind=KerastkError
    )
    assert not (tmp_path / "x.csv").exists()


def test_augment_shows_each_photo_as_it_is_and_as_the_epochs_show_it(digits, tmp_path):
    out = tmp_path / "grid.png"
    options = ["--policy", "crop:0.3,rotate,jitter:0.3", "--photos", 3, "--views", 4, "--image-size", 32, "--out", out]
    invoke("augment", digits, *options)
    grid = np.asarray(Image.open(out))
    assert grid.shape == (3 * 32, 5 * 32, 3)
    tiles = grid.reshape(3, 32, 5, 32, 3).swapaxes(1, 2)
    # The first tile of a row is a photo of the folder, the others are neither it nor each other.
    plain = {decode(path.read_bytes(), 32, resize="crop").tobytes() for path in digits.rglob("*.png")}
    assert all(row[0].tobytes() in plain for row in tiles)
    assert all(len({tile.tobytes() for tile in row}) == 5 for row in tiles)
    # What a run with this seed shows, whatever else is asked for.
    invoke("augment", digits, *options[:2], "--photos", 3, "--views", 2, "--image-size", 32, "--out", out)
    assert np.array_equal(np.asarray(Image.open(out)), grid[:, : 3 * 32])


def test_augment_refuses_before_anything_is_read(tmp_path):
    assert "Did you mean strong?" in refused(
        "augment", tmp_path / "none", "--policy", "stron", "--out", tmp_path / "x.png", kind=RecipeError
    )
    assert "--out must end in .png" in refused(
        "augment", tmp_path / "none", "--out", tmp_path / "x.jpg", kind=RecipeError
    )


def test_predict_gives_probabilities_before_calibration_on_request(small_run, digits):
    given, calibrated, uncalibrated = (
        invoke("predict", small_run.path, digits / "0", *option).output
        for option in ((), ("--calibrated",), ("--uncalibrated",))
    )
    assert given == calibrated
    lines = [[line.split()[:2] for line in said.splitlines()] for said in (given, uncalibrated)]
    assert lines[0] == lines[1]
    assert given != uncalibrated


def test_report_and_runs_know_a_finished_run(small_run, tmp_path):
    assert invoke("report", small_run.path, "--out", tmp_path / "x.html").output == f"{tmp_path / 'x.html'}\n"
    assert (tmp_path / "x.html").read_text() == small_run.report_html.read_text()
    accuracy = small_run.metrics["test"]["accuracy"]
    assert f"{100 * accuracy:.1f} %" in invoke("runs", small_run.path.parent).output
    (listed,) = json.loads(invoke("runs", small_run.path.parent, "--json").output)
    found = (listed["state"], listed["measure"], listed["score"], listed["network"])
    assert found == ("complete", "accuracy", accuracy, "mobilenet_0.25")


def test_an_f1_of_tags_without_spans_is_refused_before_anything_is_trained(small_run, digits, tmp_path, monkeypatch):
    for module in ("learning", "answering"):
        monkeypatch.setattr(f"kerastk.cli.{module}.start_backend", lambda: pytest.fail("the backend was started"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plain.conll").write_text("".join(f"dog{number}\tNOUN\nruns\tVERB\n\n" for number in range(20)))
    said = refused("tag", "plain.conll", "--assert-f1", 0.9, kind=RecipeError)
    assert said == "--assert-f1 counts spans, and the tags of plain.conll are plain; use --assert-accuracy."
    assert os.listdir(tmp_path) == ["plain.conll"]
    plain = Run.create(tmp_path, "plain")
    plain.write_environment({})
    plain.write_labels(["NOUN", "VERB"], {"task": "tag", "scheme": "plain"})
    expected = f"--assert-f1 counts spans, and the tags of {plain.path} are plain; use --assert-accuracy."
    assert refused("resume", plain.path, "--assert-f1", 0.9, kind=RecipeError) == expected
    said = refused("evaluate", small_run.path, digits, "--assert-f1", 0.9, kind=RecipeError)
    assert said == f"--assert-f1 counts spans, and {small_run.path} is no tagger; use --assert-accuracy."


def test_dry_run_of_a_tagger_prints_recipe_split_and_phase_and_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = invoke("tag", "kerastk:names", "--width", 24, "--epochs", 3, "--dry-run")
    assert result.exit_code == 0
    # What is printed of the recipe is a recipe.
    text = result.output.partition("\n\n")[0]
    (tmp_path / "again.toml").write_text(text)
    again = invoke("train", "again.toml", "--dry-run").output
    # All but why it computes in float32: now it was asked for.
    assert again.splitlines()[:-1] == result.output.splitlines()[:-1]
    assert 'name = "names-lstm-crf-1"' in text
    assert "PER     215   26    28" in result.output
    assert "all     633   90    84" in result.output
    assert "one layer of 24, crf; " in result.output
    assert "phase    train: everything, " in result.output
    assert os.listdir(tmp_path) == ["again.toml"]


# Autoencoders.


def test_dry_run_of_an_autoencoder_prints_recipe_split_and_phase_and_writes_nothing(wines, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r.toml").write_text(
        f'task = "autoencode"\ndata = {json.dumps(str(wines))}\nlabel_column = "cultivar"\nlatent = 3\nwidths = "24"\n'
    )
    result = invoke("autoencode", wines, "--label-column", "cultivar", "--latent", 3, "--widths", 16, "--dry-run")
    assert result.exit_code == 0
    assert 'name = "wines-autoencoder-1"' in result.output
    assert "dense autoencoder, 16-3, swish, mse; " in result.output
    assert ["all", "142", "18", "18"] in [line.split() for line in result.output.splitlines()]
    # A file's options and those given here, by either command.
    both = (["autoencode", "--recipe", "r.toml"], ["train", "r.toml"])
    said = [invoke(*command, "--widths", 16, "--dry-run").output for command in both]
    assert said == [result.output] * 2
    assert os.listdir(tmp_path) == ["r.toml"]
    assert "is a recipe for autoencode, not for tag" in refused("tag", "--recipe", "r.toml", kind=RecipeError)
    assert "--assert-error" in invoke("train", "r.toml", "--help").output


def test_an_autoencoders_error_can_be_demanded(row_code_run, wines, digits, small_run, monkeypatch):
    error = row_code_run.metrics["test"]["error"]
    demand = ["resume", row_code_run.path, "--assert-error"]
    with monkeypatch.context() as patch:
        # It is complete: what comes back is the run.
        patch.setattr("kerastk.resume", lambda *_, **__: row_code_run)
        assert invoke(*demand, error + 0.01).exit_code == 0
        said = refused(*demand, error - 0.01, kind=GateError)
        assert said == f"error {error:.4f} is above the demanded {error - 0.01:g}."
        assert "above the demanded nan" in refused(*demand, "nan", kind=GateError)
    assert "is above the demanded 0.5" in refused(
        "evaluate", row_code_run.path, wines, "--assert-error", 0.5, kind=GateError
    )
    for module in ("learning", "answering"):
        monkeypatch.setattr(f"kerastk.cli.{module}.start_backend", lambda: pytest.fail("the backend was started"))
    for run, data, gate, other in (
        (row_code_run, wines, "accuracy", "error"), (row_code_run, wines, "f1", "error"),
        (small_run, digits, "error", "accuracy"),
    ):  # fmt: skip
        for command in (["evaluate", run.path, data], ["resume", run.path]):
            said = refused(*command, f"--assert-{gate}", 0.5, kind=RecipeError)
            assert said.endswith(f", which {run.path} does not have; use --assert-{other}."), said
    assert CliRunner().invoke(commands, ["resume", str(row_code_run.path), "--assert-error", "-1"]).exit_code == 2


def test_predict_scores_items_on_the_screen_and_in_files(image_code_run, row_code_run, digits, wines, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"x")
    result = invoke("predict", image_code_run.path, digits / "1" / "0.png", tmp_path)
    first, second = (line.split("\t") for line in result.output.splitlines())
    assert (first[0], first[2] in ("normal", "anomaly")) == (str(digits / "1" / "0.png"), True)
    assert second == [f"{tmp_path}/broken.png", "error: not an image kerastk reads (unknown bytes)"]
    result = invoke("predict", row_code_run.path, wines, "--out", tmp_path / "scores.csv")
    rows = list(csv.DictReader(open(tmp_path / "scores.csv")))
    anomalies = sum(row["anomaly"] == "1" for row in rows)
    assert result.output == f"178 items, {anomalies} anomalies, 0 unreadable -> {tmp_path / 'scores.csv'}\n"
    assert 0 < anomalies < 178
    assert (len(rows), list(rows[0])) == (178, ["path", "score", "anomaly", "error"])
    told = {row["path"]: row["score"] for row in row_code_run.predictions}
    assert told
    for row in rows:
        name = os.path.basename(row["path"])
        assert name not in told or float(row["score"]) == pytest.approx(float(told[name]), rel=1e-5)
    result = invoke("predict", image_code_run.path, digits / "1" / "0.png", "--last")
    assert result.stderr.startswith("warning  the threshold was set for the best model")
    assert result.stdout.startswith(str(digits / "1" / "0.png"))


def test_predict_refuses_for_an_autoencoder_what_it_would_not_use(row_code_run, image_code_run, wines, tmp_path):
    for option in (["--top", 2], ["--text", "a"], ["--uncalibrated"], ["--calibrated"]):
        said = refused("predict", row_code_run.path, wines, *option, kind=RecipeError)
        assert said == f"{option[0]} has no effect on an autoencoder; leave it out."
    said = refused("predict", row_code_run.path, wines, "--threads", 2, kind=RecipeError)
    assert said == "--threads has no effect on rows of numbers; leave it out."
    assert "no items given" in refused("predict", row_code_run.path, kind=RecipeError)
    assert "--out must end in" in refused("predict", row_code_run.path, wines, "--out", "x.xls", kind=RecipeError)
    (tmp_path / "empty").mkdir()
    out = tmp_path / "x.csv"
    assert "there is no file in" in refused("predict", image_code_run.path, tmp_path / "empty", "--out", out)
    (tmp_path / "x.npy").write_bytes(b"x")
    for run, data, reason in (
        (row_code_run, tmp_path / "none.csv", "no file or folder"), (row_code_run, tmp_path / "x.npy", "is no array"),
        (row_code_run, tmp_path, "is a folder"), (image_code_run, wines, "is no number"),
    ):  # fmt: skip
        assert reason in refused("predict", run.path, data, "--out", out)
        assert not out.exists()


def test_evaluate_measures_an_autoencoder(image_code_run, row_code_run, digits, wines, tmp_path):
    result = invoke("evaluate", row_code_run.path, wines, "--out", tmp_path / "figures.json")
    figures = json.loads((tmp_path / "figures.json").read_text())
    said = " ".join(result.output.split())
    assert f"error {figures['error']:.2f} an item" in said
    assert (
        f"{100 * figures['anomalies']['above']:.2f} % above the threshold, which was set for 10 % false alarms" in said
    )
    assert "trained on 160 of these 178 items" in said
    assert f"unseen error {figures['unseen']['error']:.2f} an item" in said
    figures = invoke("evaluate", image_code_run.path, digits).output
    assert "anomalies: AUROC 0." in figures
    assert "column 'cultivar': 'cultivar 0' is no number" in refused("evaluate", image_code_run.path, wines)


def test_embed_writes_the_codes_of_a_run(row_code_run, small_run, wines, digits, tmp_path):
    out = tmp_path / "codes.npz"
    result = invoke("embed", row_code_run.path, wines, "--out", out)
    assert result.output == f"178 items of 3 values each, 0 unreadable left out -> {out}\n"
    found = np.load(out)
    assert (found["vector"].shape, found["path"][2], found["label"][2]) == ((178, 3), "wines.csv#2", "cultivar 0")
    # And can be learned from.
    assert "178 rows of 3 numbers; 3 classes of 48 to 71" in invoke("check", out).output
    for option, value in (("--base", "resnet50"), ("--weights", "none"), ("--image-size", 32), ("--cache", "off"),
                          ("--threads", 2), ("--device", "cpu")):  # fmt: skip
        said = refused("embed", row_code_run.path, wines, option, value, "--out", out, kind=RecipeError)
        assert said == f"{option} has no effect on the codes of an autoencoder; leave it out."
    said = refused("embed", small_run.path, digits, "--out", out, kind=RecipeError)
    assert said == f"{small_run.path} is no run of an autoencoder; leave it out to embed photos by --base."
    said = refused("embed", row_code_run.path, wines, wines, "--out", out, kind=RecipeError)
    assert said == "embed takes DATA, or a RUN and DATA; got 3 arguments."
    assert CliRunner().invoke(commands, ["embed", "--out", str(out)]).exit_code == 2


def test_check_says_what_arrays_were_taken_for(wines, tmp_path):
    said = invoke("check", wines, "--label-column", "cultivar").output.splitlines()
    assert said[0] == "178 rows of 13 numbers; 3 classes of 48 to 71"
    assert said[1].startswith("columns  alcohol, malic_acid, ")
    assert said[2:] == ["no findings"]
    assert "column 'cultivar': 'cultivar 0' is no number" in refused("check", wines)
    images = np.random.default_rng(0).random((12, 4, 5)) > 0.5
    images[3] = images[1]
    np.savez(tmp_path / "x.npz", x_train=images[:8], y_train=[0, 1] * 4, x_test=images[8:] * 1.0, y_test=[0] * 4)
    result = invoke("check", tmp_path / "x.npz", "--out", tmp_path / "findings.json")
    said = result.output.splitlines()
    assert said[:4] == [
        "12 images of 4 x 5 x 1, uint8; 2 classes of 4 to 8", "from     x.npz/x_train (8), x.npz/x_test (4)",
        "splits   train 8, test 4", "note     x.npz/x_test: values from 0 to 1 became 0 to 255, round(255 x)",
    ]  # fmt: skip
    assert "finding  copies inside a class: 1, such as x.npz/x_train#1 = x.npz/x_train#3 (the same bytes)" in said
    found = json.loads((tmp_path / "findings.json").read_text())
    assert {each["kind"] for each in found} == {"copies", "tiny-class"}
    assert "findings" in refused("check", tmp_path / "x.npz", "--strict", kind=GateError)
    for options in (["--dev", "x"], ["--columns", "word,tag"]):
        assert "x.npz' holds arrays." in refused("check", tmp_path / "x.npz", *options, kind=RecipeError)
    np.save(tmp_path / "x.npy", np.zeros((20, 3), np.float32))
    assert invoke("check", tmp_path / "x.npy").output.startswith("20 rows of 3 numbers; no labels\n")


def test_check_from_python_takes_arrays(wines):
    import kerastk

    assert len(kerastk.check(np.zeros((3, 4), np.float32)).photos) == 3
    look = kerastk.check((np.eye(4, dtype=np.uint8)[:, None].repeat(2, axis=1), ["a", "b", "a", "b"]))
    assert [photo.label for photo in look.photos] == ["a", "b", "a", "b"]
    assert len(kerastk.check(wines, label_column="cultivar").photos) == 178
    with pytest.raises(KerastkError, match="label column 'x' would not be used"):
        kerastk.check([("a.jpg", "cat")], label_column="x")


def test_a_learning_rate_is_found_for_the_recipe_of_an_autoencoder(wines, tmp_path):
    path, out = tmp_path / "r.toml", tmp_path / "rate.png"
    path.write_text(
        f'task = "autoencode"\ndata = {json.dumps(str(wines))}\nlabel_column = "cultivar"\nlatent = 3\nwidths = "16"\n'
    )
    result = invoke("lr-find", path, "--out", out)
    assert result.output.splitlines()[-1].startswith("--learning-rate ")
    assert 1e-7 < float(result.output.splitlines()[-1].split()[1]) < 10
    assert out.read_bytes().startswith(b"\x89PNG")
    said = refused("lr-find", path, "--base", "resnet50", "--out", out, kind=RecipeError)
    assert said.startswith("autoencode has no option 'base'.")
    np.save(tmp_path / "x.npy", np.zeros((20, 3), np.float32))
    said = refused("lr-find", tmp_path / "x.npy", "--out", out, kind=RecipeError)
    assert said.endswith("x.npy' holds arrays; give the file of a recipe of autoencode that names them.")
