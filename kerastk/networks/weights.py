"""Pretrained weights: in the package, found in a mirror or in Keras's cache, or downloaded by Keras; always verified.

`KERASTK_WEIGHTS` may name a folder with files of Keras's own names, looked into first. A file for which Keras declares
no hash (MobileNet V1 and V2) is verified by the SHA-256 recorded when it was first used.
"""

import contextlib
import json
import os
import shutil
from pathlib import Path

from kerastk import download, shipped
from kerastk.errors import WeightsError
from kerastk.networks.bases import Base
from kerastk.storage import atomic_path, cache_folder, write_atomic


def keras_folder() -> Path:
    """Keras's own folder of weights: `$KERAS_HOME/models`, else `~/.keras/models`."""
    return Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras") / "models"


def imagenet(base: Base) -> Path:
    """The verified file of the base's ImageNet weights (without the head).

    Raises:
        WeightsError: a file is there but damaged, or there is none and the address cannot be reached.
    """
    found = local(base)
    if found is not None:
        verify(base, found)
        return found
    return fetch(base)


def local(base: Base) -> Path | None:
    """Where the file is without a download: in the package, the mirror or Keras's cache; None where it is in none."""
    if base.ships:
        return shipped.folder("models") / base.folder / base.file
    mirror = os.environ.get("KERASTK_WEIGHTS")
    folders = ([Path(mirror)] if mirror else []) + [keras_folder()]
    return next((folder / base.file for folder in folders if (folder / base.file).is_file()), None)


def fetch(base: Base) -> Path:
    """Download the file into Keras's cache, by Keras's `get_file`, whole and verified or not at all."""
    target = keras_folder() / base.file
    reason = download.download(base.address, target, digest=base.hash or None)
    if reason is not None:
        raise WeightsError(
            f"cannot download {base.address}: {reason}. Put {base.file} into {target.parent} or into a "
            "folder named by KERASTK_WEIGHTS, or use --weights FILE, --weights none, --base mini, which ships with "
            "kerastk, or another base that `kerastk weights list` shows here."
        )
    verify(base, target)
    return target


def verify(base: Base, path: Path) -> str:
    """Compare the file with the hash of its row, or with the SHA-256 recorded on first use (now, if it is that).

    Returns `kerastk`, `keras` or `recorded`: whose hash it was compared with. Raises WeightsError when they differ.
    """
    algorithm = "md5" if len(base.hash) == 32 else "sha256"
    found = file_hash(path, algorithm)
    if base.hash:
        whose, remedy = ("kerastk", "Install kerastk again") if base.ships else ("Keras", "Delete it to fetch it again")
        if found != base.hash:
            raise WeightsError(f"{path} is damaged: its {algorithm} is {found}, {whose}'s is {base.hash}. {remedy}.")
        return whose.lower()
    record = cache_folder() / "weights.json"
    try:
        known = dict(json.loads(record.read_text()))
    except (OSError, ValueError, TypeError):
        known = {}
    if base.file in known and known[base.file] != found:
        raise WeightsError(
            f"{path} is not the file of earlier runs: its sha256 is {found}, theirs {known[base.file]}. Delete it to "
            f"fetch it again, or delete its line in {record} if you mean it."
        )
    if base.file not in known:
        # A read-only cache only means that nothing is recorded.
        with contextlib.suppress(OSError):
            write_atomic(record, json.dumps({**known, base.file: found}, indent=1))
    return "recorded"


def file_hash(path: Path, algorithm: str = "sha256") -> str:
    """The file's hash as hexadecimal digits. Raises WeightsError where it cannot be read."""
    try:
        return download.file_hash(path, algorithm)
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror}.") from None


def into_keras_cache(base: Base, path: Path) -> None:
    """Make Keras's own cache hold the file, for the builders that load by themselves."""
    target = keras_folder() / base.file
    if not target.exists() or file_hash(target) != file_hash(path):
        with atomic_path(target) as temporary:
            shutil.copyfile(path, temporary)
