"""Files from the network: an unreachable address is told within seconds, and a file comes whole or not at all."""

import hashlib
import socket
import threading
import urllib.error
import urllib.request
from pathlib import Path

from kerastk.storage import atomic_path

PROBE_SECONDS = 4
STALL_SECONDS = 30


def download(address: str, target: Path, *, digest: str | None) -> str | None:
    """Why the file could not be had; None where it is there now. `digest` is the MD5 or SHA-256 that it must have.

    Keras's `get_file` does it, and shows how far it is.
    """
    reason = _probe(address)
    if reason is not None:
        return reason
    import keras

    before = socket.getdefaulttimeout()
    try:
        # get_file has no time-out of its own, and writes under the name it is given.
        socket.setdefaulttimeout(STALL_SECONDS)
        with atomic_path(target) as temporary:
            folders = {"cache_dir": target.parent.parent, "cache_subdir": target.parent.name}
            keras.utils.get_file(temporary.name, address, file_hash=digest, **folders)
    except Exception as error:
        # get_file raises ValueError for a wrong hash and bare Exception for the network's errors.
        return _told(error)
    finally:
        socket.setdefaulttimeout(before)
    return None


def file_hash(path: Path, algorithm: str = "sha256") -> str:
    """The file's hash as hexadecimal digits. Raises OSError where it cannot be read."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def _probe(address: str) -> str | None:
    """Why the address cannot be reached, within PROBE_SECONDS even where the name service hangs; None if it can be."""
    outcome: list[str | None] = []

    def ask() -> None:
        try:
            request = urllib.request.Request(address, method="HEAD")
            urllib.request.urlopen(request, timeout=PROBE_SECONDS - 1).close()
            outcome.append(None)
        except urllib.error.HTTPError as error:
            outcome.append(f"the server answers {error.code} {error.reason}")
        except Exception as error:
            outcome.append(_told(getattr(error, "reason", None) or error))

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PROBE_SECONDS)
    return outcome[0] if outcome else f"no answer within {PROBE_SECONDS} seconds"


def _told(error: object) -> str:
    return " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
