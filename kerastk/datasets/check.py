"""What is wrong with the data: every file read, decoded once, and compared with all others.

`check` returns the readable photos, each with the group of copies it belongs to, and the findings. It judges and
refuses nothing; `manifest.settle` does.
"""

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from kerastk.datasets.facts import THUMBNAIL, Facts, FactStore, examine, pixel_digest
from kerastk.datasets.files import Finding
from kerastk.datasets.images import SUFFIXES
from kerastk.datasets.source import File, Source
from kerastk.errors import PhotoError

# Every kind of finding: what the user reads, and whether the file was meant as a photo and lost (counted by max_bad).
KINDS: dict[str, tuple[str, bool]] = {
    "damaged": ("cannot be decoded", True),
    "empty": ("empty files", True),
    "oversized": ("too large", True),
    "unreadable": ("cannot be read", True),
    "unsupported": ("photos of a kind that kerastk does not read", True),
    "not-image": ("named like a photo, but are none", True),
    "other-file": ("other files", False),
    "no-class": ("not inside a class folder", False),
    "hidden": ("hidden files", False),
    "not-a-file": ("neither file nor folder", False),
    "unsafe-path": ("names that lead out of the archive", False),
    "link-loop": ("links back to a folder above", False),
    "empty-folder": ("empty folders", False),
    "suffix": ("bytes contradict the suffix (used all the same)", False),
    "copies": ("copies inside a class", False),
    "near-copies": ("nearly the same photo inside a class", False),
    "two-labels": ("the same photo under two labels", False),
    "near-two-labels": ("nearly the same photo under two labels", False),
    "leak": ("the same photo in two given splits", False),
    "tiny-class": ("classes with few photos", False),
    "imbalance": ("classes of very different size", False),
}
TINY_CLASS = 10
IMBALANCE = 10
# Photos whose perceptual hashes differ in at most so many of 64 bits are compared by their pixels.
NEAR_BITS = 6
# Largest mean difference of two thumbnails, in grey levels (0 to 255), at which photos count as nearly the same ...
NEAR_LEVELS = 4.0
# ... if that is also small beside the thumbnails' own contrast (standard deviation): flat pictures are all alike.
NEAR_CONTRAST = 0.12
# A hash shared by more photos than this is that of flat pictures; only identical pixels are looked for among them.
NEAR_CROWD = 200


@dataclass(frozen=True, slots=True)
class Photo:
    """A readable photo. `group` is the smallest SHA-256 among its copies; `width` and `height` are in pixels."""

    path: str
    label: str
    split: str | None
    sha256: str
    group: str
    format: str
    width: int
    height: int
    mode: str


@dataclass(frozen=True)
class Look:
    """The readable photos of a source in its own order, and the findings; `files` counts what was meant as photos."""

    source: Source
    photos: list[Photo]
    findings: list[Finding]
    # What the kinds of findings mean.
    kinds: ClassVar[dict[str, tuple[str, bool]]] = KINDS

    @property
    def bad(self) -> list[Finding]:
        """The findings of files that were meant as photos and cannot be used."""
        return [finding for finding in self.findings if KINDS[finding.kind][1]]


def check(
    source: Source,
    *,
    threads: int | None = None,
    store: FactStore | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Look:
    """Read, decode and compare all photos of `source`.

    `progress` is called with the number of files done and of all files. Photos seen before, by SHA-256, are not
    decoded again.
    """
    store = store or FactStore()
    facts: dict[str, Facts] = {}
    photos: list[Photo] = []
    findings = list(source.findings)

    def look(file: File) -> tuple[Facts, bool]:
        try:
            data = source.read(file.path)
        except PhotoError as error:
            return Facts("", kind=error.kind, error=str(error)), False
        known = store.get(hashlib.sha256(data).hexdigest())
        return (known, False) if known is not None else (examine(data), True)

    with ThreadPoolExecutor(threads or min(16, os.cpu_count() or 1)) as pool:
        new: list[Facts] = []
        for done, (file, (fact, is_new)) in enumerate(zip(source.files, pool.map(look, source.files), strict=True)):
            if is_new:
                new.append(fact)
            if len(new) >= 256:
                store.put(new)
                new = []
            suffix = os.path.splitext(file.path)[1].lower()
            if fact.error:
                other = fact.kind == "not-image" and suffix not in SUFFIXES
                findings.append(Finding("other-file" if other else fact.kind, (file.path,), fact.error))
            else:
                facts[fact.sha256] = replace(fact, thumbnail=b"")
                photos.append(Photo(file.path, file.label, file.split, fact.sha256, fact.sha256, fact.format,
                                    fact.width, fact.height, fact.mode))  # fmt: skip
                if SUFFIXES.get(suffix) != fact.format:
                    findings.append(Finding("suffix", (file.path,), f"it is {fact.format}"))
            progress(done + 1, len(source.files))
        store.put(new)
        groups, near = _groups(photos, facts, source, store, pool)
    photos = [replace(photo, group=groups[photo.sha256]) for photo in photos]
    findings += copy_findings(photos, near)
    findings += class_findings(photos, source.classes)
    return Look(source, photos, sorted(findings, key=lambda f: (list(KINDS).index(f.kind), f.paths)))


def _groups(
    photos: list[Photo], facts: dict[str, Facts], source: Source, store: FactStore, pool: ThreadPoolExecutor
) -> tuple[dict[str, str], set[str]]:
    """The group of each SHA-256, and the SHA-256s that are only nearly like their group's anchor.

    Identical pixels always share a group. A near-copy joins the first anchor, in order of SHA-256, that it resembles;
    anchors never join one another, so groups do not chain.
    """
    first = {photo.sha256: photo.path for photo in reversed(photos)}
    digests = sorted(facts)
    hashes = np.array([facts[digest].phash for digest in digests], np.uint64)
    crowd = Counter(hashes.tolist())
    close = _close_pairs(hashes)
    partners = sorted({i for pair in close for i in pair})

    def complete(i: int) -> Facts | None:
        fact = store.get(digests[i])
        if fact is None or not fact.pixels:
            try:
                data = source.read(first[digests[i]])
                fact = replace(examine(data), pixels=pixel_digest(data))
            except PhotoError:
                return None
        return fact

    looks = {i: fact for i, fact in zip(partners, pool.map(complete, partners), strict=True) if fact is not None}
    store.put(looks.values())

    anchor_of_pixels: dict[str, int] = {}
    group = list(range(len(digests)))
    for i in partners:
        if i in looks:
            group[i] = anchor_of_pixels.setdefault(looks[i].pixels, i)
    near: set[str] = set()
    neighbours = defaultdict(list)
    for i, j in close:
        neighbours[j].append(i)
    is_anchor = [group[i] == i for i in range(len(digests))]
    for j in sorted(neighbours):
        if group[j] != j:
            continue
        for i in sorted(neighbours[j]):
            crowded = crowd[int(hashes[i])] > NEAR_CROWD
            if is_anchor[i] and not crowded and i in looks and j in looks and _alike(looks[i], looks[j]):
                group[j], is_anchor[j] = i, False
                near.add(digests[j])
                break
    # Pixel twins of a near-copy follow it.
    for i in partners:
        anchor = group[group[i]]
        if anchor != group[i]:
            group[i] = anchor
            near.add(digests[i])
    return {digest: digests[group[i]] for i, digest in enumerate(digests)}, near


def _close_pairs(hashes: np.ndarray) -> list[tuple[int, int]]:
    """Pairs (i < j) whose hashes differ in at most NEAR_BITS bits; of a crowd of equal hashes, pairs with its first."""
    pairs: list[tuple[int, int]] = []
    unique, inverse, counts = np.unique(hashes, return_inverse=True, return_counts=True)
    members = np.split(np.argsort(inverse, kind="stable"), np.cumsum(counts)[:-1]) if len(unique) else []
    for group in members:
        together = group[:1] if len(group) > NEAR_CROWD else group
        pairs += [(int(i), int(j)) for n, i in enumerate(together) for j in group[n + 1 :]]
    for start in range(0, len(unique), 512):
        bits = np.bitwise_count(unique[start : start + 512, None] ^ unique[None, :])
        for a, b in np.argwhere(bits <= NEAR_BITS):
            a += start
            if a < b and len(members[a]) <= NEAR_CROWD and len(members[b]) <= NEAR_CROWD:
                pairs += [(min(int(i), int(j)), max(int(i), int(j))) for i in members[a] for j in members[b]]
    return pairs


def _alike(one: Facts, other: Facts) -> bool:
    """Whether two thumbnails show the same picture, up to re-encoding and resizing."""
    shape = (THUMBNAIL, THUMBNAIL, 3)
    a = np.frombuffer(one.thumbnail, np.uint8).reshape(shape).astype(np.float32)
    b = np.frombuffer(other.thumbnail, np.uint8).reshape(shape).astype(np.float32)
    difference = float(np.abs(a - b).mean())
    same_ratio = abs(np.log((one.width / one.height) / (other.width / other.height))) < 0.05
    return same_ratio and difference <= min(NEAR_LEVELS, NEAR_CONTRAST * float(a.std()))


def copy_findings(photos: list[Photo], near: set[str]) -> Iterable[Finding]:
    """What groups of copies say: in one class, under two labels, in two splits; `near` are only nearly alike."""
    groups: dict[str, list[Photo]] = defaultdict(list)
    for photo in photos:
        groups[photo.group].append(photo)
    for members in groups.values():
        if len(members) < 2:
            continue
        labels = {photo.label for photo in members}
        splits = {photo.split for photo in members}
        nearly = any(photo.sha256 in near for photo in members)
        text = "nearly the same pixels" if nearly else "the same pixels"
        if len({photo.sha256 for photo in members}) == 1:
            text = "the same bytes"
        paths = tuple(photo.path for photo in members)
        prefix = "near-" if nearly else ""
        if len(labels) > 1:
            yield Finding(prefix + "two-labels", paths, f"{text}: {', '.join(sorted(labels))}")
        else:
            yield Finding(prefix + "copies", paths, text)
        if len(splits) > 1:
            yield Finding("leak", paths, f"{text}: {', '.join(sorted(str(split) for split in splits))}")


def class_findings(photos: list[Photo], classes: list[str]) -> Iterable[Finding]:
    """Classes with few photos, and of very different size."""
    counts = Counter(photo.label for photo in photos)
    for name in classes:
        if counts[name] < TINY_CLASS:
            yield Finding("tiny-class", (name,), f"{counts[name]} readable photos")
    if counts and len(classes) > 1:
        largest, smallest = max(classes, key=lambda c: counts[c]), min(classes, key=lambda c: counts[c])
        if counts[largest] > IMBALANCE * max(1, counts[smallest]):
            text = f"{counts[largest]} against {counts[smallest]} photos"
            yield Finding("imbalance", (largest, smallest), text)
