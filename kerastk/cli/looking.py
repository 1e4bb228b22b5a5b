"""Commands that look at data, networks and runs, and train nothing: `check`, `augment`, `summary`, `runs`, `report`."""

from pathlib import Path
from typing import Any

import click

from kerastk.cli.backend import start_backend
from kerastk.errors import GateError, RecipeError, RunError

# Columns of a table that are shown.
_COLUMNS = 20
# A network of more operations is shown by its stages.
_OPERATIONS = 60


@click.command()
@click.argument("data")
@click.option("--out", type=click.Path(path_type=Path), help="Write every finding to a .json file.")
@click.option("--strict", is_flag=True, help="Exit with code 1 at any finding.")
@click.option("--dev", help="Beside sentences in DATA: those by which a model is chosen.")
@click.option("--test", help="Beside sentences in DATA: those to test on.")
@click.option("--columns", help="As --columns of `tag`.")
@click.option("--tag-column", help="As --tag-column of `tag`.")
@click.option("--label-column", help="As --label-column of `autoencode`.")
def check(data: str, out: Path | None, strict: bool, label_column: str | None, **options: Any) -> None:
    """Look for what is wrong with DATA: photos, a file of tagged sentences, or arrays.

    Of photos: damaged, empty and oversized files, copies and near-copies, the same photo under two labels or in two
    splits, contradicting suffixes, tiny and lopsided classes. Of sentences: tags that break their scheme, sentences of
    the test set that are also in training, what is unseen and what is rare. Of arrays (.npy, .npz, IDX files, a CSV
    file of numbers): what was taken for what, values that are no numbers, copies, leaks, tiny and lopsided classes.
    """
    import dataclasses
    import json

    from kerastk import shipped
    from kerastk.datasets.arrays import is_arrays
    from kerastk.datasets.sequences import is_sentences
    from kerastk.screen import Screen
    from kerastk.storage import write_atomic

    data = shipped.data(data)
    screen, of_arrays = Screen(), is_arrays(data)
    of_sentences = not of_arrays and is_sentences(data)
    holds = "arrays" if of_arrays else "sentences" if of_sentences else "photos"
    for name, value in options.items():
        if value is not None and not of_sentences:
            raise RecipeError(f"--{name.replace('_', '-')} is for tagged sentences, and {data!r} holds {holds}.")
    if label_column is not None and not of_arrays:
        raise RecipeError(f"--label-column is for a CSV file of numbers, and {data!r} holds {holds}.")
    if of_arrays:
        look = _look_at_arrays(data, label_column)
    elif of_sentences:
        from kerastk.datasets.sequence_data import look_at as look_at_sentences

        dev, test = options.pop("dev"), options.pop("test")
        look = look_at_sentences({"train": data, "val": dev, "test": test}, **options)
        screen.sentences(look)
    else:
        from kerastk.datasets.check import check as look_at
        from kerastk.datasets.source import open_source

        source = open_source(data)
        with screen.working(f"looking at {source.name}") as progress:
            look = look_at(source, progress=progress)
        screen.photos(look)
    if out is not None:
        write_atomic(out, json.dumps([dataclasses.asdict(finding) for finding in look.findings], indent=1))
        click.echo(f"all findings -> {out}")
    if strict and look.findings:
        raise GateError(f"{len(look.findings)} findings.")


def _look_at_arrays(data: str, label_column: str | None) -> Any:
    """What `check` says of arrays."""
    from collections import Counter

    from kerastk.datasets.array_data import look_at_arrays
    from kerastk.datasets.arrays import open_arrays
    from kerastk.screen import printable

    arrays = open_arrays(data, label_column=label_column)
    rows, *item = arrays.values.shape
    size = f"images of {' x '.join(map(str, item))}, uint8" if len(item) > 1 else f"rows of {item[0]:,} numbers"
    counts = Counter(arrays.labels or ())
    classes = f"{len(counts)} classes of {min(counts.values())} to {max(counts.values())}" if counts else "no labels"
    click.echo(f"{rows:,} {size}; {classes}")
    if len(arrays.parts) > 1:
        click.echo(f"from     {printable(', '.join(f'{name} ({count:,})' for name, count in arrays.parts))}")
    if arrays.splits is not None:
        click.echo(f"splits   {', '.join(f'{name} {count:,}' for name, count in Counter(arrays.splits).items())}")
    if arrays.columns is not None:
        more = f", ... ({len(arrays.columns):,} in all)" if len(arrays.columns) > _COLUMNS else ""
        click.echo(f"columns  {printable(', '.join(arrays.columns[:_COLUMNS]))}{more}")
    for note in arrays.notes:
        click.echo(f"note     {printable(note)}")
    look = look_at_arrays(arrays)
    found: dict[str, list[Any]] = {}
    for finding in look.findings:
        found.setdefault(finding.kind, []).append(finding)
    for kind, (first, *rest) in found.items():
        example = f"{' = '.join(first.paths[:2])}{f' ({first.text})' if first.text else ''}"
        click.echo(f"finding  {look.kinds[kind][0]}: {len(rest) + 1:,}, such as {printable(example)}")
    if not found:
        click.echo("no findings")
    return look


@click.command()
@click.argument("data")
@click.option("--policy", default="light", show_default=True, metavar="NAME|STEPS", help="As --augment of `finetune`.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Write a .png file.")
@click.option("--photos", type=click.IntRange(1, 64), default=6, show_default=True, help="Rows of the picture.")
@click.option("--views", type=click.IntRange(1, 64), default=7, show_default=True, help="How often each is varied.")
@click.option("--image-size", type=click.IntRange(8, 1024), default=224, show_default=True, help="Side, in pixels.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="As that of the run.")
def augment(data: str, policy: str, out: Path, photos: int, views: int, image_size: int, seed: int) -> None:
    """Show what a network will see of DATA.

    A row a photo: as it is, then as the epochs 1, 2, 3, ... of a run show it.
    """
    from kerastk.notation import check_augmentation
    from kerastk.storage import check_ending

    check_ending(out, (".png",))
    check_augmentation(policy)
    from kerastk.datasets.photos import picture
    from kerastk.storage import write_atomic

    write_atomic(out, picture(data, policy, photos=photos, views=views, image_size=image_size, seed=seed))
    click.echo(f"{policy} -> {out}")


@click.command()
@click.argument("what", metavar="NET|BASE|RUN")
@click.option("--image-size", type=click.IntRange(8, 4096), help="Side, in pixels.  [default: the network's own]")
@click.option("--classes", type=click.IntRange(2, 10**6), help="With a head for so many.  [default: without a head]")
@click.option("--all", "every", is_flag=True, help="Show every operation of a network that has many.")
@click.option("--json", "as_json", is_flag=True, help="Print all of it as JSON.")
def summary(what: str, image_size: int | None, classes: int | None, every: bool, as_json: bool) -> None:
    """Show the layers of a NET of `classify`, a BASE, or the model of a RUN: output, parameters, work, what they see.

    Work is multiplications with an addition, of convolutions and matrix products, for one photo or item, or for one
    word of a sentence. What a place of a layer's maps sees is its receptive field, in pixels of the image, padding
    included; from one place to the next it moves by the stride. Of more than 60 operations the stages are shown, which
    `--unfreeze` counts from the last one on.
    """
    import dataclasses
    import json

    start_backend()
    from kerastk.evaluation import summary_table
    from kerastk.networks.summary import summary as summarise
    from kerastk.screen import Screen, printable

    title, model, stages = _network(what, image_size=image_size, classes=classes)
    found = summarise(model)
    by_stage = found.by_stage(stages)
    if as_json:
        as_stages = [dataclasses.asdict(stage) for stage in by_stage]
        click.echo(json.dumps({"name": title, **found.as_json(), "stages": as_stages}, indent=1))
        return
    rows = found.rows if every or len(found.rows) <= _OPERATIONS else by_stage
    Screen().table(lambda width: summary_table.table(rows, narrow=width < 100))
    for line in summary_table.lines(printable(title), found):
        click.echo(line)


def _network(what: str, *, image_size: int | None, classes: int | None) -> tuple[str, Any, dict[str, list[str]]]:
    """What `summary` is asked for: its name, the model, and the names of the operations in each of its stages."""
    import os

    if Path(what).is_dir() or os.sep in what:
        return _network_of_run(what, image_size=image_size, classes=classes)
    return _network_by_name(what, image_size=image_size, classes=classes)


def _network_of_run(run: str, **options: int | None) -> tuple[str, Any, dict[str, list[str]]]:
    import kerastk
    from kerastk import tasks
    from kerastk.run import Run

    for name, value in options.items():
        if value is not None:
            raise RecipeError(
                f"--{name.replace('_', '-')} is for a network by its name; the model of a run is as it is."
            )
    opened = Run.open(run)
    model, recipe = kerastk.load(opened).model, opened.recipe
    if recipe.task != opened.labels.get("task"):
        raise RunError(f"{opened.recipe_toml} and {opened.labels_json.name} do not belong together.")
    return run, model, tasks.of(recipe).stages_of(model)


def _network_by_name(
    name: str, *, image_size: int | None, classes: int | None
) -> tuple[str, Any, dict[str, list[str]]]:
    import keras

    from kerastk.networks.bases import BASES
    from kerastk.networks.classifier import classifier, features_model
    from kerastk.networks.convnets import convnet, find_any, find_net
    from kerastk.networks.cuts import named_stages

    name = find_any(name)
    own = BASES[name].image_size if name in BASES else find_net(name)[0].image_size
    size, heads = image_size or own, {"classes": classes or 2, "dropout": 0.0}
    # Shapes are enough: values would take seconds and up to 1.4 GB.
    with keras.StatelessScope(initialize_variables=False):
        if name in BASES:
            model = classifier(name, image_size=size, weights=None, **heads)
        else:
            model = convnet(name, (size, size, 3), **heads)
        model = features_model(model) if classes is None else model
    return name, model, named_stages(model)


@click.command(name="runs")
@click.argument("folder", type=click.Path(path_type=Path), default="runs")
@click.option("--json", "as_json", is_flag=True, help="Print all that is known of each as JSON.")
def list_runs(folder: Path, as_json: bool) -> None:
    """List the runs in FOLDER (runs) with their figures, the newest first.

    A run is complete, running, interrupted (`kerastk resume` goes on with it) or damaged.
    """
    import dataclasses
    import json

    from kerastk.evaluation.listing import runs
    from kerastk.screen import Screen

    found = runs(folder)
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(run) for run in found], indent=1))
    elif found:
        Screen().runs(found)
    else:
        click.echo(f"no runs in {folder}")


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@click.option(
    "--out", type=click.Path(path_type=Path),
    help="Write the page to this .html file.  [default: report.html in the RUN; comparison.html for several]",
)  # fmt: skip
def report(runs: tuple[str, ...], out: Path | None) -> None:
    """Make the report of a complete RUN again, or compare several.

    A comparison has figures beside each other, what the recipes have not in common, the curves, and whether a
    difference on the same test photos or sentences is more than chance. Neither needs the data.
    """
    from kerastk.evaluation import comparison
    from kerastk.evaluation import report as one
    from kerastk.run import Run
    from kerastk.storage import check_ending, write_atomic

    if out is not None:
        check_ending(out, (".html",))
    opened = [Run.open(run) for run in runs]
    if len(opened) == 1:
        page = one.page(opened[0])
        if out is None:
            opened[0].write_report(page)
    else:
        page = comparison.page(opened)
        out = out or Path("comparison.html")
    if out is not None:
        write_atomic(out, page)
    click.echo(out or opened[0].report_html)
