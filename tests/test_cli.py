import csv
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

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
    assert (
        "is below the demanded 1"
        in refused("evaluate", small_run.path, digits, "--assert-accuracy", 1.0, kind=GateError)
        or figures["accuracy"] == 1
    )


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
