"""The peer's side of autoencode.py: PyOD's autoencoder, in a Python that has it and need not have kerastk.

    PYTHON benchmarks/autoencode_peers.py versions             # whether it is there, as JSON
    PYTHON benchmarks/autoencode_peers.py pyod WORK/.../job.json

Reads what `autoencode_ways.py export` wrote, leaves scores.npy and pyod.json beside the job.
"""

import json
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

Values = dict[str, Any]

PEERS = ("pyod",)


def versions() -> Values:
    """Python's version and those of the peers; None where one is not installed."""
    found: Values = {"python": platform.python_version()}
    for name in PEERS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def pyod(job: Values) -> Values:
    """PyOD's AutoEncoder with its defaults, learned from normal images alone; the score of each test image."""
    import numpy as np
    from pyod.models.auto_encoder import AutoEncoder

    folder = Path(job["folder"])
    images = np.load(folder / "images.npz")
    options = {"epoch_num": job["epochs"]} if job["epochs"] else {}
    detector = AutoEncoder(random_state=job["seed"], verbose=0, **options)
    detector.fit(images["train"])
    np.save(folder / "scores.npy", detector.decision_function(images["test"]).astype(np.float64))
    return {"epochs": detector.epoch_num}


def main(stage: str, job: Path | None = None) -> None:
    if job is None:
        print(json.dumps(versions()))
        return
    values = {"pyod": pyod}[stage](json.loads(job.read_text(encoding="utf-8")))
    job.with_name(f"{stage}.json").write_text(json.dumps(values), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1], *map(Path, sys.argv[2:]))
