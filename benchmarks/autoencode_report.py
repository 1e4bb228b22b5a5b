"""The section `autoencode` of RESULTS.md: tables of what autoencode.py measured, and which claims hold."""

import statistics
from collections.abc import Sized

from comparing import Row, by_way, judged, newest, when_and_where

Found = dict[tuple[str, str], dict[int, Row]]

# Summed squared errors of the paper (Hinton and Salakhutdinov 2006, Science 313), of the same network or size.
PAPER = {
    ("mnist", "kerastk"): 3.00, ("mnist", "rbm"): 3.00, ("mnist", "logistic PCA 30"): 8.01,
    ("mnist", "PCA 30"): 13.87, ("curves", "kerastk"): 1.44, ("curves", "rbm"): 1.44,
    ("curves", "logistic PCA 6"): 7.64, ("curves", "PCA 18"): 5.90,
}  # fmt: skip
CODES = {
    "kerastk": "deep, no pretraining", "rbm": "deep, layer by layer first",
    "guide": "784-128-64-32, the Keras blog's",
}  # fmt: skip
RECONSTRUCTED = ("mnist", "curves")
ORDER = ("kerastk", "rbm", "guide")

# What kerastk claims of itself: errors, decibels, nats, shares and minutes.
DEEP, MINUTES, BY_RBM, CURVES = 2.5, 40, 3.2, 1.44
LINEAR_MNIST, LINEAR_CURVES, LINEAR_APART = 13.87, 5.90, 0.05
GAIN, ELBO, AUROC = 9.0, -105.0, 0.95
DIGITS = range(10)
# Of ten shares, each within its 95 % interval in 95 of 100 cases, fewer are so in 1 of 100.
WITHIN = 8


def report(rows: list[Row]) -> str:
    """The tables, where and when they were measured, and which claims hold; as Markdown."""
    rows = newest(rows)
    found = by_way(rows)
    tables = (reconstruction_table(found), figures_table(found), digits_table(found))
    return "\n\n".join(
        [
            "`python benchmarks/autoencode.py`: the shipped recipes, beside linear codes and what others have.",
            *filter(None, tables),
            circumstances(rows),
            "\n".join(f"- {line}" for line in claims(found)),
        ]
    )


# Tables.


def lines(head: list[str], rows: list[list[str]]) -> str:
    """A table, or nothing where it has no rows."""
    if not rows:
        return ""
    first, *others = (f"| {' | '.join(cells)} |" for cells in (head, *rows))
    return "\n".join([first, "|---" * len(head) + "|", *others])


def cost(by_seed: dict[int, Row]) -> list[str]:
    """Seconds and memory as cells."""
    rows = by_seed.values()
    return [f"{statistics.median(row['seconds'] for row in rows):.0f}", f"{max(row['memory_mb'] for row in rows):.0f}"]


def over_seeds(by_seed: dict[int, Row], digits: int, *, signed: bool = False) -> str:
    """The mean of the scores and each of them."""
    sign = "+" if signed else ""
    each = ", ".join(f"{seed}: {row['score']:{sign}.{digits}f}" for seed, row in by_seed.items())
    return f"{mean(by_seed):{sign}.{digits}f} ({each})"


def mean(by_seed: dict[int, Row]) -> float:
    return statistics.mean(row["score"] for row in by_seed.values())


def reconstruction_table(found: Found) -> str:
    """Errors of MNIST and the curves beside the paper's."""

    def in_order(item: tuple[tuple[str, str], dict[int, Row]]) -> tuple:
        (data, way), by_seed = item
        known = ORDER.index(way) if way in ORDER else len(ORDER)
        return RECONSTRUCTED.index(data), known, mean(by_seed) if known == len(ORDER) else 0

    rows = []
    for (data, way), by_seed in sorted(((key, row) for key, row in found.items() if key[0] in RECONSTRUCTED),
                                       key=in_order):  # fmt: skip
        row = next(iter(by_seed.values()))
        note = CODES.get(way, f"fitted on {row['fitted_on']:,} images" if "fitted_on" in row else "")
        reach = max((row["error_95"][1] - row["error_95"][0]) / 2 for row in by_seed.values())
        paper = PAPER.get((data, way))
        epochs = "/".join(str(row["epochs"]) for row in by_seed.values() if "epochs" in row) or "-"
        cells = [data, way, note, f"{over_seeds(by_seed, 2)} ± {reach:.2f}", "-" if paper is None else f"{paper:.2f}"]
        rows.append([*cells, epochs, *cost(by_seed)])
    return lines(
        ["data", "way", "what", "test error: mean (seeds) ± 95 %", "the paper's", "epochs", "seconds, median",
         "peak memory, MB"], rows,
    )  # fmt: skip


def figures_table(found: Found) -> str:
    """What denoising, enlarging and the variational code give."""
    rows = []
    for (data, way), by_seed in found.items():
        tests = [row.get("test", {}) for row in by_seed.values()]
        if data == "denoising":
            before, after = (statistics.mean(test["denoised"][f"psnr_{name}"] for test in tests)
                             for name in ("before", "after"))  # fmt: skip
            cells = ["PSNR gained, dB", over_seeds(by_seed, 2, signed=True), f"from {before:.2f} to {after:.2f} dB"]
        elif data == "artefacts":
            original = statistics.mean(test["checkerboard"]["originals"] for test in tests)
            error = statistics.mean(test["error"] for test in tests)
            note = f"originals {original:+.2f} dB; test error {error:.1f}"
            cells = ["patterns of period 2, dB", over_seeds(by_seed, 2, signed=True), note]
        elif data == "vae":
            nats, distance, active = (statistics.mean(values) for values in zip(
                *((test["nats"], test["kl"], test["prior"]["active"]) for test in tests), strict=True))  # fmt: skip
            note = f"{nats:.1f} for the pixels, {distance:.1f} KL; {active:g} of {tests[0]['prior']['numbers']} active"
            cells = ["ELBO, nats", over_seeds(by_seed, 2), note]
        else:
            continue
        epochs = "/".join(str(row["epochs"]) for row in by_seed.values())
        rows.append([data, way, *cells, epochs, *cost(by_seed)])
    return lines(
        ["part", "way", "figure", "test split: mean (seeds)", "beside it", "epochs", "seconds, median",
         "peak memory, MB"], rows,
    )  # fmt: skip


def digits_table(found: Found) -> str:
    """One class of MNIST after the other: how well the rest is found, and the false alarms."""
    rows, scores = [], {"kerastk": [], "pyod": []}
    for digit in DIGITS:
        ours, theirs = (found.get(("one_class", f"{name} {digit}"), {}) for name in scores)
        if not ours and not theirs:
            continue
        for name, by_seed in zip(scores, (ours, theirs), strict=True):
            scores[name] += [mean(by_seed)] if by_seed else []
        alarms = [f"{100 * each['test']['anomalies']['false_alarms']:.2f}" for each in ours.values()]
        spans = [" to ".join(f"{100 * end:.2f}" for end in each["interval"]) for each in ours.values()]
        rows.append([
            f"{digit}", over_seeds(ours, 4) if ours else "-", over_seeds(theirs, 4) if theirs else "-",
            ", ".join(alarms) or "-", ", ".join(dict.fromkeys(spans)) or "-",
            *(", ".join(cost(each)) if each else "-" for each in (ours, theirs)),
        ])  # fmt: skip
    if rows:
        means = (f"{statistics.mean(each):.4f}" if len(each) == len(DIGITS) else "-" for each in scores.values())
        rows.append(["mean", *means, "", "", "", ""])
    return lines(
        ["normal digit", "AUROC of kerastk (seeds)", "AUROC of PyOD (seeds)", "false alarms, %",
         "their 95 % interval, %", "seconds, MB of kerastk", "of PyOD"], rows,
    )  # fmt: skip


def circumstances(rows: list[Row]) -> str:
    """Date, machine and versions, as the measurements recorded them, and what the columns are."""
    ours = [row for row in rows if not row["way"].startswith("pyod")]
    text = when_and_where(rows)
    codes = sorted({row["version"] for row in ours})
    text += f" (sources {', '.join(codes)})" if codes else ""
    peers = [f"pyod {row['version']} on python {row['setting']['way_python']}" for row in rows if row not in ours]
    text += "".join(f"; {peer}" for peer in dict.fromkeys(peers))
    return text + (
        ". Seconds and memory are those of the whole training process, in which kerastk's runs have the test, PCA and "
        "the report, too. Errors are squared ones, summed over an image whose pixels are from 0 to 1, as one scorer "
        "finds them that opens the saved models in plain Keras; the interval is that of the mean over test images. "
        "Logistic PCA here finds the code of each image by iteration. MNIST's training images are restored to within "
        "one grey level. The curves are kerastk's own, calibrated so that PCA with 18 components misses what it misses "
        "in the paper."
    )


# Claims.


def claims(found: Found) -> list[str]:
    """What kerastk claims of itself, each with `holds`, `FAILS` or `not decided` in front."""

    def of(data: str, way: str) -> dict[int, Row]:
        return found.get((data, way), {})

    deep = of("mnist", "kerastk")
    return [
        near_claim("mnist: test error of PCA with 30 components", of("mnist", "PCA 30"), LINEAR_MNIST),
        most_claim("mnist: mean test error without pretraining", deep, DEEP),
        minutes_claim(deep),
        most_claim("mnist: mean test error with restricted Boltzmann machines", of("mnist", "rbm"), BY_RBM),
        near_claim("curves: test error of PCA with 18 components", of("curves", "PCA 18"), LINEAR_CURVES),
        most_claim("curves: mean test error without pretraining", of("curves", "kerastk"), CURVES),
        least_claim("denoising: PSNR above the noisy input's by at least {} dB", of("denoising", "kerastk"), GAIN),
        *(artefact_claim(way, of("artefacts", way), of("artefacts", "transpose")) for way in ("subpixel", "resize")),
        least_claim("vae: mean test ELBO at least {} nats, dynamic binarisation", of("vae", "kerastk"), ELBO),
        detection_claim({digit: of("one_class", f"kerastk {digit}") for digit in DIGITS}),
        alarms_claim({digit: of("one_class", f"kerastk {digit}") for digit in DIGITS}),
    ]


def seeds(found: Sized) -> str:
    return f"{len(found)} seed{'s' if len(found) != 1 else ''}"


def near_claim(what: str, by_seed: dict[int, Row], wanted: float) -> str:
    claim = f"{what} {wanted:.2f} ± {LINEAR_APART:.2f}, as in the paper"
    if not by_seed:
        return judged(claim, None)
    return judged(claim, abs(mean(by_seed) - wanted) <= LINEAR_APART, f"{mean(by_seed):.3f}")


def most_claim(what: str, by_seed: dict[int, Row], most: float) -> str:
    claim = f"{what} at most {most:g}"
    if not by_seed:
        return judged(claim, None)
    return judged(claim, mean(by_seed) <= most, f"{mean(by_seed):.3f}, {seeds(by_seed)}")


def least_claim(claim: str, by_seed: dict[int, Row], least: float) -> str:
    claim = claim.format(f"{least:g}")
    if not by_seed:
        return judged(claim, None)
    return judged(claim, mean(by_seed) >= least, f"{mean(by_seed):.2f}, {seeds(by_seed)}")


def minutes_claim(by_seed: dict[int, Row]) -> str:
    claim = f"mnist: each run without pretraining in at most {MINUTES} minutes"
    if not by_seed:
        return judged(claim, None)
    longest = max(row["seconds"] for row in by_seed.values()) / 60
    return judged(claim, longest <= MINUTES, f"the longest took {longest:.1f}")


def artefact_claim(way: str, by_seed: dict[int, Row], others: dict[int, Row]) -> str:
    """Of the same seeds alone: the network before the decoder, the photos and their order are the same."""
    claim = f"artefacts: {way} leaves less of a checkerboard than transpose"
    both = sorted(set(by_seed) & set(others))
    if not both:
        return judged(claim, None)
    gaps = [by_seed[seed]["score"] - others[seed]["score"] for seed in both]
    return judged(claim, statistics.mean(gaps) < 0, f"{statistics.mean(gaps):+.2f} dB, {seeds(both)}")


def detection_claim(by_digit: dict[int, dict[int, Row]]) -> str:
    claim = f"one_class: mean AUROC over ten digits at least {AUROC:g}"
    missing = [digit for digit, by_seed in by_digit.items() if not by_seed]
    if missing:
        return judged(claim, None, f"{len(missing)} of {len(by_digit)} digits not measured")
    found = statistics.mean(mean(by_seed) for by_seed in by_digit.values())
    return judged(claim, found >= AUROC, f"{found:.4f}")


def alarms_claim(by_digit: dict[int, dict[int, Row]]) -> str:
    """Of the first seed of each digit: others have the same validation and test images."""
    claim = f"one_class: false alarms among fresh normal digits within their 95 % interval for at least {WITHIN} of ten"
    first = [next(iter(by_seed.values())) for by_seed in by_digit.values() if by_seed]
    if len(first) < len(by_digit):
        return judged(claim, None, f"{len(by_digit) - len(first)} of {len(by_digit)} digits not measured")
    shares = [(row["test"]["anomalies"]["false_alarms"], *row["interval"]) for row in first]
    within = sum(low <= share <= high for share, low, high in shares)
    normal = [row["test"]["anomalies"]["normal"] for row in first]
    alarms = sum(share * count for (share, _, _), count in zip(shares, normal, strict=True))
    total = sum(normal)
    told = f"{within} of {len(shares)}; {100 * alarms / total:.2f} % of {total:,} in all"
    return judged(claim, within >= WITHIN, told)
