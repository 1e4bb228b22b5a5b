"""What augmentation costs: photos a second through the one data path, against the plain decode.

python benchmarks/augmentation.py                # 400 JPEG files of 500 x 375, a minute on two cores
"""

import statistics
import tempfile
import time
from pathlib import Path

import click
import numpy as np
from measuring import machine, versions, write_section
from PIL import Image, ImageFilter

from kerastk.datasets.augment import policy
from kerastk.datasets.check import check
from kerastk.datasets.pipeline import Split
from kerastk.datasets.source import open_source

HERE = Path(__file__).resolve().parent
PHOTOS, ROUNDS = 400, 5
WANTED = {"strong": 0.70, "randaugment": 0.60}
POLICIES = ("none", "light", "strong", "randaugment", "trivial", "augmix")


def write_photos(folder: Path) -> None:
    """Smooth coloured noise, which a JPEG takes about as many bytes for as for a photo."""
    for number in range(PHOTOS):
        random = np.random.default_rng(number)
        small = Image.fromarray(random.integers(0, 256, (47, 63, 3), np.uint8)).resize(
            (500, 375), Image.Resampling.BICUBIC
        )
        made = small.filter(ImageFilter.DETAIL)
        place = folder / str(number % 2)
        place.mkdir(exist_ok=True)
        made.save(place / f"{number}.jpg", quality=90)


@click.command(help=__doc__)
@click.option("--threads", type=click.IntRange(1), help="Threads.  [default: one a core]")
@click.option("--results", type=Path, default=HERE / "RESULTS.md", help="Where the table goes.")
def main(threads: int | None, results: Path) -> None:
    setting = machine()
    with tempfile.TemporaryDirectory() as folder:
        write_photos(Path(folder))
        look = check(open_source(folder))
        rates: dict[str, list[float]] = {name: [] for name in POLICIES}
        # In turns, so that a noisy moment of the machine meets all of them.
        for turn in range(ROUNDS + 1):
            for name in POLICIES:
                split = Split(
                    look.photos, look.source.read, classes=look.source.classes, image_size=224, resize="crop",
                    batch_size=32, threads=threads or setting["cores"], policy=None if name == "none" else policy(name),
                )  # fmt: skip
                begin = time.perf_counter()
                count = sum(len(images) for images, _ in split.batches(turn, turn + 1))
                if turn:
                    rates[name].append(count / (time.perf_counter() - begin))
    plain = statistics.median(rates["none"])
    lines = ["| policy | photos/s | of the plain decode |", "|---|---|---|"]
    for name, found in rates.items():
        share = statistics.median(found) / plain
        wanted = (
            f" ({'holds' if share >= WANTED[name] else 'FAILS'}: at least {WANTED[name]:.0%})" if name in WANTED else ""
        )
        lines.append(f"| {name} | {statistics.median(found):.0f} | {share:.0%}{wanted} |")
    where = {**setting, **versions("pillow", "numpy", "kerastk")}
    lines.append(
        f"\n{time.strftime('%Y-%m-%d')}; {where['cpu']}, {where['cores']} cores; python {where['python']}, pillow "
        f"{where['pillow']}, numpy {where['numpy']}, kerastk {where['kerastk']}; `python benchmarks/augmentation.py`, "
        f"{PHOTOS} JPEG files of 500 x 375 at 224 px, medians of {ROUNDS} turns."
    )
    click.echo("\n".join(lines))
    write_section(results, "augmentation", "\n".join(lines))


if __name__ == "__main__":
    main()
