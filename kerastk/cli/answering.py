"""Commands that ask a network: `predict`, `evaluate`, `embed`."""

from pathlib import Path
from typing import Any

import click

import kerastk
from kerastk.cli.backend import start_backend
from kerastk.cli.gates import check_run, demand, demanded, gate
from kerastk.errors import DataError, RecipeError
from kerastk.options import RecipeCommand, given
from kerastk.recipe import Finetune, construct

# The fields of a recipe that say how photos become vectors.
EMBEDDING_OPTIONS = (
    "base", "weights", "image_size", "resize", "threads", "precision", "device", "cache", "cache_size",
)  # fmt: skip
LAST_THRESHOLD = "warning  the threshold was set for the best model; the last one may have more or fewer false alarms"
last_model = click.option(
    "--last", is_flag=True, help="Ask the model of the last epoch, of a run with --keep-last, in place of the best one."
)
several_views = click.option(
    "--tta", metavar="VIEWS",
    help="Test-time augmentation of photos: average the answers for a photo and its mirror image (mirror), for it and "
    "small shifts (shift), or both (mirror,shift); two, three or six times the time.",
)  # fmt: skip


@click.command()
@click.argument("run")
@click.argument("inputs", nargs=-1, metavar="[PHOTOS|TEXTS|ITEMS]...")
@click.option("--text", help="Tag this text.")
@click.option(
    "--out", type=click.Path(path_type=Path), help="Write a .csv, .jsonl or (but for texts) .parquet file."
)  # fmt: skip
@click.option("--top", type=click.IntRange(1), help="Answers a photo.  [default: 1]")
@click.option("--threads", type=click.IntRange(1, 256), help="Threads that read and decode photos.")
@click.option(
    "--calibrated/--uncalibrated", default=None,
    help="Probabilities for photos after temperature scaling, as the saved model gives them, or before: undone by the "
    "temperature in metrics.json. The answers are the same.  [default: calibrated]",
)  # fmt: skip
@several_views
@last_model
def predict(run: str, inputs: tuple[str, ...], text: str | None, out: Path | None, last: bool, **options: Any) -> None:
    """Let the model of RUN answer for photos, tag texts, or say how unlike what an autoencoder has learned items are.

    PHOTOS are files, folders and archives; there is a row for each file, and one that cannot be read has its error
    there. TEXTS are UTF-8 files, each line of which is a text, for the run of a tagger. ITEMS, for the run of an
    autoencoder, are PHOTOS, or .npy, .npz, .csv and IDX files with a row an item: each gets its score, the error of its
    reconstruction, and whether that makes it an anomaly.
    """
    from kerastk.run import Run

    opened = Run.open(run)
    task = opened.labels.get("task")
    if task == "tag":
        _refuse(options, "on a tagger")
        _predict_tags(opened, inputs, text, out, last)
        return
    if task == "autoencode":
        threads = options.pop("threads")
        _refuse({"text": text, **options}, "on an autoencoder")
        _predict_items(opened, inputs, out, last, threads)
        return
    if text is not None:
        raise RecipeError(f"--text is for a tagger, and {run} takes photos.")
    if not inputs:
        raise RecipeError("no photos given; name files, folders or archives.")
    _predict_photos(opened, inputs, out, last, **options)


def _refuse(options: dict[str, Any], where: str) -> None:
    """Refuse options that are given and would not be used."""
    for name, value in options.items():
        if value is not None:
            shown = "uncalibrated" if value is False else name.replace("_", "-")
            raise RecipeError(f"--{shown} has no effect {where}; leave it out.")


def _predict_photos(
    run: Any,
    inputs: tuple[str, ...],
    out: Path | None,
    last: bool,
    top: int | None,
    threads: int | None,
    calibrated: bool | None,
    tta: str | None,
) -> None:
    from kerastk.answers import ENDINGS, table
    from kerastk.screen import printable
    from kerastk.storage import check_ending

    if out is not None:
        # Before the model is loaded, which takes seconds.
        check_ending(out, ENDINGS)
    start_backend()
    top = top or 1
    predictor = kerastk.load(run, calibrated=calibrated is not False, last=last, tta=tta)
    if top > len(predictor.classes):
        raise RecipeError(f"--top must be at most the number of classes, {len(predictor.classes)}; got {top}.")
    found = predictor.stream(inputs, top=top, threads=threads)
    if out is None:
        for prediction in found:
            answers = "  ".join(f"{label} {probability:.3f}" for label, probability in prediction.answers)
            click.echo(f"{printable(prediction.path)}\t{printable(answers) or 'error: ' + prediction.error}")
        return
    done = bad = 0
    with table(out, top) as put:
        for prediction in found:
            put(prediction)
            done += 1
            bad += bool(prediction.error)
        if not done:
            raise DataError(f"there is no file in {', '.join(map(repr, inputs))}.")
    click.echo(f"{done} photos, {bad} unreadable -> {out}")


def _predict_tags(run: Any, inputs: tuple[str, ...], text: str | None, out: Path | None, last: bool) -> None:
    from kerastk.answers import SPAN_ENDINGS, span_table
    from kerastk.screen import printable
    from kerastk.storage import check_ending
    from kerastk.tagger import lines

    if (text is None) == (not inputs):
        raise RecipeError("give either --text or files whose lines are texts.")
    if out is not None:
        check_ending(out, SPAN_ENDINGS)
    given = [("", 1, text)] if text is not None else lines(inputs)
    start_backend()
    found = kerastk.load(run, last=last).answers(given)
    if out is None:
        for path, line, _, spans in found:
            for span in spans:
                place = f"{path}:{line}\t" if path else ""
                click.echo(
                    f"{printable(place[:-1])}{place[-1:]}{span.start}\t{span.end}\t{printable(span.label)}\t"
                    f"{span.probability:.3f}\t{printable(span.text)}"
                )
        return
    texts = spans_found = 0
    with span_table(out) as put:
        for answer in found:
            put(*answer)
            texts += 1
            spans_found += len(answer[3])
    click.echo(f"{texts} texts, {spans_found} spans -> {out}")


def _predict_items(run: Any, inputs: tuple[str, ...], out: Path | None, last: bool, threads: int | None) -> None:
    from kerastk.answers import ENDINGS, score_table
    from kerastk.screen import printable
    from kerastk.storage import check_ending

    if not inputs:
        raise RecipeError("no items given; name photos, folders or archives of them, or files of arrays.")
    if threads is not None and run.labels.get("items") == "rows":
        raise RecipeError("--threads has no effect on rows of numbers; leave it out.")
    if out is not None:
        check_ending(out, ENDINGS)
    start_backend()
    reconstructor = kerastk.load(run, last=last)
    if last:
        click.echo(LAST_THRESHOLD, err=True)
    found = reconstructor.stream(inputs, threads=threads)
    if out is None:
        for scored in found:
            said = f"error: {scored.reason}"
            if scored.score is not None:
                said = f"{scored.score.error:.6g}\t{'anomaly' if scored.score.anomaly else 'normal'}"
            click.echo(f"{printable(scored.path)}\t{said}")
        return
    done = bad = anomalies = 0
    with score_table(out) as put:
        for scored in found:
            put(scored)
            done += 1
            bad += scored.score is None
            anomalies += scored.score is not None and scored.score.anomaly
        if not done:
            raise DataError(f"there is no file in {', '.join(map(repr, inputs))}.")
    click.echo(f"{done} items, {anomalies} anomalies, {bad} unreadable -> {out}")


@click.command()
@click.argument("run")
@click.argument("data")
@click.option("--out", type=click.Path(path_type=Path), help="Write the figures to a .json file.")
@several_views
@last_model
@gate("assert_accuracy", "assert_f1", "assert_error")
def evaluate(run: str, data: str, out: Path | None, last: bool, tta: str | None, **values: Any) -> None:
    """Measure the model of RUN on labelled DATA: photos, or a file of tagged sentences.

    For the run of an autoencoder DATA is what it can learn from and needs no labels; where the run learned normal
    classes alone, labels tell how well anomalies are found. What the model was trained on, by content, is pointed out.
    """
    import json

    from kerastk.evaluation.evaluate import evaluate as measure
    from kerastk.run import Run
    from kerastk.screen import Screen
    from kerastk.storage import write_atomic

    opened, wanted = Run.open(run), demanded(values)
    check_run(wanted, opened)
    start_backend()
    screen = Screen()
    figures = measure(kerastk.load(opened, last=last, tta=tta), data)
    screen.figures("all", figures)
    if "anomalies" in figures:
        above, share = figures["anomalies"]["above"], opened.metrics["anomaly"]["false_alarms"]
        click.echo(f"{'':8s} {100 * above:.2f} % above the threshold, which was set for {100 * share:g} % false alarms")
        if last:
            click.echo(LAST_THRESHOLD)
    if figures["trained_on"]:
        what = next(what for what in ("photos", "sentences", "items") if what in figures)
        screen.warn(
            f"the model was trained on {figures['trained_on']} of these {figures[what]} {what}, or chosen by them "
            "(by content); the figures flatter it."
        )
        if "unseen" in figures:
            screen.figures("unseen", figures["unseen"])
    if figures.get("unreadable"):
        screen.warn(f"{figures['unreadable']} files could not be read and are left out.")
    if "anomalies" not in figures:
        screen.per_class(figures)
    if out is not None:
        write_atomic(out, json.dumps(figures, indent=1))
    demand(figures, wanted)


@click.command(cls=RecipeCommand, recipe=Finetune, only=EMBEDDING_OPTIONS)
@click.argument("data", nargs=-1, required=True, metavar="[RUN] DATA")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Write a .parquet or .npz file.")
def embed(data: tuple[str, ...], out: Path, **values: Any) -> None:
    """Write vectors of the items of DATA: path, label, vector.

    They are the pooled features of a pretrained network for photos; DATA is then what `finetune` takes, or a folder or
    archive of photos without classes. With a RUN of an autoencoder they are its codes; DATA is then what it can learn
    from, and the options do not apply.
    """
    from kerastk.storage import check_ending

    # Before the network is loaded, which takes seconds.
    check_ending(out, (".parquet", ".npz"))
    if len(data) > 2:
        raise RecipeError(f"embed takes DATA, or a RUN and DATA; got {len(data)} arguments.")
    if len(data) == 2:
        _embed_codes(*data, out, values)
        return
    recipe = construct(Finetune, given(Finetune, values) | {"data": data[0]})
    start_backend()
    found = kerastk.embed(recipe, show=True)
    found.write(out)
    size = found.vectors.shape[1]
    click.echo(f"{len(found.paths)} photos of {size} values each, {found.unreadable} unreadable left out -> {out}")


def _embed_codes(run: str, data: str, out: Path, values: dict[str, Any]) -> None:
    from kerastk.run import Run

    opened = Run.open(run)
    if opened.labels.get("task") != "autoencode":
        raise RecipeError(f"{run} is no run of an autoencoder; leave it out to embed photos by --base.")
    _refuse(values, "on the codes of an autoencoder")
    start_backend()
    from kerastk.embedding import encode

    found = encode(kerastk.load(opened), data)
    found.write(out)
    size = found.vectors.shape[1]
    click.echo(f"{len(found.paths)} items of {size} values each, {found.unreadable} unreadable left out -> {out}")
