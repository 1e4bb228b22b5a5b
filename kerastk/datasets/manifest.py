"""The split, and the record of it: which photo went where, by content.

`settle` turns a look at the data into a `Manifest`, or refuses the data with the reason.
"""

import hashlib
import json
from collections import Counter, defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from kerastk.datasets.check import KINDS, Look, Photo
from kerastk.datasets.files import Finding
from kerastk.datasets.source import SPLITS
from kerastk.errors import DataError

FORMAT = 1


@dataclass(frozen=True)
class Manifest:
    """Photos per split in order of path, the class names in output order, and what was set aside.

    `split` is the specification that cut the splits, or None where all of them came with the data.
    """

    classes: list[str]
    splits: dict[str, list[Photo]]
    set_aside: list[Finding]
    findings: list[Finding]
    split: str | None
    split_seed: int | None
    notes: list[str] = field(default_factory=list)

    @property
    def sha256(self) -> str:
        """A hash of every photo's content, label and split, the same whatever the files are called."""
        rows = sorted((p.sha256, p.label, name) for name in SPLITS for p in self.splits[name])
        return hashlib.sha256(json.dumps([self.classes, rows]).encode()).hexdigest()

    def counts(self, name: str) -> Counter:
        """Photos per class in one split."""
        return Counter(photo.label for photo in self.splits[name])

    def changes(self, recorded: dict) -> list[str]:
        """What differs from the data.json of a run, in words: classes and photos that came or went."""
        changes = []
        for what, names in (("new class", set(self.classes) - set(recorded["classes"])),
                            ("no class", set(recorded["classes"]) - set(self.classes))):  # fmt: skip
            changes += [f"{what} {name!r}" for name in sorted(names)]
        now = {(photo.sha256, photo.label): photo.path for name in SPLITS for photo in self.splits[name]}
        before = {(row["sha256"], row["label"]): row["path"] for row in recorded["files"]}
        for what, paths in (("new", [now[key] for key in now.keys() - before.keys()]),
                            ("gone or changed", [before[key] for key in before.keys() - now.keys()])):  # fmt: skip
            if paths:
                changes.append(f"{len(paths)} photos are {what}, such as {min(paths)}")
        if not changes and self.sha256 != recorded["sha256"]:
            changes.append("photos stand in other splits, or there are more or fewer copies")
        return changes

    def to_json(self) -> str:
        """The content of the run folder's data.json."""
        files = [
            {"path": p.path, "sha256": p.sha256, "label": p.label, "split": name}
            for name in SPLITS
            for p in self.splits[name]
        ]
        content = {
            "format": FORMAT,
            "sha256": self.sha256,
            "classes": self.classes,
            "split": self.split,
            "split_seed": self.split_seed,
            "counts": {name: dict(self.counts(name)) for name in SPLITS},
            "notes": self.notes,
            "files": files,
            "set_aside": [_finding(finding) for finding in self.set_aside],
            "findings": [_finding(finding) for finding in self.findings],
        }
        return json.dumps(content, indent=1)


def _finding(finding: Finding) -> dict:
    return {"kind": finding.kind, "paths": list(finding.paths), "text": finding.text}


def settle(
    look: Look,
    *,
    split: str | None,
    fractions: tuple[float, float, float],
    split_seed: int | None,
    strict: bool,
    max_bad: float,
    assigned: Mapping[str, str] | None = None,
    labelled: bool = True,
    normal: Sequence[str] = (),
) -> Manifest:
    """Refuse the data or cut the splits.

    `split` is the user's specification or None; `fractions` are the shares to cut (train, val, test). Given splits
    are kept, missing ones are cut from train. Copies of one photo end in one split: of copies in two given splits,
    only those of test (else of val) stay. Photos whose SHA-256 is in `assigned` go, with their copies, to the split
    that it names. Without `labelled` classes do not matter: there may be one, or small ones, and where one is too small
    to split, the cut is not by class. Where classes are `normal`, those alone are learned: photos of others go from
    train and val to test, or are left out where the data came with a test split.

    Raises:
        DataError: too many unreadable photos, any finding under `strict`, fewer than two classes, a class that is too
            small to split, too few photos, or a `split` or `split_seed` that would not be used.
    """
    if strict and look.findings:
        first = look.findings[0]
        raise DataError(
            f"strict: {len(look.findings)} findings, the first: {', '.join(first.paths[:2])}: "
            f"{KINDS[first.kind][0]}. `kerastk check` lists them."
        )
    files = len(look.photos) + len(look.bad)
    if len(look.bad) > max_bad * files:
        first = look.bad[0]
        raise DataError(
            f"{len(look.bad)} of {files} photos cannot be used ({100 * len(look.bad) / files:.1f} %), for example "
            f"{first.paths[0]}: {first.text}. Mend them, or allow more with --max-bad {_enough(len(look.bad), files)}."
        )
    if labelled:
        _check_classes(look)
    elif not look.photos:
        raise DataError(f"no readable photos in {look.source.name}.")

    given = {photo.split for photo in look.photos} - {None}
    notes: list[str] = []
    set_aside = [finding for finding in look.findings if finding.kind in _LOST]
    if given:
        photos, removed = _without_leaks(look.photos)
        set_aside += removed
        if "train" not in given:
            raise DataError(f"the data has {' and '.join(sorted(given))} but no train split.")
        want_test = "test" in given or fractions[2] > 0
        missing = [name for name in ("val", "test") if name not in given and (name != "test" or want_test)]
        # Beside train and val, 85/15 says that no test split is wanted.
        used = bool(missing) or not want_test
        if split is not None and not used:
            present = ", ".join(name for name in SPLITS if name in given)
            raise DataError(f"the data comes with {present}; --split {split} would not be used. Leave it out.")
        if split_seed is not None and not missing:
            raise DataError("the data comes with all its splits; --split-seed would not be used. Leave it out.")
        splits = {name: [p for p in photos if p.split == name] for name in SPLITS}
        kept = fractions[0] + sum(fractions[SPLITS.index(name)] for name in missing)
        shares = {name: fractions[SPLITS.index(name)] / kept for name in missing}
        splits |= _cut(splits["train"], shares, split_seed or 0, labelled=labelled)
        if missing:
            notes.append(f"{' and '.join(missing)} cut from train")
    else:
        used = True
        shares = {name: fractions[SPLITS.index(name)] for name in ("val", "test") if fractions[SPLITS.index(name)]}
        splits = {name: [] for name in SPLITS} | _cut(look.photos, shares, split_seed or 0, labelled=labelled)
    splits = _as_assigned(splits, assigned or {})
    if normal:
        splits = _learning_only(splits, normal, look.source.classes, notes, keep="test" not in given)
    if not splits["test"]:
        notes.append("no test split: the figures below are of the validation split, which chose the model")
    present = {photo.label for photo in splits["train"]}
    lacking = [name for name in look.source.classes if name not in present]
    if lacking and labelled:
        raise DataError(f"class {', '.join(map(repr, lacking))} has no training photos.")
    for name in ("train", "val"):
        if not splits[name]:
            reason = "none is of a normal class" if normal else "all have copies in another split"
            raise DataError(f"no photos are left for {name}: {reason}.")
    splits = {name: sorted(splits[name], key=lambda p: p.path) for name in SPLITS}
    cut = split or "/".join(f"{100 * share:g}" for share in fractions)
    seed = None if given and not missing else split_seed or 0
    return Manifest(look.source.classes, splits, set_aside, look.findings, cut if used else None, seed, notes)


def _check_classes(look: Look) -> None:
    if len(look.source.classes) < 2:
        raise DataError(f"one class only ({look.source.classes[0]!r}); a classifier needs two or more.")
    counts = Counter(photo.label for photo in look.photos)
    empty = [name for name in look.source.classes if not counts[name]]
    if empty:
        raise DataError(f"no readable photos in class {', '.join(map(repr, empty))}; fill or remove it.")


def _learning_only(
    splits: dict[str, list[Photo]], normal: Sequence[str], classes: list[str], notes: list[str], *, keep: bool
) -> dict[str, list[Photo]]:
    """Photos of other classes than the normal ones out of train and val: into test, if they are kept."""
    unknown = [name for name in normal if name not in classes]
    if unknown:
        raise DataError(f"normal: no class {unknown[0]!r}; there are {', '.join(map(repr, classes[:20]))}.")
    found = {name: list(photos) for name, photos in splits.items()}
    for name in ("train", "val"):
        others = [photo for photo in found[name] if photo.label not in normal]
        found[name] = [photo for photo in found[name] if photo.label in normal]
        if others:
            notes.append(f"{len(others):,} items of other classes {'went to test' if keep else 'left out'}, of {name}")
        if keep:
            found["test"] += others
    return found


_LOST = {kind for kind, (_, bad) in KINDS.items() if bad} | {"other-file", "no-class", "not-a-file", "unsafe-path"}


def _enough(bad: int, files: int) -> str:
    return f"{min(1.0, (int(1000 * bad / files) + 1) / 1000):g}"


def _without_leaks(photos: list[Photo]) -> tuple[list[Photo], list[Finding]]:
    """Photos without those that have a copy in a split that is judged later, and the removed ones."""
    rank = {"train": 0, "val": 1, "test": 2}
    highest: dict[str, Photo] = {}
    for photo in photos:
        best = highest.get(photo.group)
        if best is None or rank[photo.split] > rank[best.split]:
            highest[photo.group] = photo
    kept, removed = [], []
    for photo in photos:
        best = highest[photo.group]
        if rank[photo.split] < rank[best.split]:
            removed.append(Finding("leak", (photo.path,), f"a copy of {best.path} in {best.split}"))
        else:
            kept.append(photo)
    return kept, removed


def _as_assigned(splits: dict[str, list[Photo]], assigned: Mapping[str, str]) -> dict[str, list[Photo]]:
    everything = [(photo, name) for name in splits for photo in splits[name]]
    wanted = {photo.group: assigned[photo.sha256] for photo, _ in everything if photo.sha256 in assigned}
    found: dict[str, list[Photo]] = {name: [] for name in splits}
    for photo, name in everything:
        found[wanted.get(photo.group, name)].append(photo)
    return found


def _cut(photos: list[Photo], shares: dict[str, float], seed: int, *, labelled: bool) -> dict[str, list[Photo]]:
    """`shares` of the photos for val and test, the rest for train: stratified, by content, whole groups.

    A group of copies counts for the class of its first photo, in order of SHA-256 and label. Groups are taken in order
    of a hash of (seed, group), so neither file names nor file order matter. Without `labelled` a class that is too
    small makes one stock of all.
    """
    groups: dict[str, list[Photo]] = defaultdict(list)
    for photo in sorted(photos, key=lambda p: (p.sha256, p.label)):
        groups[photo.group].append(photo)
    ordered = sorted(groups.items(), key=lambda item: hashlib.sha256(f"{seed} {item[0]}".encode()).digest())
    stocks: dict[str, deque[list[Photo]]] = {label: deque() for label in sorted({p.label for p in photos})}
    for _, members in ordered:
        stocks[members[0].label].append(members)
    small = [label for label, stock in stocks.items() if len(stock) < 1 + len(shares)]
    if small and not labelled:
        stocks = {"": deque(members for _, members in ordered)}
    if small and (labelled or len(ordered) < 1 + len(shares)):
        which = f"class {small[0]!r} has {len(stocks[small[0]])}" if labelled else f"there are {len(ordered)}"
        raise DataError(
            f"{which} different photos; a split into {', '.join(['train', *shares])} needs at least "
            f"{1 + len(shares)}. Add photos{' or remove the class' if labelled else ''}."
        )
    splits: dict[str, list[Photo]] = {"train": [], **{name: [] for name in shares}}
    for stock in stocks.values():
        total = sum(len(members) for members in stock)
        for done, (name, share) in enumerate(shares.items()):
            wanted = max(1, round(share * total))
            taken: list[Photo] = []
            # One group must be left for each split that follows, train being the last.
            while stock and len(taken) < wanted and (not taken or len(stock) > len(shares) - done):
                taken += stock.popleft()
            splits[name] += taken
        splits["train"] += [photo for members in stock for photo in members]
    return splits
