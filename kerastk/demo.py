"""The demo: real photos on disk, the very path that a user's own photos take, no download."""

from pathlib import Path

import click

import kerastk
from kerastk import recipes
from kerastk.datasets.images import to_png
from kerastk.recipe import load
from kerastk.storage import write_atomic


def write_digits(folder: Path) -> list[Path]:
    """scikit-learn's 1,797 handwritten digits as `folder/<digit>/<number>.png`, 8 x 8 pixels; what is there stays."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    paths = []
    for number, (pixels, digit) in enumerate(zip(digits.images, digits.target, strict=True)):
        path = folder / str(digit) / f"{number:04d}.png"
        if not path.exists():
            write_atomic(path, to_png((pixels * 255 / 16).round().astype("uint8")))
        paths.append(path)
    return paths


def demo(folder: Path) -> None:
    """Write the digits, train on them by the recipe `digits`, and ask the model about a few."""
    paths = write_digits(folder / "digits")
    recipe = load(recipes.folder() / "digits.toml", data=str(folder / "digits"), runs=str(folder / "runs"))
    click.echo(f"kerastk finetune {recipe.data} --recipe digits --runs {recipe.runs}")
    run = kerastk.train(recipe)
    click.echo(f"\nkerastk predict {run.path} {paths[0]} {paths[1]} {paths[2]}")
    for prediction in kerastk.load(run).stream(paths[:3]):
        (label, probability) = prediction.answers[0]
        click.echo(f"{prediction.path}\t{label} {probability:.3f}")
