"""What an encoder that was trained on unlabelled images is worth where labels are few: MNIST with 100 of them.

    python benchmarks/few_labels.py                     # about half an hour on 2 cores
    python benchmarks/few_labels.py --seeds 0,1,2,3,4

A variational autoencoder learns from all 60,000 training images without labels, once. For each seed ten images a digit
are drawn; a classifier is then fine-tuned on these (`finetune --init-from RUN`), from that encoder and from the same
network with random weights, and tested on MNIST's 10,000 test images. Finished measurements stand in
WORK/measurements.jsonl.
"""

import csv
import functools
import json
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

import click
from comparing import Part, Row, by_way, finish, judged, measure_missing, newest, numbers, shared_folder, when_and_where
from measuring import Ledger, Usage, code_hash, machine, measure, versions

import kerastk
from kerastk.storage import write_atomic

HERE = Path(__file__).resolve().parent
LABELLED, CHOSEN_BY = 7, 3
# The encoder learns for so many epochs; what stands for random weights for one at a rate at which nothing moves.
EPOCHS, NOTHING = 6, 1e-9
AUTOENCODER = {
    "kind": "conv", "widths": "32,64", "latent": 20, "variational": True, "binarise": True, "split": "95/5",
    "epochs": EPOCHS, "learning_rate": 0.002,
}  # fmt: skip
TUNED = {"unfreeze": "all", "probe": "none", "epochs": 60, "learning_rate": 0.001, "batch_size": 16, "patience": 60}
WAYS = {
    "logistic regression on pixels": None,
    "random weights, head alone": ("random", {"unfreeze": "head"}),
    "encoder, head alone": ("encoder", {"unfreeze": "head"}),
    "random weights, all trained": ("random", TUNED),
    "encoder, all trained": ("encoder", TUNED),
}
# Points of accuracy that the encoder is claimed to be worth.
WORTH = 3.0


# The processes: `python few_labels.py STAGE JOB`. A stage leaves its values in STAGE.json beside the job.


def images(job: Row) -> Row:
    """All of MNIST as PNG files, and a list of those of the training set without labels."""
    import numpy as np

    from kerastk.datasets.arrays import open_arrays
    from kerastk.datasets.images import to_png

    folder, arrays = Path(job["images"]), open_arrays(job["mnist"])
    rows = []
    for number, (image, label, split) in enumerate(zip(arrays.values, arrays.labels, arrays.splits, strict=True)):
        place = f"{split}/{number}.png"
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).write_bytes(to_png(np.repeat(image, 3, axis=-1)))
        rows.append([place, label, split])
    with open(folder / "all.csv", "w", newline="") as file:
        csv.writer(file).writerows([["path", "label", "split"], *rows])
    return {"images": len(rows)}


def encode(job: Row) -> Row:
    """The run of the autoencoder, or of one that has learned nothing."""
    options = AUTOENCODER | ({"epochs": 1, "learning_rate": NOTHING} if job["start"] == "random" else {})
    data = str(Path(job["images"]) / "train")
    recipe = kerastk.Autoencode(data=data, seed=job["seed"], runs=str(Path(job["folder"]) / "runs"), **options)
    return {"run": str(kerastk.train(recipe, show=False).path)}


def drawn(job: Row) -> tuple[Path, list[list[str]]]:
    """A table of the labelled images of a seed and of all test images, and its rows."""
    import numpy as np

    with open(Path(job["images"]) / "all.csv", newline="") as file:
        rows = list(csv.reader(file))[1:]
    random, chosen = np.random.default_rng(job["seed"]), []
    for digit in range(10):
        places = [place for place, label, split in rows if split == "train" and label == str(digit)]
        for rank, number in enumerate(random.permutation(len(places))[: LABELLED + CHOSEN_BY]):
            chosen.append([places[number], str(digit), "train" if rank < LABELLED else "val"])
    chosen += [row for row in rows if row[2] == "test"]
    path = Path(job["images"]) / f"seed-{job['seed']}.csv"
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([["path", "label", "split"], *chosen])
    return path, chosen


def classify(job: Row) -> Row:
    """The test accuracy of a classifier that starts from a run."""
    path, _ = drawn(job)
    recipe = kerastk.Finetune(
        data=str(path), init_from=job["run"], augment="none", seed=job["seed"], cache="auto",
        runs=str(Path(job["folder"]) / "runs"), **job["options"],
    )  # fmt: skip
    return {"score": kerastk.train(recipe, show=False).metrics["test"]["accuracy"]}


def pixels(job: Row) -> Row:
    """The test accuracy of a logistic regression on the pixels, its strength chosen as the probe's is."""
    import numpy as np
    from PIL import Image

    from kerastk.training.probe import logistic

    folder, (_, rows) = Path(job["images"]), drawn(job)
    found = {}
    for name in ("train", "val", "test"):
        own = [row for row in rows if row[2] == name]
        values = [np.asarray(Image.open(folder / place).convert("L"), np.float32).ravel() / 255 for place, _, _ in own]
        found[name] = np.stack(values), np.array([int(label) for _, label, _ in own])
    head = logistic(*found["train"], *found["val"])
    values, truth = found["test"]
    return {"score": float((head.probabilities(values).argmax(axis=1) == truth).mean())}


STAGES = {"images": images, "encode": encode, "classify": classify, "pixels": pixels}


# Measuring: the parent.


def process(stage: str, job: Row) -> tuple[Usage, Row]:
    """Run a stage to its end: what it took, and the values that it left."""
    folder = Path(job["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "job.json"
    write_atomic(path, json.dumps(job))
    environment = {"KERASTK_CACHE": str(folder / "cache"), "KERAS_BACKEND": "tensorflow"}
    usage = measure([sys.executable, __file__, stage, str(path)], log=folder / f"{stage}.log", environment=environment)
    return usage, json.loads((folder / f"{stage}.json").read_text())


def started(work: Path, mnist: str, start: str) -> Row:
    """The run of a start, once for all seeds."""
    job = {"folder": str(work / start), "images": str(work / "images"), "mnist": mnist, "start": start, "seed": 0}
    if not (work / "images" / "all.csv").exists():
        process("images", job)
    if not (work / start / "encode.json").exists():
        usage, found = process("encode", job)
        write_atomic(work / start / "encode.json", json.dumps({**found, "seconds": usage.seconds}))
    return json.loads((work / start / "encode.json").read_text())


def run_way(way: str, seed: int, work: Path, mnist: str) -> list[Row]:
    """The figure of one way with one seed."""
    folder = work / f"{way.replace(' ', '-').replace(',', '')}-{seed}"
    job = {"folder": str(folder), "images": str(work / "images"), "mnist": mnist, "seed": seed}
    beginning = started(work, mnist, "encoder" if WAYS[way] is None else WAYS[way][0])
    if WAYS[way] is None:
        usage, found = process("pixels", job)
        return [{"seconds": usage.seconds, **found}]
    usage, found = process("classify", {**job, "run": beginning["run"], "options": WAYS[way][1]})
    return [{"seconds": usage.seconds, "start_seconds": beginning["seconds"], **found}]


def parts(seeds: list[int], work: Path, mnist: str) -> Iterator[Part]:
    """Every way with every seed."""
    setting = {**machine(), **versions("keras", "tensorflow", "kerastk")}
    marks = {"version": code_hash(Path(kerastk.__file__).parent), "autoencoder": AUTOENCODER}
    for seed in seeds:
        for way, how in WAYS.items():
            run = functools.partial(run_way, way, seed, work, mnist)
            place = {"data": "mnist", "seed": seed, "way": way}
            yield Part(f"seed {seed}: {way}", place, {**marks, "options": how and how[1]}, setting, run)


def done(ledger: Ledger, place: Row, marks: Row) -> bool:
    return any({**place, **marks}.items() <= row.items() for row in ledger.rows())


def report(rows: list[Row]) -> str:
    """The table and the claim, as Markdown."""
    rows = newest(rows)
    found = {way: by_seed for (_, way), by_seed in by_way(rows).items()}
    lines = ["| way | test accuracy: mean (seeds) | seconds, median |", "|---|---|---|"]
    means = {}
    for way in WAYS:
        if way in found:
            by_seed = found[way]
            means[way] = statistics.mean(row["score"] for row in by_seed.values())
            each = ", ".join(f"{seed}: {row['score']:.3f}" for seed, row in by_seed.items())
            seconds = statistics.median(row["seconds"] for row in by_seed.values())
            lines.append(f"| {way} | {means[way]:.3f} ({each}) | {seconds:.0f} |")
    claim = f"the encoder is worth at least {WORTH:g} points with 100 labels, all trained"
    ends = [means.get(f"{start}, all trained") for start in ("encoder", "random weights")]
    gain = None if None in ends else 100 * (ends[0] - ends[1])
    verdict = judged(claim, None) if gain is None else judged(claim, gain >= WORTH, f"{gain:+.1f}")
    once = next((row["start_seconds"] for row in rows if row["way"].startswith("encoder")), None)
    told = "" if once is None else f" The autoencoder itself took {once:.0f} seconds, once."
    return "\n\n".join(
        [
            "`python benchmarks/few_labels.py`: MNIST with ten labels a digit, seven to learn from and three to choose "
            "by; tested on its 10,000 test images.",
            "\n".join(lines),
            f"{when_and_where(rows)}. Seconds are those of the whole process, with its look at the images and its "
            f"test.{told}",
            f"- {verdict}",
        ]
    )


@click.command(help="An encoder trained without labels beside random weights, where labels are few.")
@click.option("--mnist", type=Path, help="The folder of MNIST's IDX files.  [default: the shared mnist]")
@click.option("--seeds", default="0,1,2", show_default=True, callback=numbers, help="Which images have labels.")
@click.option("--results", type=Path, default=HERE / "RESULTS.md", help="Where the table goes.")
@click.option("--work", type=Path, default=HERE.parent / "build" / "few-labels", help="Intermediate files.")
def main(mnist: Path | None, seeds: list[int], results: Path, work: Path) -> None:
    work, mnist = work.resolve(), (mnist or shared_folder() / "data" / "mnist").resolve()
    ledger = Ledger(work / "measurements.jsonl")
    if not mnist.is_dir():
        raise click.ClickException(f"no MNIST at {mnist}; name it with --mnist.")

    def shown(row: Row) -> str:
        return f"{row['score']:.3f}, {row['seconds']:.0f} s"

    failures = measure_missing(parts(seeds, work, str(mnist)), ledger, done=done, shown=shown)
    finish(ledger.rows(), ledger, results, section="few-labels", report=report, failures=failures, trial=None)


if __name__ == "__main__":
    if len(sys.argv) == 3 and sys.argv[1] in STAGES:
        given = Path(sys.argv[2])
        write_atomic(
            given.with_name(f"{sys.argv[1]}.json"), json.dumps(STAGES[sys.argv[1]](json.loads(given.read_text())))
        )
    else:
        main()
