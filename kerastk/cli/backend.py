"""The start of Keras, which a command does once it knows that it can do its work."""

import os
import sys
import tempfile


def start_backend() -> None:
    """Import Keras and look for devices without the notes that TensorFlow's libraries print whatever its log level.

    Those that come before its logging is set up heed no setting (tensorflow#100442), so standard error is held back;
    it is shown if the start fails.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            from kerastk.training.device import choose_device

            choose_device("auto")
        except BaseException:
            held.seek(0)
            os.write(kept, held.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)
