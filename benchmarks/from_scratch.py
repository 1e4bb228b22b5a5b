"""Recipes that train from random weights, and the base that ships: MNIST, CIFAR-10, `mini` on photos.

    python benchmarks/from_scratch.py                            # hours on 2 cores
    python benchmarks/from_scratch.py --only mnist-fast,mini     # some of it
    python benchmarks/from_scratch.py --only cifar10-fast --seeds 0 --cifar10 cifar-10-batches-bin

Each way is `kerastk train RECIPE` or `kerastk finetune` in a process and with a cache of its own, and its figure
is that of the run's own test on images that it has not seen. What is measured stands in from_scratch.jsonl beside this
file, since one machine seldom has the hours for all of it: the tables in RESULTS.md are made of that. CIFAR-10's images
are JPEG copies in the shared folder; with `--cifar10` they are the exact ones.
"""

import functools
import json
import statistics
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
from comparing import (
    Part,
    Row,
    by_way,
    finish,
    judged,
    measure_missing,
    newest,
    numbers,
    shared_folder,
    some_of,
    when_and_where,
)
from measuring import Ledger, code_hash, machine, measure, versions

import kerastk

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Claim:
    """What a recipe is said to reach on its test images, if anything, and in how many seconds of the whole process."""

    data: str
    accuracy: float | None = None
    seconds: float | None = None


# CIFAR-10 as JPEG files of the shared folder, and its own binary files.
COPIES, EXACT = "cifar10.zip", "cifar10"
RECIPES = {
    "mnist-lenet": Claim("mnist", 0.99),
    "mnist-fast": Claim("mnist", 0.994, 300),
    "mnist-ensemble": Claim("mnist", 0.996),
    "cifar10-fast": Claim(COPIES, 0.93, 5400),
    "cifar10-resnet20": Claim(COPIES, 0.91),
    "cifar10-wrn": Claim(COPIES),
}
PROBE = ["--unfreeze", "head"]
ALL = ["--unfreeze", "all", "--augment", "strong", "--learning-rate", "0.001", "--epochs", "24"]
MOBILENET = "mobilenet_v2_0.35_224_notop.weights.h5"
# On each of PHOTOS, fine-tuning on the first alone; the seed also says which photos are for the test.
PHOTOS = ("flowers5.zip", "caltech24.zip")
FINE_TUNED, RANDOM = "mini, fine-tuned", "mini with random weights, solved probe"
BASES = {
    "mini, solved probe": ["--base", "mini", *PROBE],
    RANDOM: ["--base", "mini", *PROBE],
    "mobilenet_v2_0.35 at 96 px, solved probe": ["--base", "mobilenet_v2_0.35", "--image-size", "96", *PROBE],
    FINE_TUNED: ["--base", "mini", *ALL],
}
# What the probe on mini reaches at least, how far above random weights, and fine-tuning on flowers5.
PROBED, ABOVE, TUNED = 0.70, 0.25, 0.80
WAYS = (*RECIPES, "mini")


def run_way(command: list[str], folder: Path, weights: Path) -> list[Row]:
    """Run `kerastk COMMAND` in an empty place, and give its test's figures."""
    folder.mkdir(parents=True, exist_ok=True)
    runs = folder / "runs"
    environment = {
        "KERASTK_CACHE": str(folder / "cache"), "KERASTK_WEIGHTS": str(weights), "KERAS_BACKEND": "tensorflow",
    }  # fmt: skip
    whole = [sys.executable, "-m", "kerastk", *command, "--runs", str(runs), "--name", "run"]
    usage = measure(whole, log=folder / "log.txt", environment=environment)
    test = json.loads((runs / "run" / "metrics.json").read_text())["test"]
    return [{"seconds": usage.seconds, "score": test["accuracy"], "images": test["photos"]}]


def random_weights(work: Path, seed: int) -> Path:
    """A file of the weights that mini has before it has learned anything; written by a process of its own."""
    path = work / f"random-{seed}.weights.h5"
    if not path.exists():
        code = (
            "import sys, keras; from kerastk.networks.mini import mini; keras.utils.set_random_seed(int(sys.argv[2])); "
            "mini(keras.Input((96, 96, 3))).save_weights(sys.argv[1])"
        )
        work.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-c", code, str(path), str(seed)]
        measure(command, log=work / "random.txt", environment={"KERAS_BACKEND": "tensorflow"})
    return path


def parts(only: list[str], seeds: list[int], work: Path, shared: Path, cifar10: Path | None) -> Iterator[Part]:
    """Every way on its data with every seed; `cifar10` is a folder of the exact images, where there is one."""
    setting = {**machine(), **versions("keras", "tensorflow", "kerastk")}
    weights = shared / "weights"
    for way in only:
        if way in RECIPES:
            jobs = [(way, RECIPES[way].data, ["train", way, "--data"])]
        else:
            jobs = [(name, photos, options) for photos in PHOTOS for name, options in BASES.items()]
            jobs = [job for job in jobs if job[0] != FINE_TUNED or job[1] == PHOTOS[0]]
        for (name, data, options), seed in [(job, seed) for job in jobs for seed in seeds]:
            place = str(shared / "data" / data)
            if cifar10 is not None and data == COPIES:
                data, place = EXACT, str(cifar10)
            if way in RECIPES:
                command = [*options, place]
                recipe = tomllib.loads((HERE.parent / "recipes" / f"{way}.toml").read_text())
            else:
                command, recipe = ["finetune", place, *options, "--split-seed", str(seed)], {}
                if "mobilenet" in name:
                    command += ["--weights", str(weights / MOBILENET)]
                if name == RANDOM:
                    command += ["--weights", str(random_weights(work, seed))]
            command += ["--seed", str(seed)]
            folder = work / f"{name.replace(' ', '-').replace(',', '')}-{Path(data).stem}-{seed}"
            yield Part(
                f"{name}, {data}, seed {seed}", {"data": data, "way": name, "seed": seed},
                {"version": code_hash(Path(kerastk.__file__).parent), "recipe": recipe}, setting,
                functools.partial(run_way, command, folder, weights),
            )  # fmt: skip


def done(ledger: Ledger, place: Row, marks: Row) -> bool:
    return any({**place, **marks}.items() <= row.items() for row in ledger.rows())


def of_recipes(rows: list[Row]) -> str:
    """The table of the recipes and their claims, as Markdown."""
    rows = newest(rows)
    found = by_way(rows)
    lines = ["| recipe | images | test accuracy: mean (seeds) | seconds, median |", "|---|---|---|---|"]
    claims = []
    for way, claim in RECIPES.items():
        images = (EXACT, COPIES) if claim.data == COPIES else (claim.data,)
        measured = {data: found[data, way] for data in images if (data, way) in found}
        if not measured and claim.accuracy is not None:
            claims.append(judged(f"{way} reaches {claim.accuracy:.1%}", None))
        for data, by_seed in measured.items():
            mean, seconds = _mean(by_seed), statistics.median(row["seconds"] for row in by_seed.values())
            lines.append(f"| {way} | {data} | {mean:.2%} ({_each(by_seed)}) | {seconds:,.0f} |")
            if claim.accuracy is not None:
                reached = f"{way} reaches {claim.accuracy:.1%} on {data}"
                claims.append(judged(reached, mean >= claim.accuracy, f"{mean:.2%}"))
            if claim.seconds is not None:
                within = f"{way} takes at most {claim.seconds / 60:.0f} minutes on {data}"
                claims.append(judged(within, seconds <= claim.seconds, f"{seconds / 60:.1f}"))
    how = (
        "`python benchmarks/from_scratch.py`: the shipped recipes on the images of their data sets. `cifar10` "
        "is the images that papers report on; those of `cifar10.zip` are JPEG files made of them, of quality 75 with "
        "colours at half the resolution."
    )
    return _page(how, lines, rows, claims)


def of_mini(rows: list[Row]) -> str:
    """The table of the base that ships and its claims, as Markdown."""
    rows = newest(rows)
    found = by_way(rows)
    lines = ["| base | data | test accuracy: mean (splits) | seconds, median |", "|---|---|---|---|"]
    claims = []
    for data in PHOTOS:
        means = {}
        for way in BASES:
            if (by_seed := found.get((data, way))) is not None:
                means[way] = _mean(by_seed)
                seconds = statistics.median(row["seconds"] for row in by_seed.values())
                lines.append(f"| {way} | {Path(data).stem} | {means[way]:.3f} ({_each(by_seed)}) | {seconds:,.0f} |")
        claims += _of_mini(Path(data).stem, means)
    how = (
        "`python benchmarks/from_scratch.py --only mini`: the shipped base `mini` at its own size beside MobileNetV2 "
        f"of width 0.35, which has seen all of ImageNet; fine-tuned with `{' '.join(ALL)}`:"
    )
    return _page(how, lines, rows, claims)


def _page(how: str, lines: list[str], rows: list[Row], claims: list[str]) -> str:
    setting = f"{when_and_where(rows)}. Seconds are those of the whole process, look at the images and test included."
    return "\n\n".join([how, "\n".join(lines), setting, "\n".join(f"- {claim}" for claim in claims)])


def _of_mini(data: str, means: dict[str, float]) -> list[str]:
    probe, random, _, tuned = (means.get(way) for way in BASES)
    gain = None if probe is None or random is None else probe - random
    asked = [
        (f"the probe on mini reaches {PROBED:.2f} on {data}", probe, PROBED),
        (f"it is {ABOVE:.2f} above the same network with random weights on {data}", gain, ABOVE),
    ]
    if data == Path(PHOTOS[0]).stem:
        asked.append((f"fine-tuned mini reaches {TUNED:.2f} on {data}", tuned, TUNED))
    return [
        judged(claim, None) if value is None else judged(claim, value >= least, f"{value:.3f}")
        for claim, value, least in asked
    ]


def _mean(by_seed: dict[int, Row]) -> float:
    return statistics.mean(row["score"] for row in by_seed.values())


def _each(by_seed: dict[int, Row]) -> str:
    return ", ".join(f"{seed}: {row['score']:.4f}" for seed, row in by_seed.items())


@click.command(help="Recipes from random weights, and the base that ships.")
@click.option("--only", default=",".join(WAYS), show_default=True, callback=some_of(WAYS), help="Some of it.")
@click.option(
    "--seeds", default="0,1,2", show_default=True, callback=numbers, help="Order and weights; of mini, the split."
)
@click.option("--results", type=Path, default=HERE / "RESULTS.md", help="Where the tables go.")
@click.option("--work", type=Path, default=HERE.parent / "build" / "from-scratch", help="Intermediate files.")
@click.option("--ledger", type=Path, default=HERE / "from_scratch.jsonl", help="What is measured, a JSON line each.")
@click.option("--cifar10", type=click.Path(path_type=Path, exists=True), help="CIFAR-10's binary files.")
@click.option("--report-only", is_flag=True, help="Only write the tables of what is measured.")
def main(
    only: list[str], seeds: list[int], results: Path, work: Path, ledger: Path, cifar10: Path | None, report_only: bool
) -> None:  # fmt: skip
    work, shared = work.resolve(), shared_folder().resolve()
    measured = Ledger(ledger)
    failures = 0
    if not report_only:
        if not (shared / "data").is_dir():
            raise click.ClickException(f"no data in {shared}; set KERASTK_SHARED to the folder that has it.")
        failures = measure_missing(
            parts(only, seeds, work, shared, cifar10 and cifar10.resolve()), measured, done=done,
            shown=lambda row: f"{row['score']:.4f}, {row['seconds']:.0f} s",
        )  # fmt: skip
    if not measured.rows():
        raise click.ClickException(f"nothing is measured in {ledger}.")
    for section, report, ways in (("from-scratch", of_recipes, RECIPES), ("mini", of_mini, BASES)):
        if rows := [row for row in measured.rows() if row["way"] in ways]:
            finish(rows, measured, results, section=section, report=report, failures=failures, trial=None)


if __name__ == "__main__":
    main()
