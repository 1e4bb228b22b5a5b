"""What a benchmark needs beside its ways: a process measured from outside, a ledger, a section of a results file.

Only the standard library and kerastk's light half: the process that measures must stay small (see `measure`).
"""

import hashlib
import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from kerastk.storage import write_atomic


class ProcessFailed(Exception):
    """A measured process ended with an error; the message holds the end of its output."""


@dataclass(frozen=True)
class Usage:
    """What a process took from its start to its end: wall time, and its largest resident memory in 10^6 bytes."""

    seconds: float
    memory_mb: float


def measure(command: list[str], *, log: Path, environment: dict[str, str]) -> Usage:
    """Run a command to its end and say what it took; its output goes to `log`, `environment` is added to ours.

    Linux counts what the parent held when it forked as the child's, so the caller must have loaded nothing large.

    Raises:
        ProcessFailed: it ended with an error.
    """
    with open(log, "wb") as output:
        begin = time.perf_counter()
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            env={**os.environ, **environment},
        )  # fmt: skip
        try:
            # Of this child alone; RUSAGE_CHILDREN would give the largest of all so far.
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        finally:
            if process.returncode is None:
                process.kill()
                process.wait()
        seconds = time.perf_counter() - begin
    if process.returncode != 0:
        tail = log.read_text(encoding="utf-8", errors="replace").splitlines()[-8:]
        raise ProcessFailed("\n".join([f"exit code {process.returncode}; the end of {log}:", *tail]))
    return Usage(seconds, memory_mb(usage.ru_maxrss))


def memory_mb(maxrss: int) -> float:
    """`ru_maxrss` in 10^6 bytes: Linux counts it in KiB, macOS in bytes."""
    return maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


class Ledger:
    """Finished measurements, a JSON line each, on the disk as soon as they are there."""

    def __init__(self, path: Path):
        self.path = path

    def rows(self) -> list[dict[str, Any]]:
        """All whole lines in the order in which they were written."""
        rows = []
        for line in self._bytes().splitlines():
            try:
                rows.append(json.loads(line))
            except ValueError:
                continue  # cut off when the benchmark was stopped
        return rows

    def append(self, row: dict[str, Any]) -> None:
        """Add a line, after closing one that was cut off."""
        content = self._bytes()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "ab") as file:
            file.write(b"" if not content or content.endswith(b"\n") else b"\n")
            file.write(json.dumps(row).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def _bytes(self) -> bytes:
        return self.path.read_bytes() if self.path.exists() else b""


def machine() -> dict[str, Any]:
    """The processor's name and the cores this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    cpu = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    if information.exists():
        lines = [line.partition(":") for line in information.read_text().splitlines()]
        cpu = next((value.strip() for key, _, value in lines if key.strip() == "model name"), cpu)
    return {"cpu": cpu, "cores": cores}


def versions(*packages: str) -> dict[str, str]:
    """Python's version and those of installed packages."""
    return {"python": platform.python_version(), **{package: version(package) for package in packages}}


def code_hash(folder: Path) -> str:
    """The start of a hash over a package's sources: tells measurements of changed code apart."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:10]


def write_section(path: Path, name: str, text: str) -> None:
    """Put `text` between the comments `<!-- name:begin -->` and `<!-- name:end -->` of a Markdown file.

    Where the file has no such section it is added at the end. Raises ValueError where it has half of one.
    """
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    old = path.read_text(encoding="utf-8") if path.exists() else "# Results\n"
    section = f"{begin}\n{text.strip()}\n{end}"
    if begin not in old and end not in old:
        write_atomic(path, f"{old.rstrip()}\n\n## {name}\n\n{section}\n")
        return
    before, found, rest = old.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"{path} must hold {begin} and then {end}; one is missing. Add it, or remove both.")
    write_atomic(path, before + section + after)
