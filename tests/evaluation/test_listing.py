import json
import os
import shutil

import pytest
from click.testing import CliRunner

from kerastk.cli import commands
from kerastk.evaluation.listing import runs as listed
from kerastk.run import Run


def invoke(*arguments):
    done = CliRunner().invoke(commands, ["runs", *map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == 0
    return done.output


@pytest.fixture
def folder(make_run, tmp_path):
    """Runs of all sorts, and what is none."""
    done, stopped = make_run("done", classes=["a", "b"], seed=2), make_run("stopped", classes=["a", "b"], seed=1)
    stopped.metrics_json.unlink()
    damaged = make_run("damaged", classes=["a", "b"])
    damaged.metrics_json.write_text('{"test": {"accuracy": "high"}}')
    folder = done.path.parent
    (folder / "bare").mkdir()
    (folder / "bare" / "recipe.toml").write_text("task = 7")
    (folder / "notes").mkdir()
    (folder / "notes" / "x.txt").write_text("x")
    (folder / "file").write_text("x")
    (folder / "linked").mkdir()
    (folder / "linked" / "environment.json").symlink_to("/etc/passwd")
    return folder


def test_runs_of_all_sorts_are_listed_the_newest_first(folder):
    found = {run.name: run for run in listed(folder)}
    assert list(found)[-3:] == ["done", "stopped", "damaged"]
    states = {name: run.state for name, run in found.items()}
    assert states == {
        "done": "complete", "stopped": "interrupted", "damaged": "damaged", "bare": "damaged", "linked": "damaged",
    }  # fmt: skip
    figures = Run(folder / "done").metrics
    assert (found["done"].measure, found["done"].score) == ("accuracy", figures["test"]["accuracy"])
    assert found["done"].score_95 == tuple(figures["test"]["accuracy_95"])
    assert (found["done"].network, found["done"].data, found["done"].seconds) == ("mobilenet_v2", "photos", 20.0)
    assert found["stopped"].seconds == 12.0
    assert found["damaged"].error.endswith("metrics.json is damaged.")
    assert "is a link" in found["linked"].error


def test_the_table_and_the_json_hold_the_same(folder):
    rows = {line.split()[0]: line for line in invoke(folder).splitlines()}
    as_json = json.loads(invoke(folder, "--json"))
    assert {run["name"] for run in as_json} == {"done", "stopped", "damaged", "bare", "linked"}
    done = next(run for run in as_json if run["name"] == "done")
    assert f"accuracy {100 * done['score']:.1f} %" in rows["done"]
    assert "2026-01-03 10:00" in rows["done"]
    assert "interrupted" in rows["stopped"]


def test_taggers_are_listed_with_their_own_figure(make_run, make_tagger_run, tmp_path):
    make_run("photos", classes=["a", "b"])
    names, words = make_tagger_run("names"), make_tagger_run("words", types=("DET", "NOUN"), plain=True, cell="gru")
    rows = {line.split()[0]: line for line in invoke(names.path.parent).splitlines()}
    assert f" F1 {100 * names.metrics['test']['f1']:.1f} % " in rows["names"]
    assert f" accuracy {100 * words.metrics['test']['token_accuracy']:.1f} % " in rows["words"]
    assert [rows[name].split()[-2] for name in ("names", "words")] == ["lstm-crf", "gru-crf"]
    found = {run["name"]: run for run in json.loads(invoke(names.path.parent, "--json"))}
    assert [found[name]["measure"] for name in ("photos", "names", "words")] == ["accuracy", "F1", "accuracy"]
    assert found["names"]["score_95"] == names.metrics["test"]["f1_95"]
    assert [found[name]["task"] for name in ("photos", "names")] == ["finetune", "tag"]


def test_autoencoders_are_listed_with_their_error_which_is_no_share(make_run, make_autoencoder_run):
    make_run("photos", classes=["a", "b"])
    plain = make_autoencoder_run("plain")
    make_autoencoder_run("drawn", variational=True)
    make_autoencoder_run("small", scale=0.001, spread=0.001)
    make_autoencoder_run("large", scale=1e4)
    rows = {line.split()[0]: line for line in invoke(plain.path.parent).splitlines()}
    figures = {name: Run(plain.path.parent / name).metrics["test"] for name in rows if name not in ("run", "photos")}
    low, high = figures["plain"]["error_95"]
    assert f" error {figures['plain']['error']:.2f}  " in rows["plain"]
    assert f" {low:.2f} to {high:.2f} " in rows["plain"]
    assert "%" not in rows["plain"]
    assert f" error {figures['small']['error']:.3g}  " in rows["small"]
    assert f" error {figures['large']['error']:,.2f}  " in rows["large"]
    assert [rows[name].split()[-2] for name in ("plain", "drawn")] == ["dense-4", "variational-4"]
    found = {run["name"]: run for run in json.loads(invoke(plain.path.parent, "--json"))}
    assert [found[name]["measure"] for name in ("photos", "plain")] == ["accuracy", "error"]
    assert found["plain"]["score"] == figures["plain"]["error"]
    assert found["plain"]["score_95"] == figures["plain"]["error_95"]
    assert found["plain"]["task"] == "autoencode"


def test_an_error_beyond_all_bounds_is_damage(make_autoencoder_run, make_run):
    run, photos = make_autoencoder_run("wide"), make_run("photos", classes=["a", "b"])
    for each, name, value in ((run, "error", 1e16), (photos, "accuracy", 1.5)):
        content = each.metrics
        content["test"][name] = value
        each.write_metrics(content)
    assert {each.name: each.state for each in listed(run.path.parent)} == {"wide": "damaged", "photos": "damaged"}


def test_a_run_that_another_process_trains_is_running(folder):
    run = Run(folder / "stopped")
    with run.lock():
        assert {each.name: each.state for each in listed(folder)}["stopped"] == "running"
        # Looking takes the lock from nobody.
        assert "process" in (run.checkpoint / "lock").read_text()
    assert {each.name: each.state for each in listed(folder)}["stopped"] == "interrupted"


def test_an_empty_folder_has_no_runs(tmp_path):
    assert invoke(tmp_path) == f"no runs in {tmp_path}\n"


@pytest.mark.parametrize("name", ["environment.json", "recipe.toml", "log.csv", "metrics.json", "labels.json"])
@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b'{"format": 1}', b"[" * 100_000, b"epoch\n1\n", None])
@pytest.mark.parametrize("task", ["finetune", "tag", "autoencode"])
def test_no_damage_is_more_than_a_row(task, name, content, make_run, make_tagger_run, make_autoencoder_run):
    if task == "autoencode":
        run = make_autoencoder_run("hit", items=4)
    else:
        run = make_run("hit", classes=["a", "b"]) if task == "finetune" else make_tagger_run("hit", sentences=3)
    if name == "log.csv":
        run.metrics_json.unlink()
    path = run.path / name
    path.unlink(missing_ok=True)
    if content is None:
        os.mkfifo(path)
    else:
        path.write_bytes(content)
    (found,) = listed(run.path.parent)
    assert found.name == "hit"
    assert "\n" not in (found.error or "")
    shutil.rmtree(run.path)
