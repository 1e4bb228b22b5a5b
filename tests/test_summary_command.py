import json
import sys

import pytest
from click.testing import CliRunner
from rich.console import Console

from kerastk.cli import commands, main
from kerastk.evaluation.summary_table import amount, table
from kerastk.networks.summary import Row


def shown(*arguments):
    result = CliRunner().invoke(commands, ["summary", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def as_json(*arguments):
    return json.loads(shown(*arguments, "--json"))


@pytest.fixture
def refused(monkeypatch, capfd):
    """What the command says, in its one line, of arguments that it does not take."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["kerastk", "summary", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capfd.readouterr()
        assert (ended.value.code, out) == (2, "")
        (line,) = err.strip().splitlines()
        return line

    return run


def test_a_base_is_shown_by_its_stages_and_what_they_come_to():
    text = shown("ResNet-50")
    lines = text.splitlines()
    assert [line.split()[0] for line in lines[:6]] == ["layer", *(f"stage_{number}" for number in range(1, 6))]
    assert lines[0].split() == ["layer", "kind", "output", "parameters", "mult-adds", "sees", "stride"]
    assert lines[5].split()[-5:] == ["14,998,528", "732.2", "M", "483", "32"]
    assert "network  resnet50: 224 x 224 x 3 -> 2048\n" in text
    assert "weights  23,587,712 parameters (23,534,592 trained), 94.4 MB in float32\n" in text
    assert "work     3.856 G multiply-adds (7.712 G FLOPs) for an image\n" in text
    assert "a place of the last maps sees 483 x 483 pixels of the image; places are 32 pixels apart\n" in text


def test_all_operations_are_shown_on_request_and_where_they_are_few():
    assert "\nconv4_block2_1_conv " in shown("resnet50", "--all")
    text = shown("vgg16")
    assert "\nblock5_conv3 " in text
    assert "stage_1" not in text


def test_size_and_head_are_those_asked_for():
    found = as_json("mobilenet_v2_0.35", "--image-size", 96, "--classes", 10)
    assert found["inputs"] == {"photo": [96, 96, 3]}
    assert found["rows"][-1]["shape"] == [10]
    assert as_json("mobilenet_v2_0.35", "--image-size", 96)["rows"][-1]["shape"] == [1280]


def test_json_holds_all_of_it():
    found = as_json("mobilenet")
    assert found["name"] == "mobilenet"
    assert found["parameters"] == found["trained"] + found["untrained"] == 3_228_864
    assert found["bytes"] == 4 * found["parameters"]
    assert found["flops"] == 2 * found["macs"]
    assert found["receptive_field"] == [315, 315]
    assert found["at_least"] is False
    for parts in (found["rows"], found["stages"]):
        assert sum(part["macs"] for part in parts) == found["macs"]
        assert sum(part["trained"] + part["untrained"] for part in parts) == found["parameters"]


def test_a_run_is_shown_as_it_was_saved(small_run):
    found = as_json(small_run.path)
    assert found["name"] == str(small_run.path)
    assert found["inputs"] == {"photo": [32, 32, 3]}
    assert found["rows"][-1]["shape"] == [4]
    assert [stage["name"] for stage in found["stages"]][-1] == "head"
    assert f"network  {small_run.path}: 32 x 32 x 3 -> 4\n" in shown(small_run.path)


def test_a_tagger_is_shown_for_a_word(tagger_run):
    text = shown(tagger_run.path)
    assert "FLOPs) for a word, spelled with one character\n" in text
    assert "\nrecurrent_1 " in text
    assert "sees" in text.splitlines()[0]
    assert "\nfield " not in text


@pytest.mark.parametrize("name", ["image_code_run", "row_code_run"])
def test_an_autoencoder_is_shown_in_parts(name, request):
    run = request.getfixturevalue(name)
    found = as_json(run.path)
    assert {"encoder_1", "code", "decoder_1", "head"} <= {stage["name"] for stage in found["stages"]}
    assert found["per"] == ("image" if name == "image_code_run" else "row")
    assert "network " in shown(run.path)


def test_mistakes_are_one_line(refused, small_run, tmp_path):
    assert "Did you mean resnet50" in refused("resnt50")
    assert "no run folder at" in refused(tmp_path / "none")
    assert "is no run folder" in refused(tmp_path)
    assert "image_size must be at least 32 with resnet50; got 16." in refused("resnet50", "--image-size", 16)
    assert "--image-size is for a network by its name" in refused(small_run.path, "--image-size", 96)
    assert "--classes is for a network by its name" in refused(small_run.path, "--classes", 3)


def test_a_run_whose_files_are_of_two_tasks_is_refused(refused, small_run, tmp_path):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(small_run.path, copy)
    (copy / "recipe.toml").write_text('task = "tag"\ndata = "kerastk:names"\n')
    assert "do not belong together" in refused(copy)


def test_names_are_shown_as_they_are_and_move_no_terminal():
    row = Row(name="[red]\x1b[2J", kind="Dense", shape=(3,), trained=1, untrained=0, macs=None, receptive_field=(3, 5),
              stride=(0.5, 1))  # fmt: skip
    console = Console(width=200)
    with console.capture() as captured:
        console.print(table([row], narrow=False))
    line = captured.get().splitlines()[1]
    assert line.split() == [r"[red]\x1b[2J", "Dense", "3", "1", "?", "3", "x", "5", "0.5", "x", "1"]
    with console.capture() as captured:
        console.print(table([row], narrow=True))
    assert "Dense" not in captured.get()


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (999, "999"), (1_000, "1 k"), (25_636_712, "25.64 M"), (3_857_973_248, "3.858 G"), (10**13, "10 T")],
)
def test_amounts_are_short(number, text):
    assert amount(number) == text
