import json
import zipfile

import keras

from kerastk.networks import saved
from kerastk.networks.bases import BASES


def test_every_base_is_made_of_known_classes(member, graph, tmp_path):
    config = keras.saving.serialize_keras_object(graph(member, BASES[member].image_size))
    with zipfile.ZipFile(tmp_path / "model.keras", "w") as archive:
        for name in saved.MEMBERS:
            archive.writestr(name, json.dumps(config) if name == "config.json" else "")
    saved._check(tmp_path / "model.keras")
    assert (tmp_path / "model.keras").stat().st_size < saved.MAX_CONFIG / 4
