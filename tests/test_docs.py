import re
import runpy
from pathlib import Path

import click
import pytest

import kerastk
from kerastk.cli import commands

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "CONTRIBUTING.md"]


def test_the_command_line_reference_is_that_of_the_code():
    made = runpy.run_path(str(ROOT / "docs" / "make_cli_reference.py"))["reference"]()
    assert (ROOT / "docs" / "cli.md").read_text(encoding="utf-8") == made, "run `make docs`"


def test_the_table_of_schedules_is_that_of_the_code_and_each_has_its_curve():
    made = runpy.run_path(str(ROOT / "docs" / "make_schedule_pictures.py"))
    assert (ROOT / "docs" / "schedules.md").read_text(encoding="utf-8") == made["page"](), "run `make docs`"
    assert made["picture"]().startswith(b"\x89PNG")


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    text = path.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)|src=\"([^\"]+)\"", text):
        name = target[0] or target[1]
        assert name.startswith("https://") or (path.parent / name).exists(), name


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_and_option_that_is_shown_exists(path):
    for line in re.findall(r"^ {4}(kerastk [a-z].*)$", path.read_text(encoding="utf-8"), re.MULTILINE):
        words = line.split("#")[0].split()
        command = commands.commands[words[1]]
        if words[1] == "train":
            command = commands.commands["finetune"]
        if isinstance(command, click.Group):
            command = command.commands[words[2]]
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        known |= {"--data"} if words[1] == "train" else set()
        assert {word for word in words if word.startswith("--")} <= known | {"--help"}, line


def test_the_map_of_the_code_is_true():
    block = re.search(r"## The code\n.*?```\n(.*?)```", README, re.DOTALL)[1]
    listed = set()
    folder = ""
    for line in block.splitlines():
        name = line.split()[0]
        if line.startswith("kerastk/") or not line.startswith(" "):
            folder = name if name.endswith("/") else ""
            listed.add(name)
        elif line.startswith("  ") and not line.startswith("   "):
            listed.add(folder + name)
    for name in listed:
        assert (ROOT / name).exists(), name
    for path in (ROOT / "kerastk").iterdir():
        if path.suffix == ".py" and path.name != "__init__.py":
            assert f"kerastk/{path.name}" in listed
        if path.is_dir() and path.name != "__pycache__":
            assert f"kerastk/{path.name}/" in listed
            inside = next(line for line in block.splitlines() if line.strip().startswith(path.name + "/"))
            for module in path.glob("*.py"):
                assert module.name == "__init__.py" or module.stem in inside, module


def test_the_changelog_and_the_package_agree():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert "## Unreleased" in text or f"## {kerastk.__version__}" in text
