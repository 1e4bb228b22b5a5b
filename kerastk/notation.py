"""What a recipe writes as text: shares, sizes, times, schedules, augmentations; checked before anything is loaded."""

import difflib
import math
import re
from typing import Any

from kerastk.errors import RecipeError

AUGMENT_POLICIES = ("none", "light", "strong", "upright", "randaugment", "trivial", "augmix")
# The steps that an augmentation is composed of by hand, and what each number that may follow lies between.
AUGMENT_STEPS = {
    "crop": ((0.01, 1),), "flip": ((0, 1),), "flip-down": ((0, 1),), "rotate": ((0, 180),), "shift-pad": ((0, 0.5),),
    "jitter": ((0, 1), (0, 0.5)), "grey": ((0, 1),), "blur": ((0, 1),), "erase": ((0, 1),),
    "randaugment": (range(1, 15), (0, 30)), "trivialaugment": (), "augmix": ((1, 10),),
}  # fmt: skip
# The optimizers: what learning rate does about what 1 does for AdamW, and what numbers of a recipe they take.
OPTIMIZERS = {
    "adamw": (1.0, ("weight_decay",)), "sgd": (30.0, ("momentum", "nesterov", "weight_decay")),
    "rmsprop": (1.0, ("momentum", "weight_decay")), "adagrad": (10.0, ("weight_decay",)),
    "adadelta": (1000.0, ("weight_decay",)), "adam": (1.0, ()), "nadam": (1.0, ("weight_decay",)),
    "lion": (0.2, ("weight_decay",)), "muon": (1.0, ("momentum", "nesterov", "weight_decay")),
}  # fmt: skip
# The learning-rate schedules and the range of each of their numbers; of those in _SEVERAL there may be more than one.
SCHEDULES = {
    "constant": {}, "cosine": {"final": (0.0, 1.0)}, "exponential": {"final": (1e-6, 1.0)},
    "inverse_time": {"final": (1e-6, 1.0)}, "polynomial": {"power": (0.1, 10.0), "final": (0.0, 1.0)},
    "step": {"factor": (1e-6, 1.0), "at": (0.01, 0.99)},
    "one_cycle": {"start": (1e-6, 1.0), "rise": (0.01, 0.5), "final": (0.0, 1.0)},
    "restarts": {"cycles": range(1, 21), "growth": (1.0, 10.0), "shrink": (0.01, 1.0)},
    "plateau": {"factor": (0.01, 0.99), "patience": range(1, 1001)},
}  # fmt: skip
_SEVERAL = ("at",)
PLATEAU_PATIENCE = 2
# What an autoencoder learns to undo, and how much of it there may be: of Gaussian noise the standard deviation, in the
# units of what the network sees; of the others the share of the values that are hit.
NOISES = {"gaussian": (0.001, 10.0), "masking": (0.001, 0.99), "salt-pepper": (0.001, 0.99)}
MOST_WIDTHS = 16
# How often a run goes back from a loss that is no number.
MOST_ROLLBACKS = 3


def split_fractions(split: str) -> tuple[float, float, float]:
    """`70/15/15` as (0.7, 0.15, 0.15); `85/15` has no test split: (0.85, 0.15, 0.0)."""
    try:
        parts = [float(part) for part in split.split("/")]
    except ValueError:
        parts = []
    if len(parts) == 2:
        parts.append(0.0)
    good = len(parts) == 3 and all(math.isfinite(part) for part in parts) and abs(sum(parts) - 100) < 1e-6
    if not good or parts[0] <= 0 or parts[1] <= 0 or parts[2] < 0:
        raise RecipeError(f"split must be percentages that add up to 100, like 70/15/15 or 85/15; got {shown(split)}.")
    return parts[0] / 100, parts[1] / 100, parts[2] / 100


def check_augmentation(text: str) -> None:
    """Refuse, with a RecipeError, what is neither a policy nor a list of steps, or a number out of its range."""
    if text in AUGMENT_POLICIES:
        return
    names = []
    for part in text.split(","):
        name, *numbers = part.strip().split(":")
        if name not in AUGMENT_STEPS:
            near = difflib.get_close_matches(name, (*AUGMENT_STEPS, *AUGMENT_POLICIES), n=1, cutoff=0.5)
            hint = f"Did you mean {near[0]}?" if near else f"Known: {', '.join(AUGMENT_STEPS)}."
            alone = f"a policy stands alone: {', '.join(AUGMENT_POLICIES)}"
            raise RecipeError(f"augment: no step {shown(name)} ({alone}). {hint}")
        ranges = AUGMENT_STEPS[name]
        if len(numbers) > len(ranges):
            raise RecipeError(f"augment: {name} takes at most {len(ranges)} numbers; got {part.strip()!r}.")
        for number, limits in zip(numbers, ranges, strict=False):
            whole, low, high = isinstance(limits, range), limits[0], limits[-1]
            try:
                good = low <= (int(number) if whole else float(number)) <= high
            except ValueError:
                good = False
            if not good:
                kind = "whole number" if whole else "number"
                raise RecipeError(f"augment: {name} takes a {kind} from {low:g} to {high:g}; got {shown(number)}.")
        names.append(name)
    for name in names:
        if names.count(name) > 1:
            raise RecipeError(f"augment: {name} stands there twice; once is enough.")


def schedule_numbers(text: str) -> tuple[str, dict[str, Any]]:
    """`step:factor=0.2:at=0.6/0.8` as ("step", {"factor": 0.2, "at": (0.6, 0.8)}).

    Raises:
        RecipeError: no schedule of this name, a number that it does not have, or one out of its range.
    """
    name, *parts = text.split(":")
    if name not in SCHEDULES:
        near = difflib.get_close_matches(name, SCHEDULES, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(SCHEDULES)}."
        raise RecipeError(f"no schedule {shown(name)}; {hint}")
    ranges, numbers = SCHEDULES[name], {}
    for part in parts:
        key, _, value = part.partition("=")
        if key not in ranges or key in numbers:
            takes = " and ".join(f"{each}=NUMBER" for each in ranges) or "no numbers"
            raise RecipeError(f"the schedule {name} takes {takes}, each once; got {shown(part)}.")
        limits, values = ranges[key], value.split("/") if key in _SEVERAL else [value]
        whole, low, high = isinstance(limits, range), limits[0], limits[-1]
        try:
            found = tuple(int(each) if whole else float(each) for each in values)
        except ValueError:
            found = (math.nan,)
        if not all(low <= each <= high for each in found) or list(found) != sorted(set(found)):
            kind = "rising numbers like 0.5/0.75," if key in _SEVERAL else "a whole number" if whole else "a number"
            raise RecipeError(
                f"{key} of the schedule {name} must be {kind} from {low:g} to {high:g}; got {shown(value)}."
            )
        numbers[key] = found if key in _SEVERAL else found[0]
    return name, numbers


def noise_numbers(text: str) -> tuple[str, float]:
    """`gaussian:0.5` as ("gaussian", 0.5). Raises RecipeError."""
    name, _, number = text.partition(":")
    low, high = NOISES.get(name, (0.0, 0.0))
    amount = _number(number)
    if name not in NOISES or not low <= amount <= high:
        kinds = ", ".join(f"{each} ({low:g} to {high:g})" for each, (low, high) in NOISES.items())
        raise RecipeError(f"noise must be a kind and how much of it, like gaussian:0.5, of {kinds}; got {shown(text)}.")
    return name, amount


def sparsity_numbers(text: str) -> tuple[str, float, float]:
    """`l1:0.001` as ("l1", 0.0, 0.001), `kl:0.05:0.2` as ("kl", 0.05, 0.2); the last is the weight, of kl 0.1 where
    none is given. Raises RecipeError."""
    name, *numbers = text.split(":")
    values = [_number(each) for each in numbers]
    if name == "l1" and len(values) == 1 and 0 < values[0] <= 1e6:
        return name, 0.0, values[0]
    if name == "kl" and len(values) in (1, 2) and 0 < values[0] < 1 and all(0 < each <= 1e6 for each in values):
        return name, values[0], values[1] if len(values) == 2 else 0.1
    raise RecipeError(
        f"sparsity must be l1:WEIGHT or kl:SHARE[:WEIGHT] with a share between 0 and 1, like l1:0.001 or kl:0.05; "
        f"got {shown(text)}."
    )


def layer_widths(text: str) -> tuple[int, ...]:
    """`512,256` as (512, 256). Raises RecipeError."""
    parts = [part.strip() for part in text.split(",")]
    if not all(re.fullmatch(r"[1-9][0-9]{0,4}", part) for part in parts) or len(parts) > MOST_WIDTHS:
        raise RecipeError(
            f"widths must be at most {MOST_WIDTHS} numbers from 1 to 99999 with commas between, like 512,256; "
            f"got {shown(text)}."
        )
    return tuple(map(int, parts))


def _number(text: str) -> float:
    """The number that a text is; not a number where it is none."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def seconds(text: str) -> int:
    """`1h30m` in seconds: hours, minutes and seconds, in this order; each may be left out."""
    match = re.fullmatch(r"(?:(\d{1,5})h)?(?:(\d{1,6})m)?(?:(\d{1,8})s)?", text.replace(" ", ""), re.ASCII)
    found = sum(int(part or 0) * unit for part, unit in zip(match.groups(), (3600, 60, 1), strict=True)) if match else 0
    if found == 0:
        raise RecipeError(f"time must be hours, minutes and seconds like 90s, 10m or 1h30m; got {shown(text)}.")
    return found


# More fill the memory, and the browser.
_TRACED = 100


def profile_steps(text: str) -> tuple[int, int]:
    """`10:20` as (10, 20): the first and the last step that are traced, counted from 1. Raises RecipeError."""
    match = re.fullmatch(r"([0-9]{1,12}):([0-9]{1,12})", text)
    first, last = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= first <= last < first + _TRACED:
        raise RecipeError(
            f"profile must be the first and the last of at most {_TRACED} steps, counted from 1, like 10:20; "
            f"got {shown(text)}."
        )
    return first, last


_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


def size_bytes(text: str) -> int:
    """`20GB` as 20,000,000,000. Raises RecipeError."""
    match = re.fullmatch(r"([0-9]{1,12}(?:\.[0-9]{1,6})?) ?([KMGT]?B?)", text.strip(), re.IGNORECASE)
    unit = match[2].upper() if match else ""
    unit += "B" if unit and not unit.endswith("B") else ""
    if match is None or float(match[1]) * _UNITS.get(unit, 0) < 1:
        raise RecipeError(f"cache_size must be a number of bytes like 500MB or 20GB; got {shown(text)}.")
    return int(float(match[1]) * _UNITS[unit])


def shown(value: Any) -> str:
    """The value as an error shows it: no longer than anybody reads."""
    try:
        return f"{value!r:.200}"
    except (ValueError, RecursionError):
        # Python writes no whole number of more than 4,300 digits, and nothing nested a thousand deep.
        return f"a huge {type(value).__name__}"
