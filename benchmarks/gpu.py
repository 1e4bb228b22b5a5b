"""Training ResNet50 at 224 px on a GPU: photos/s and peak memory, by arithmetic, synthetic and from JPEG files.

    KERAS_BACKEND=jax python benchmarks/gpu.py          # or torch, or tensorflow: each adds its rows to the table
    python benchmarks/gpu.py --data photos/ --batch-size 128
    python benchmarks/gpu.py --allow-cpu --size 64 --batch-size 8 --steps 2 --photos 40     # does the script work?

Each measurement is a process of its own. All weights are trained, by AdamW, as a run from random weights does it. The
first epoch compiles and is left out; the others' median counts. What is synthetic is one batch in the host's memory,
again and again; the JPEG files pass kerastk's own pipeline, decoded, augmented and batched by Grain. With JAX and
PyTorch TensorFlow is hidden, as on a machine that has none.
"""

import importlib.util
import itertools
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from measuring import Ledger, ProcessFailed, code_hash, machine, measure, versions, write_section

import kerastk
from kerastk.storage import write_atomic

HERE = Path(__file__).resolve().parent
BASE = "resnet50"
PRECISIONS = ("float32", "tf32", "bfloat16")
INPUTS = ("synthetic", "jpeg")
CLASSES, WARM_EPOCHS = 10, 1
Values = dict[str, Any]


class NoTensorFlow:
    """An importer that finds no TensorFlow."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name.partition(".")[0] == "tensorflow":
            raise ModuleNotFoundError(f"no module named {name!r}: this benchmark goes without it", name=name)


def look(job: Values) -> Values:
    """The GPU's name and compute capability, None where there is none."""
    import keras

    from kerastk.errors import RecipeError
    from kerastk.training.device import choose_device

    try:
        device = choose_device("gpu")
    except RecipeError:
        return {"gpu": None, "tf32": False}
    number = int(device.partition(":")[2])
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        details = tf.config.experimental.get_device_details(tf.config.list_physical_devices("GPU")[number])
        return {"gpu": details["device_name"], "tf32": details.get("compute_capability", (0, 0)) >= (8, 0)}
    if keras.backend.backend() == "jax":
        import jax

        gpu = jax.devices("gpu")[number]
        return {"gpu": gpu.device_kind, "tf32": float(getattr(gpu, "compute_capability", 0) or 0) >= 8}
    import torch

    return {"gpu": torch.cuda.get_device_name(number), "tf32": torch.cuda.get_device_capability(number) >= (8, 0)}


def train(job: Values) -> Values:
    """Photos/s and the share of time waiting, by epoch; a GPU's peak memory in 10^6 bytes."""
    set_arithmetic(job["precision"])
    import keras
    import numpy as np

    from kerastk.networks.classifier import classifier
    from kerastk.training.device import set_precision
    from kerastk.training.phases import Phase, optimizer, prepare

    size, batch, steps, rows = job["size"], job["batch"], job["steps"], None
    classes = CLASSES
    if job["input"] == "jpeg":
        recipe = kerastk.Finetune(
            data=job["data"], base=BASE, weights="none", image_size=size, batch_size=batch, split="90/10"
        )
        rows = kerastk.open_data(recipe).train
        classes, batch, steps = len(rows.classes), rows.batch_size, rows.steps
        batches = rows.batches(0, job["epochs"])
    else:
        random = np.random.default_rng(0)
        images = random.integers(0, 256, (batch, size, size, 3), np.uint8)
        labels = np.eye(classes, dtype=np.float32)[random.integers(0, classes, batch)]
        batches = itertools.repeat((images, labels), job["epochs"] * steps)
        batches = (each for each in batches)

    model = classifier(BASE, classes=classes, image_size=size, dropout=0.0, weights=None)
    set_precision(model, "bfloat16" if job["precision"] == "bfloat16" else "float32")
    phase = Phase(name="all", epochs=job["epochs"], unfreeze="all", learning_rate=1e-3, warmup_epochs=0.0, fresh=True)
    fitted = prepare(model, phase)
    made = optimizer(phase, steps, weight_decay=0.05, clipnorm=1.0, precision="float32")
    fitted.compile(made, loss=keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1))
    speeds, waits = [], []

    class Clock(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
            self.begin, self.waited = time.perf_counter(), rows.waited if rows else 0.0

        def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
            # The loss in `logs` is a number by now, so the device has come to the epoch's end.
            seconds = time.perf_counter() - self.begin
            speeds.append(steps * batch / seconds)
            waits.append(((rows.waited if rows else 0.0) - self.waited) / seconds)

    fitted.fit(batches, steps_per_epoch=steps, epochs=job["epochs"], callbacks=[Clock()], verbose=0, shuffle=False)
    return {"speeds": speeds[WARM_EPOCHS:], "waits": waits[WARM_EPOCHS:], "device_mb": device_memory(job["gpu"])}


def set_arithmetic(precision: str) -> None:
    """Let float32 be float32, or TF32 inside the GPU's matrix units; beside bfloat16 the rest may be TF32."""
    import keras

    tf32 = precision != "float32"
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_tensor_float_32_execution(tf32)
    elif keras.backend.backend() == "jax":
        import jax

        jax.config.update("jax_default_matmul_precision", "tensorfloat32" if tf32 else "float32")
    else:
        import torch

        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32


def device_memory(gpu: str | None) -> float | None:
    """The most memory of the GPU that was in use so far, in 10^6 bytes; None without a GPU."""
    import keras

    if gpu is None:
        return None
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.config.experimental.get_memory_info("GPU:0")["peak"] / 1e6
    if keras.backend.backend() == "jax":
        import jax

        return jax.devices("gpu")[0].memory_stats()["peak_bytes_in_use"] / 1e6
    import torch

    return torch.cuda.max_memory_allocated(0) / 1e6


def photos(job: Values) -> Values:
    """Write random photos of 500 x 375 as JPEG, in class folders."""
    import numpy as np
    from PIL import Image

    for number in range(job["count"]):
        random = np.random.default_rng(number)
        coarse = Image.fromarray(random.integers(0, 256, (12, 16, 3), np.uint8)).resize((500, 375), Image.BICUBIC)
        noisy = np.clip(np.asarray(coarse, np.int16) + random.integers(-12, 13, (375, 500, 3)), 0, 255)
        path = Path(job["folder"]) / f"class-{number % CLASSES}" / f"{number:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noisy.astype(np.uint8)).save(path, quality=85)
    return {"count": job["count"]}


WORKERS: dict[str, Callable[[Values], Values]] = {"look": look, "photos": photos, "train": train}


def process(name: str, work: Path, backend: str, **job: Any) -> Values:
    """What a worker gives, and the peak of its resident memory in 10^6 bytes as `process_mb`."""
    task = work / f"{name}-{time.time_ns()}.json"
    write_atomic(task, json.dumps({"worker": name, **job}))
    # TensorFlow says much at its start, and JAX takes three quarters of the GPU unless told not to.
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    environment = {"KERAS_BACKEND": backend, "KERASTK_CACHE": str(work / "cache"), **quiet}
    command = [sys.executable, str(HERE / "gpu.py"), "--worker", str(task)]
    usage = measure(command, log=task.with_suffix(".log"), environment=environment)
    return {"process_mb": usage.memory_mb, **json.loads(task.with_suffix(".found").read_text())}


def table(rows: list[Values]) -> str:
    """The newest row of each GPU, backend, size, input and arithmetic, in that order."""
    names = ("gpu", "backend", "size", "batch", "input", "precision")
    newest = {tuple(row[name] for name in names): row for row in rows}
    lines = [
        "| GPU | backend | px | batch | input | arithmetic | photos/s | waiting | peak memory, MB | measured |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for key in sorted(newest, key=str):
        row = newest[key]
        wait = "-" if row["input"] == "synthetic" else f"{100 * row['wait']:.0f} %"
        shown = (*key, f"{row['speed']:.0f}", wait, f"{row['memory_mb']:.0f}", row["measured"])
        lines.append("| " + " | ".join(str(each if each is not None else "none: CPU") for each in shown) + " |")
    return "\n".join(lines)


@click.command(help=__doc__)
@click.option("--data", type=Path, help="Photos in class folders.  [default: random ones are written]")
@click.option("--photos", "count", default=2048, show_default=True, help="How many random photos.")
@click.option("--size", default=224, show_default=True, help="Their side in the network, in px.")
@click.option("--batch-size", "batch", default=64, show_default=True)
@click.option("--steps", default=40, show_default=True, help="Steps of a synthetic epoch.")
@click.option("--epochs", default=4, show_default=True, help="The first of them is not counted.")
@click.option("--allow-cpu", is_flag=True, help="Run without a GPU, to try the script; nothing goes into RESULTS.md.")
@click.option("--results", type=Path, help="Where the table goes.  [default: RESULTS.md, from a GPU only]")
@click.option("--work", type=Path, default=HERE.parent / "build" / "gpu-benchmark", help="Intermediate files.")
@click.option("--worker", type=Path, hidden=True, help="Be the process of one measurement.")
def main(
    data: Path | None, count: int, size: int, batch: int, steps: int, epochs: int, allow_cpu: bool,
    results: Path | None, work: Path, worker: Path | None,
) -> None:  # fmt: skip
    if worker is not None:
        job = json.loads(worker.read_text())
        if os.environ["KERAS_BACKEND"] != "tensorflow":
            # Where it is installed keras.utils imports it on every backend.
            sys.meta_path.insert(0, NoTensorFlow())
        write_atomic(worker.with_suffix(".found"), json.dumps(WORKERS[job["worker"]](job)))
        return
    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    if backend not in ("jax", "tensorflow", "torch") or importlib.util.find_spec(backend) is None:
        raise click.ClickException(f"KERAS_BACKEND must be jax, tensorflow or torch, and installed; got {backend!r}.")
    if epochs <= WARM_EPOCHS:
        raise click.ClickException(f"--epochs must be more than {WARM_EPOCHS}, which is not counted; got {epochs}.")
    work = work.resolve()
    try:
        found = process("look", work, backend)
        gpu = found["gpu"]
        if gpu is None and not allow_cpu:
            raise click.ClickException(f"no GPU: the {backend} backend sees none; --allow-cpu tries the script.")
        if data is None:
            data = work / f"photos-{count}"
            if not data.exists():
                partial = work / f"partial-{time.time_ns()}"
                process("photos", work, backend, folder=str(partial), count=count)
                partial.rename(data)
        rows = []
        for precision, source in itertools.product(PRECISIONS, INPUTS):
            if precision == "tf32" and not found["tf32"]:
                continue
            job = {"data": str(data.resolve()), "size": size, "batch": batch, "steps": steps, "epochs": epochs}
            one = process("train", work, backend, precision=precision, input=source, gpu=gpu, **job)
            rows.append(row_of(one, backend, gpu, size=size, batch=batch, input=source, precision=precision))
            click.echo(f"{source}, {precision}: {rows[-1]['speed']:.1f} photos/s, waiting {rows[-1]['wait']:.0%}")
    except ProcessFailed as error:
        raise click.ClickException(str(error)) from None
    if gpu is not None:
        ledger = Ledger(work / "measurements.jsonl")
        for row in rows:
            ledger.append(row)
        rows = [row for row in ledger.rows() if row["gpu"] is not None]
        results = results or HERE / "RESULTS.md"
    text = f"`python benchmarks/gpu.py`: all of `{BASE}` trained.\n\n{table(rows)}"
    click.echo(text)
    if results is not None:
        write_section(results, "gpu", text)
        click.echo(f"wrote {results}")


def row_of(found: Values, backend: str, gpu: str | None, **settings: Any) -> Values:
    """A line of the ledger: medians over the epochs, and where, when and with what it was measured."""
    where = {**machine(), **versions("keras", backend, "kerastk")}
    shown = ", ".join(f"{name} {where[name]}" for name in ("python", "keras", backend, "kerastk"))
    return {
        "backend": backend,
        "gpu": gpu,
        **settings,
        "speed": statistics.median(found["speeds"]),
        "wait": statistics.median(found["waits"]),
        "memory_mb": found["device_mb"] or found["process_mb"],
        "measured": f"{time.strftime('%Y-%m-%d')}; {where['cpu']}, {where['cores']} cores; {shown} "
        f"(sources {code_hash(Path(kerastk.__file__).parent)})",
    }


if __name__ == "__main__":
    main()
