"""What frozen work costs: the solved probe, an epoch over the cache, a warm start, and storing in float16.

    python benchmarks/frozen.py                    # flowers5; about a quarter of an hour on two cores
    python benchmarks/frozen.py --only epoch,start --results mine.md

Each measurement is a process of its own (two for a warm start: one fills the store).
"""

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from measuring import code_hash, machine, measure, versions, write_section

import kerastk
from kerastk.storage import write_atomic

HERE = Path(__file__).resolve().parent
PHOTOS = 1000
BASES = ("mobilenet_v2", "resnet50")
SEEDS = (0, 1, 2)
Values = dict[str, Any]


def recipe(job: Values, **options: Any) -> kerastk.Finetune:
    options = {"weights": job["weights"], "runs": str(Path(job["folder"]) / "runs"), **options}
    return kerastk.Finetune(data=job["data"], base=job["base"], **options)


def thousand(job: Values) -> Values:
    """Write PHOTOS of the photos into class folders; for another base than MobileNetV2 random weights too."""
    opened = kerastk.open_data(kerastk.Finetune(data=job["data"], base="mobilenet_v2", split="99/1"))
    photos = [photo for name in ("train", "val") for photo in opened.manifest.splits[name]]
    photos = sorted(photos, key=lambda photo: photo.sha256)[:PHOTOS]
    for photo in photos:
        folder = Path(job["folder"]) / "photos" / photo.label
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{photo.sha256}.jpg").write_bytes(opened.look.source.read(photo.path))
    import keras

    keras.applications.ResNet50(weights=None, include_top=False).save_weights(
        Path(job["folder"]) / "resnet50.weights.h5"
    )
    return {"photos": len(photos)}


def solved(job: Values) -> Values:
    """The solved probe: the whole process counts."""
    run = kerastk.train(recipe(job, unfreeze="head", split="85/15"))
    return {"accuracy": run.metrics["validation"]["accuracy"]}


def forward(job: Values) -> Values:
    """The plain forward pass over the same views, in seconds: decoding and Keras's own network, no imports."""
    import numpy as np

    from kerastk.datasets.augment import MIRRORED
    from kerastk.networks.classifier import features_model

    data = kerastk.open_data(recipe(job, unfreeze="head", split="85/15"))
    network = features_model(kerastk.build(recipe(job, unfreeze="head", split="85/15")))
    rows = list(range(len(data.train.photos)))
    # Compiling is no forward pass.
    network.predict_on_batch(np.zeros((32, *network.input.shape[1:]), np.uint8))
    begin, count = time.perf_counter(), 0
    for split, policy, numbers in (
        (data.train, None, rows),
        (data.train, MIRRORED, rows),
        (data.val, None, list(range(len(data.val.photos)))),
    ):
        for images in split.view(numbers, policy, 0, 0, batch=32):
            network.predict_on_batch(images)
            count += len(images)
    return {"forward_seconds": time.perf_counter() - begin, "views": count}


def epoch(job: Values) -> Values:
    """Seconds of the training half of an epoch: over the cache, and of the tail alone on random arrays in memory."""
    import keras
    import numpy as np

    from kerastk.screen import Screen
    from kerastk.training.phases import Phase, optimizer, prepare
    from kerastk.training.plan import plan

    wanted = recipe(job, epochs=6, name="epoch")
    settled = plan(wanted, screen=Screen(False))
    run = kerastk.train(wanted)
    rows = [row for row in run.log if row["phase"] == "finetune"][1:]
    train = settled.data.train
    photos = train.steps * train.batch_size
    cached = [photos / float(row["photos_per_second"]) for row in rows]

    phase = next(each for each in settled.phases if isinstance(each, Phase))
    point = settled.choices[phase.name].point
    tail = prepare(settled.model, phase, point.tensor)
    made = optimizer(phase, train.steps, model=settled.model, weight_decay=0.05, clipnorm=1.0, precision="float32")
    loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1)
    tail.compile(optimizer=made, loss=loss, metrics=["accuracy", "categorical_crossentropy"])
    random = np.random.default_rng(0)
    values = random.random((photos, *point.tensor.shape[1:]), np.float32).astype(np.float16)
    labels = np.eye(len(train.classes), dtype=np.float32)[random.integers(0, len(train.classes), photos)]
    alone: list[float] = []

    class Clock(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
            self.begin = time.perf_counter()

        def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
            alone.append(time.perf_counter() - self.begin)

    tail.fit(values, labels, batch_size=train.batch_size, epochs=6, verbose=0, callbacks=[Clock()])
    return {"cached": cached, "alone": alone[1:], "shape": list(point.tensor.shape[1:])}


def start(job: Values) -> Values:
    """Seconds from the end of the imports to the first phase and to the first batch; the prefix's forward passes."""
    import keras

    import kerastk.training.trainer
    from kerastk.training import probe
    from kerastk.training.cache import Activations

    begin = time.perf_counter()
    first: list[float] = []
    forwards: list[int] = []
    solving: list[float] = []
    solve = probe.SOLVERS["logistic"]
    probe.SOLVERS["logistic"] = lambda *given: solving.append(time.perf_counter() - begin) or solve(*given)

    class First(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
            if not first:
                first.append(time.perf_counter() - begin)
                self.model.stop_training = True

    count = Activations._forward
    Activations._forward = lambda *given: forwards.append(1) or count(*given)
    kerastk.train(recipe(job, epochs=12, learning_rate=job["learning_rate"]), callbacks=[First()])
    return {"start_seconds": solving[0], "batch_seconds": first[0], "forwards": len(forwards)}


def stored(job: Values) -> Values:
    """Test accuracy with the store in float32 and in float16, split by split."""
    found: Values = {}
    for dtype in ("float32", "float16"):
        runs = [kerastk.train(recipe(job, split_seed=seed, cache_dtype=dtype)) for seed in SEEDS]
        found[dtype] = [run.metrics["test"]["accuracy"] for run in runs]
        found[f"{dtype}_epochs"] = [run.metrics["best"]["epoch"] for run in runs]
    return found


WORKERS: dict[str, Callable[[Values], Values]] = {
    "thousand": thousand, "solved": solved, "forward": forward, "epoch": epoch, "start": start, "stored": stored,
}  # fmt: skip
PARTS = ("probe", "epoch", "start", "stored")


def process(name: str, work: Path, **job: Any) -> Values:
    """What a worker gives, and its wall time in seconds as `seconds`."""
    folder = work / name
    folder.mkdir(parents=True, exist_ok=True)
    task = folder / f"{time.time_ns()}.json"
    write_atomic(task, json.dumps({"worker": name, "folder": str(work), **job}))
    environment = {"KERASTK_CACHE": str(work / job.get("cache", name)), "KERAS_BACKEND": "tensorflow"}
    usage = measure(
        [sys.executable, str(HERE / "frozen.py"), "--worker", str(task)],
        log=folder / "log.txt",
        environment=environment,
    )
    return {"seconds": usage.seconds, **json.loads(task.with_suffix(".found").read_text())}


def probe_lines(work: Path, data: Path, weights: Path) -> list[str]:
    process("thousand", work, data=str(data))
    lines = []
    for base in BASES:
        file = weights if base == "mobilenet_v2" else work / "resnet50.weights.h5"
        job = {"data": str(work / "photos"), "base": base, "weights": str(file)}
        plain = process("forward", work, cache=f"forward-{base}", **job)
        ours = process("solved", work, cache=f"solved-{base}", **job)
        bound = 1.3 * plain["forward_seconds"] + 15
        lines.append(
            f"- {verdict(ours['seconds'] <= bound)}: the solved probe within 1.3 plain forward passes and 15 s: "
            f"{base}, {PHOTOS} photos, {plain['views']} views: {ours['seconds']:.1f} s from process start to end; the "
            f"plain pass takes {plain['forward_seconds']:.1f} s: at most {bound:.1f} s"
        )
    return lines


def epoch_lines(work: Path, data: Path, weights: Path) -> list[str]:
    found = process("epoch", work, data=str(data), base="mobilenet_v2", weights=str(weights))
    cached, alone = statistics.median(found["cached"]), statistics.median(found["alone"])
    return [
        f"- {verdict(cached <= 1.25 * alone)}: an epoch over the cache within 1.25 times the tail alone on random "
        f"arrays {tuple(found['shape'])}: {cached / alone:.2f} times ({cached:.2f} s and {alone:.2f} s, medians of "
        f"{len(found['cached'])} epochs)"
    ]


def start_lines(work: Path, data: Path, weights: Path) -> list[str]:
    job = {"data": str(data), "base": "mobilenet_v2", "weights": str(weights), "cache": "start"}
    process("start", work, learning_rate=3e-4, **job)
    again = [process("start", work, learning_rate=1e-4, **job) for _ in range(3)]
    seconds = statistics.median(each["start_seconds"] for each in again)
    batch = statistics.median(each["batch_seconds"] for each in again)
    forwards = sum(each["forwards"] for each in again)
    return [
        f"- {verdict(seconds <= 3 and forwards == 0)}: from a warm store no forward pass of the frozen part, and "
        f"training within 3 s of the end of the imports: {forwards} passes, {seconds:.1f} s to the first phase, "
        f"{batch:.1f} s to the first batch of the second (medians of 3 processes)"
    ]


def stored_lines(work: Path, data: Path, weights: Path) -> list[str]:
    found = process("stored", work, data=str(data), base="mobilenet_v2", weights=str(weights))
    shown = {name: ", ".join(f"{value:.3f}" for value in found[name]) for name in ("float32", "float16")}
    change = statistics.mean(found["float16"]) - statistics.mean(found["float32"])
    return [
        f"- test accuracy with activations stored in float32: {shown['float32']}; in float16: {shown['float16']} "
        f"(splits 0, 1, 2; {100 * change:+.1f} points in the mean)"
    ]


def verdict(holds: bool) -> str:
    return "holds" if holds else "FAILS"


@click.command(help=__doc__)
@click.option("--data", type=Path, help="Photos.  [default: the shared flowers5]")
@click.option("--weights", type=Path, help="MobileNetV2's weights without its head.  [default: the shared file]")
@click.option("--only", default=",".join(PARTS), show_default=True, help="Which parts to run.")
@click.option("--results", type=Path, default=HERE / "RESULTS.md", help="Where the lines go.")
@click.option("--work", type=Path, default=HERE.parent / "build" / "frozen-benchmark", help="Intermediate files.")
@click.option("--worker", type=Path, hidden=True, help="Be the process of one measurement.")
def main(data: Path | None, weights: Path | None, only: str, results: Path, work: Path, worker: Path | None) -> None:
    if worker is not None:
        job = json.loads(worker.read_text())
        write_atomic(worker.with_suffix(".found"), json.dumps(WORKERS[job["worker"]](job)))
        return
    shared = Path(os.environ.get("KERASTK_SHARED") or HERE.parent.parent / "shared")
    data = (data or shared / "data" / "flowers5.zip").resolve()
    weights = (weights or shared / "weights" / "mobilenet_v2_1.0_224_notop.weights.h5").resolve()
    lines = []
    for part in only.split(","):
        if part not in PARTS:
            raise click.BadParameter(f"--only takes {', '.join(PARTS)}; got {part!r}.")
        measured = {"probe": probe_lines, "epoch": epoch_lines, "start": start_lines, "stored": stored_lines}[part]
        # A new folder each time: nothing of an earlier measurement is warm.
        for line in measured(work.resolve() / f"{part}-{time.time_ns()}", data, weights):
            click.echo(line)
            lines.append(line)
    where = {**machine(), **versions("keras", "tensorflow", "kerastk")}
    lines.append(
        f"\n{time.strftime('%Y-%m-%d')}; {where['cpu']}, {where['cores']} cores; "
        + ", ".join(f"{name} {where[name]}" for name in ("python", "keras", "tensorflow", "kerastk"))
        + f" (sources {code_hash(Path(kerastk.__file__).parent)}); `python benchmarks/frozen.py --only {only}`, "
        + f"{data.stem}."
    )
    write_section(results, "frozen", "\n".join(lines))
    click.echo(f"wrote {results}")


if __name__ == "__main__":
    main()
