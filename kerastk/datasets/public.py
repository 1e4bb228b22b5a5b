"""Public data sets: what `data/NAME.toml` says of each, and its files, found on this machine or fetched.

`KERASTK_DATA` may name a folder with a folder NAME in it, looked into first; what is in neither that nor the cache is
downloaded into the cache. A file is taken only with the SHA-256 that the manifest has.
"""

import contextlib
import json
import os
import shutil
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kerastk import shipped
from kerastk.download import download, file_hash
from kerastk.errors import DataError
from kerastk.storage import atomic_path, cache_folder, write_atomic

# The names of classes that IDX files have by number alone, a line each, beside them.
CLASS_NAMES = "classes.txt"


@dataclass(frozen=True)
class File:
    """A file of a public data set, as its makers give it."""

    address: str
    file: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Public:
    """A manifest. `classes` are in the order of their labels, `items` says how many each split has."""

    name: str
    what: str
    licence: str
    home: str
    paper: str
    classes: Sequence[str]
    items: Mapping[str, int]
    files: Sequence[File]

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(file.bytes for file in self.files)

    @property
    def class_names(self) -> str | None:
        """What its `classes.txt` holds; None where its files say it themselves, or the numbers are the names."""
        is_archive = len(self.files) == 1
        if is_archive or list(self.classes) == [str(number) for number in range(len(self.classes))]:
            return None
        return "".join(f"{name}\n" for name in self.classes)

    @property
    def folders(self) -> list[Path]:
        """Where its files are looked for; the last one is that in the cache."""
        mirror = os.environ.get("KERASTK_DATA")
        return [*([Path(mirror) / self.name] if mirror else []), cache_folder() / "data" / self.name]

    def path(self, folder: Path) -> Path:
        """What is read: the archive in the folder, or the folder."""
        return folder / self.files[0].file if len(self.files) == 1 else folder

    def here(self, folder: Path) -> list[File]:
        """Its files that the folder holds, in their size."""
        return [file for file in self.files if _size(folder / file.file) == file.bytes]


def names() -> list[str]:
    """Of all that have a manifest."""
    return sorted(path.stem for path in shipped.folder("data").glob("*.toml"))


def find(name: str) -> Public:
    """The manifest of a data set.

    Raises:
        DataError: none has this name.
    """
    if name not in names():
        raise DataError(f"no public data set {name[:80]!r}; there are {', '.join(names())}.")
    with open(shipped.folder("data") / f"{name}.toml", "rb") as file:
        given = tomllib.load(file)
    return Public(**given | {"files": [File(**each) for each in given["files"]]})


def fetch(data: Public) -> Path:
    """Its archive, or the folder of its files, each verified; what is not on this machine is downloaded.

    A file that is there is not fetched again, so what was interrupted goes on with the files that are missing.

    Raises:
        DataError: a file is there but damaged, or there is none and its address cannot be reached.
    """
    for folder in data.folders:
        if all((folder / file.file).exists() for file in data.files) and _has_class_names(data, folder):
            for file in data.files:
                _verify(data, file, folder / file.file)
            return data.path(folder)
    *mirror, folder = data.folders
    for file in data.files:
        target = folder / file.file
        if not target.exists():
            _get(data, file, target, mirror)
        _verify(data, file, target)
    if data.class_names is not None:
        write_atomic(folder / CLASS_NAMES, data.class_names)
    return data.path(folder)


def _get(data: Public, file: File, target: Path, mirrors: list[Path]) -> None:
    """A file that the cache lacks: from the user's folder, which may have a part of them, or from its address."""
    for mirror in mirrors:
        if (mirror / file.file).exists():
            _verify(data, file, mirror / file.file)
            with atomic_path(target) as temporary:
                shutil.copyfile(mirror / file.file, temporary)
            return
    reason = download(file.address, target, digest=file.sha256)
    if reason is not None:
        here = {each.file for folder in data.folders for each in data.here(folder)}
        missing = ", ".join(each.file for each in data.files if each.file not in here)
        raise DataError(
            f"cannot download {file.address}: {reason}. Put {missing} into {target.parent} or into a folder "
            f"{data.name} of one that KERASTK_DATA names, or name another place by --data."
        )


def _verify(data: Public, file: File, path: Path) -> None:
    """Refuse a file that is not the one of the manifest.

    A hash costs up to a second (CIFAR has 170 MB), so it is compared once; that it was is recorded with the file's size
    and time of change, and a file that has these still is the same one. Whoever put it there, none is taken unseen.
    """
    size = _size(path)
    if size != file.bytes:
        told = f"has {size:,} bytes, and {file.bytes:,} are expected" if size is not None else "is no file"
        raise _damaged(data, path, told)
    record = cache_folder() / "data.json"
    try:
        known = dict(json.loads(record.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        known = {}
    state = [file.sha256, size, path.stat().st_mtime_ns]
    if known.get(str(path.absolute())) == state:
        return
    try:
        found = file_hash(path)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}.") from None
    if found != file.sha256:
        raise _damaged(data, path, f"its SHA-256 is {found}, and {file.sha256} is expected")
    # A read-only cache only means that nothing is recorded.
    with contextlib.suppress(OSError):
        write_atomic(record, json.dumps({**known, str(path.absolute()): state}, indent=1))


def _damaged(data: Public, path: Path, told: str) -> DataError:
    return DataError(
        f"{path} is damaged, or not the file of {data.name}: {told}. Delete it to fetch it again; to read it as it is, "
        "name its path in place of the data set."
    )


def _has_class_names(data: Public, folder: Path) -> bool:
    if data.class_names is None:
        return True
    try:
        return (folder / CLASS_NAMES).read_text(encoding="utf-8") == data.class_names
    except (OSError, ValueError):
        return False


def _size(path: Path) -> int | None:
    """The bytes of a regular file; None where there is none."""
    try:
        return path.stat().st_size if path.is_file() else None
    except OSError:
        return None
