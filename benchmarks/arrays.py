"""Images of an array on their way into `fit`: images a second, beside Keras's own `fit` of arrays in memory.

    python benchmarks/arrays.py               # a minute on two cores

MNIST's 60,000 images of 28 x 28 pixels, not augmented, and a network that does next to nothing: one dense layer.
"""

import os
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import click
from comparing import judged, shared_folder, when_and_where
from measuring import machine, versions, write_section

HERE = Path(__file__).resolve().parent
BATCHES = (128, 512)
EPOCHS, ASKED = 5, 50_000


def epochs(fit: Callable[[int], object], images: int) -> Iterator[float]:
    """Images a second of one epoch after another; the first, in which TensorFlow makes its graph, is not given."""
    for epoch in range(EPOCHS + 1):
        begin = time.perf_counter()
        fit(epoch)
        if epoch:
            yield images / (time.perf_counter() - begin)


def measured(data: Path, batch_size: int) -> tuple[float, float]:
    """Images a second by kerastk's batches and by arrays given to `fit`: medians of epochs in turns."""
    import keras

    import kerastk

    recipe = kerastk.Classify(data=str(data), split="95/5", augment="none", batch_size=batch_size)
    rows = kerastk.open_data(recipe).train
    images, truth = next(iter(rows.batches(0, 1)))[0].shape[1:], len(rows.classes)

    def dense() -> keras.Model:
        model = keras.Sequential(
            [keras.Input(images, dtype="uint8"), keras.layers.Flatten(), keras.layers.Dense(truth)]
        )
        model.compile(optimizer="sgd", loss=keras.losses.CategoricalCrossentropy(from_logits=True))
        return model

    values = rows.values[rows.rows]
    labels = keras.utils.to_categorical(rows.truth, truth)
    ours, plain = dense(), dense()
    ways = (
        lambda epoch: ours.fit(rows.batches(epoch, epoch + 1), steps_per_epoch=rows.steps, shuffle=False, verbose=0),
        lambda epoch: plain.fit(values, labels, batch_size=batch_size, verbose=0),
    )
    pairs = zip(*(epochs(way, len(values)) for way in ways), strict=True)
    return tuple(statistics.median(rates) for rates in zip(*pairs, strict=True))


@click.command(help=__doc__)
@click.option("--data", type=click.Path(path_type=Path, exists=True), help="MNIST's IDX files.")
@click.option("--results", type=Path, default=HERE / "RESULTS.md", help="Where the table goes.")
def main(data: Path | None, results: Path) -> None:
    os.environ["KERAS_BACKEND"] = "tensorflow"
    data = data or shared_folder() / "data" / "mnist"
    if not data.exists():
        raise click.ClickException(f"no {data}; name the folder of MNIST's files by --data.")
    lines = ["| images a batch | kerastk | `fit` of arrays | ratio |", "|---|---|---|---|"]
    slowest = float("inf")
    for batch_size in BATCHES:
        ours, plain = measured(data, batch_size)
        slowest = min(slowest, ours)
        lines.append(f"| {batch_size} | {ours:,.0f} | {plain:,.0f} | {ours / plain:.2f} |")
        click.echo(lines[-1])
    here = {**machine(), **versions("keras", "tensorflow", "kerastk")}
    made = when_and_where([{"date": time.strftime("%Y-%m-%d"), "setting": here}])
    lines.append(
        f"\n{made}; "
        f"`python benchmarks/arrays.py`: images of 28 x 28 pixels a second, medians of {EPOCHS} epochs in turns, "
        "into a network of one dense layer."
    )
    claim = judged(f"{ASKED:,} images a second reach `fit`", slowest >= ASKED, f"{slowest:,.0f}")
    lines.append(f"\n- {claim}")
    write_section(results, "arrays", "\n".join(lines))
    click.echo(f"wrote {results}")


if __name__ == "__main__":
    main()
