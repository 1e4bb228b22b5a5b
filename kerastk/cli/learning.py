"""Commands that train: `finetune`, `classify`, `tag`, `autoencode`, `train`, `resume`, `lr-find`, `demo`."""

import difflib
import os
from pathlib import Path
from typing import Any

import click

import kerastk
from kerastk import recipes
from kerastk.cli.backend import start_backend
from kerastk.cli.gates import GATES_OF, check_recipe, check_run, demand_of_run, demanded, gate
from kerastk.errors import RecipeError
from kerastk.options import RecipeCommand, given
from kerastk.recipe import Autoencode, Classify, Finetune, Recipe, Tag, construct, dump, parse

dry_run = click.option("--dry-run", is_flag=True, help="Print the recipe, the split and what would be trained; stop.")
go_on = click.option(
    "--resume",
    is_flag=True,
    help="Go on with the run of this command where it was interrupted; start it if there is none.",
)
from_recipe = click.option(
    "--recipe", "file", metavar="NAME|FILE", help="Start from a recipe; options given here override it."
)


@click.command(cls=RecipeCommand, recipe=Finetune)
@click.argument("data", required=False)
@from_recipe
@dry_run
@go_on
@GATES_OF[Finetune]
def finetune(data: str | None, file: str | None, dry_run: bool, resume: bool, **values: Any) -> None:
    """Fine-tune a pretrained network on DATA.

    DATA is a folder of class folders, one with train/, val/ and test/ (any of them), a .zip or .tar of either, a CSV or
    Parquet file with path,label[,split], or tfds:NAME.
    """
    _learn(Finetune, data, file, dry_run, resume, values)


@click.command(cls=RecipeCommand, recipe=Classify)
@click.argument("data", required=False)
@from_recipe
@dry_run
@go_on
@GATES_OF[Classify]
def classify(data: str | None, file: str | None, dry_run: bool, resume: bool, **values: Any) -> None:
    """Train a network from random weights on the images of DATA.

    DATA is photos in class folders, an archive or table of them, or tfds:NAME; arrays in .npz files, IDX files or
    CIFAR's binary files; or kerastk:NAME, such as kerastk:mnist (`kerastk data list`).
    """
    _learn(Classify, data, file, dry_run, resume, values)


@click.command(cls=RecipeCommand, recipe=Tag)
@click.argument("data", required=False)
@from_recipe
@dry_run
@go_on
@GATES_OF[Tag]
def tag(data: str | None, file: str | None, dry_run: bool, resume: bool, **values: Any) -> None:
    """Train a tagger of words on DATA: names, parts of speech, slots.

    DATA is a file of tagged sentences: columns (CoNLL), CoNLL-U, or JSON lines with text and spans.
    """
    _learn(Tag, data, file, dry_run, resume, values)


@click.command(cls=RecipeCommand, recipe=Autoencode)
@click.argument("data", required=False)
@from_recipe
@dry_run
@go_on
@GATES_OF[Autoencode]
def autoencode(data: str | None, file: str | None, dry_run: bool, resume: bool, **values: Any) -> None:
    """Train an autoencoder on DATA: images or rows of numbers, labelled or not.

    DATA is photos in a folder or archive (class folders are not needed), a table of them, or tfds:NAME; arrays in .npy,
    .npz or IDX files; or a CSV file of numbers. The run gives codes (`kerastk embed`), reconstructions, and a threshold
    above which an item is an anomaly (`kerastk predict`).
    """
    _learn(Autoencode, data, file, dry_run, resume, values)


def _learn(
    kind: type[Recipe], data: str | None, file: str | None, dry_run: bool, resume: bool, values: dict[str, Any]
) -> None:
    """Train by a task's options, on top of those of a recipe's file."""
    base: dict[str, Any] = {}
    if file is not None:
        theirs, base = parse(_recipe_file(file))
        if theirs is not kind:
            raise RecipeError(f"{file} is a recipe for {theirs.task}, not for {kind.task}; use `kerastk train {file}`.")
    overrides = given(kind, values) | ({"data": data} if data is not None else {})
    _train(construct(kind, base | overrides), dry_run, resume, values)


@click.command(
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False}, add_help_option=False
)
@click.argument("name", metavar="NAME|FILE", required=False)
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def train(context: click.Context, name: str | None, options: tuple[str, ...]) -> None:
    """Train a shipped recipe or a recipe file.

    `kerastk train NAME --help` shows the recipe's options, all of which may be overridden.
    """
    if name is None or name in ("-h", "--help"):
        click.echo(context.get_help())
        return
    kind, base = parse(_recipe_file(name))

    @click.command(name, cls=RecipeCommand, recipe=kind, help=f"Train {name} ({kind.task}).")
    @dry_run
    @go_on
    @GATES_OF[kind]
    def run(dry_run: bool, resume: bool, **values: Any) -> None:
        _train(construct(kind, base | given(kind, values)), dry_run, resume, values)

    with run.make_context(f"{context.command_path} {name}", list(options), parent=context) as inner:
        run.invoke(inner)


def _recipe_file(name: str) -> Path:
    """A recipe's file by its path or by the name of a shipped recipe."""
    path = recipes.file(name)
    if path is not None:
        return path
    if name.endswith(".toml") or os.sep in name:
        return Path(name)
    shipped = recipes.shipped_names()
    near = [each for each in shipped if name and each.startswith(name)] or difflib.get_close_matches(name, shipped)
    hint = f"did you mean {' or '.join(near)}?" if near else f"shipped: {', '.join(shipped)}."
    raise RecipeError(f"no recipe is called {name[:80]!r}; {hint} A file ends in .toml.")


def _train(recipe: Recipe, dry: bool, resume: bool, values: dict[str, Any]) -> None:
    wanted = demanded(values)
    for name in [*wanted, *(["resume"] if resume else [])] if dry else ():
        raise RecipeError(f"--{name.replace('_', '-')} has no effect with --dry-run; leave it out.")
    check_recipe(wanted, recipe)
    start_backend()
    if dry:
        from kerastk.screen import Screen
        from kerastk.training.plan import plan

        screen = Screen()
        settled = plan(recipe, screen=screen, dry=True)
        click.echo(dump(settled.recipe))
        screen.plan(settled)
        return
    demand_of_run(kerastk.train(recipe, resume=resume), wanted)


@click.command()
@click.argument("run")
@click.option("--data", help="Where the data is now, if it is elsewhere than at the start.")
@click.option(
    "--allow-data-change",
    is_flag=True,
    help="Go on though photos came or went; those that are known stay in their splits.",
)
@click.option("--allow-version-change", is_flag=True, help="Go on with other versions of Keras and what else computes.")
@gate("assert_accuracy", "assert_f1", "assert_error")
def resume(run: str, data: str | None, allow_data_change: bool, allow_version_change: bool, **values: Any) -> None:
    """Go on with RUN where it was interrupted.

    The model comes out as it would have without the interruption. A run that is complete says so.
    """
    from kerastk.run import Run

    # Before the network is loaded, which takes seconds.
    opened, wanted = Run.open(run), demanded(values)
    check_run(wanted, opened)
    start_backend()
    found = kerastk.resume(
        run, data=data, allow_data_change=allow_data_change, allow_version_change=allow_version_change
    )
    demand_of_run(found, wanted)


@click.command(name="lr-find", cls=RecipeCommand, recipe=Finetune)
@click.argument("data", metavar="DATA|RECIPE")
@click.option(
    "--out", type=click.Path(path_type=Path), default="lr-find.png", show_default=True,
    help="Write the picture to a .png file, and the curve to a .csv file beside it.",
)  # fmt: skip
def lr_find(data: str, out: Path, **values: Any) -> None:
    """Find a learning rate by a range test.

    Trains for at most 100 batches while the learning rate grows from 1e-7 to 10, and suggests the one at which the loss
    falls steepest. DATA is as for `finetune` and `tag`; or a recipe's name or file, of any task. No run is made.
    `--learning-rate auto` does the same at the start of a run.
    """
    from kerastk.datasets.arrays import is_arrays
    from kerastk.datasets.sequences import is_sentences
    from kerastk.storage import check_ending

    check_ending(out, (".png",))
    base: dict[str, Any] = {"data": data}
    if data in recipes.shipped_names() or data.endswith(".toml"):
        kind, base = parse(_recipe_file(data))
    elif is_arrays(data):
        raise RecipeError(f"{data!r} holds arrays; give the file of a recipe of autoencode that names them.")
    else:
        kind = Tag if is_sentences(data) else Finetune
    recipe = construct(kind, base | given(Finetune, values) | {"learning_rate": "auto"})
    start_backend()
    import io

    from kerastk.datasets.table import csv_writer
    from kerastk.storage import write_atomic

    found = kerastk.find_learning_rate(recipe)
    text = io.StringIO(newline="")
    rows = found.rows()
    write = csv_writer(text, list(rows[0]))
    for row in rows:
        write(row)
    write_atomic(out.with_suffix(".csv"), text.getvalue())
    write_atomic(out, found.picture())
    click.echo(f"--learning-rate {found.suggestion:.2g}   ({out}, {out.with_suffix('.csv')})")


@click.command()
@click.option(
    "--folder", type=click.Path(path_type=Path, file_okay=False), default="kerastk-demo", show_default=True,
    help="Where the photos and runs go.",
)  # fmt: skip
def demo(folder: Path) -> None:
    """Train on real handwritten digits, offline.

    1,797 photos, about a minute on two cores.
    """
    from kerastk.demo import demo as show

    start_backend()
    show(folder)
