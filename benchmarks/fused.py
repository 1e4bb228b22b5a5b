"""Fused kernels in training on a CPU: images a second with Keras's own operations, and with what `fuse` takes for them.

    python benchmarks/fused.py                # five minutes on two cores

One process, the networks in turns, images of noise that lie in memory: nothing but the step of `fit` is measured.
"""

import os
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import click
from comparing import when_and_where
from measuring import machine, versions, write_section

HERE = Path(__file__).resolve().parent
# Network and images a batch.
NETS = {"resnet20": 128, "wrn-16-4": 128, "fast-64": 512}
PRECISIONS = {"float32": "float32", "bfloat16": "mixed_bfloat16"}
ROUNDS, SECONDS = 3, 4


def steps(net: str, policy: str, *, fused: bool) -> Iterator[float]:
    """Train a network of its own, a stretch of SECONDS at a time: images a second."""
    import keras
    import numpy as np

    from kerastk.networks.convnets import convnet
    from kerastk.networks.fused import fuse

    keras.utils.set_random_seed(0)
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (NETS[net], 32, 32, 3), "uint8")
    truth = keras.utils.to_categorical(random.integers(0, 10, NETS[net]), 10)
    keras.config.set_dtype_policy(policy)
    model = convnet(net, images.shape[1:], classes=10, dropout=0.0)
    keras.config.set_dtype_policy("float32")
    if fused:
        fuse(model)
    model.compile(optimizer=keras.optimizers.SGD(0.01, momentum=0.9), loss="categorical_crossentropy")
    for _ in range(2):
        model.train_on_batch(images, truth)
    while True:
        begin, done = time.perf_counter(), 0
        while time.perf_counter() - begin < SECONDS:
            model.train_on_batch(images, truth)
            done += len(images)
        yield done / (time.perf_counter() - begin)


@click.command(help=__doc__)
@click.option("--results", type=Path, default=HERE / "RESULTS.md", help="Where the table goes.")
def main(results: Path) -> None:
    os.environ["KERAS_BACKEND"] = "tensorflow"
    lines = ["| network | numbers | Keras's operations | fused kernels | ratio |", "|---|---|---|---|---|"]
    for net in NETS:
        for precision, policy in PRECISIONS.items():
            ways = [steps(net, policy, fused=fused) for fused in (False, True)]
            rates = [[next(way) for way in ways] for _ in range(ROUNDS)]
            stock, fused = (statistics.median(found) for found in zip(*rates, strict=True))
            lines.append(f"| {net} | {precision} | {stock:,.0f} | {fused:,.0f} | {fused / stock:.2f} |")
            click.echo(lines[-1])
    here = {**machine(), **versions("keras", "tensorflow", "kerastk")}
    made = when_and_where([{"date": time.strftime("%Y-%m-%d"), "setting": here}])
    lines.append(
        f"\n{made}; "
        f"`python benchmarks/fused.py`: 32 x 32 images a second, medians of {ROUNDS} stretches "
        f"of {SECONDS} s in turns."
    )
    write_section(results, "fused", "\n".join(lines))
    click.echo(f"wrote {results}")


if __name__ == "__main__":
    main()
