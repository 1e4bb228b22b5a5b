import json

import pytest

from kerastk.errors import RunError
from kerastk.recipe import Finetune
from kerastk.run import FORMAT, Run, next_name


def test_names_count_up(tmp_path):
    assert next_name(tmp_path / "none", "photos-resnet50") == "photos-resnet50-1"
    for name in ("photos-resnet50-1", "photos-resnet50-9", "photos-resnet50-x", "other-12"):
        (tmp_path / name).mkdir()
    assert next_name(tmp_path, "photos-resnet50") == "photos-resnet50-10"


def test_an_existing_name_is_refused(tmp_path):
    Run.create(tmp_path, "a")
    with pytest.raises(RunError, match="exists already"):
        Run.create(tmp_path, "a")


def test_a_file_in_the_place_of_the_runs_folder_is_one_line(tmp_path):
    (tmp_path / "runs").write_text("")
    with pytest.raises(RunError, match=r"exists already|Not a directory"):
        Run.create(tmp_path / "runs", "a")


@pytest.mark.parametrize("content", [None, "", "[]", "{", '{"format": 999}'])
def test_a_folder_that_is_no_run_is_refused(content, tmp_path):
    if content is not None:
        (tmp_path / "environment.json").write_text(content)
    with pytest.raises(RunError):
        Run.open(tmp_path)


def test_a_finished_run_reads_back(small_run):
    run = Run.open(small_run.path)
    assert isinstance(run.recipe, Finetune)
    assert run.recipe.epochs == 8
    assert run.labels["classes"] == ["0", "1", "2", "3"]
    assert json.loads(run.environment_json.read_text())["format"] == run.labels["format"] == FORMAT
    assert [int(row["epoch"]) for row in run.log] == list(range(1, len(run.log) + 1))


def test_missing_and_damaged_files_are_one_line(tmp_path):
    run = Run.create(tmp_path, "a")
    with pytest.raises(RunError, match=r"has no metrics.json: the run did not come so far"):
        _ = run.metrics
    run.metrics_json.write_text("{")
    with pytest.raises(RunError, match="is damaged"):
        _ = run.metrics
