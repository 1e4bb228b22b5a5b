"""The file of the base mini, made of a run of the recipe `pretrain-mini`: python models/store.py RUN

It writes mini/mini.weights.h5 beside this file, without the head and as float16, and prints its SHA-256, which is that
of the row `mini` in kerastk/networks/bases.py.
"""

import sys
import tempfile
from pathlib import Path

import h5py
import keras
import numpy as np

from kerastk.networks.bases import BASES
from kerastk.networks.classifier import features_model
from kerastk.networks.mini import mini
from kerastk.networks.weights import file_hash


def store(run: Path, target: Path) -> None:
    """Write the weights of a run's model, without its head, as float16."""
    trained = features_model(keras.saving.load_model(run / "model.keras", compile=False))
    values = [np.asarray(each) for each in trained.get_weights()]
    largest = max(float(np.abs(value).max()) for value in values)
    if largest > np.finfo(np.float16).max:
        raise SystemExit(f"a weight of {largest:g} is out of float16's range")
    size, policy = BASES["mini"].image_size, keras.config.dtype_policy()
    keras.config.set_dtype_policy("float16")
    try:
        stored = mini(keras.Input((size, size, 3)))
    finally:
        keras.config.set_dtype_policy(policy)
    stored.set_weights(values)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / target.name
        stored.save_weights(plain)
        pack(plain, target)


def pack(source: Path, target: Path) -> None:
    """The same HDF5 file, its large arrays compressed; equal weights give equal bytes."""
    with h5py.File(source) as old, h5py.File(target, "w") as new:

        def copy(name: str, item: h5py.Group | h5py.Dataset) -> None:
            if isinstance(item, h5py.Group):
                copied = new.require_group(name)
            else:
                packed = {"compression": "gzip", "compression_opts": 9, "shuffle": True} if item.size > 4096 else {}
                copied = new.create_dataset(name, data=item[()], **packed)
            copied.attrs.update(item.attrs)

        old.visititems(copy)


if __name__ == "__main__":
    path = Path(__file__).parent / "mini" / BASES["mini"].file
    store(Path(sys.argv[1]), path)
    print(f"{path}: {path.stat().st_size:,} bytes, SHA-256 {file_hash(path)}")
