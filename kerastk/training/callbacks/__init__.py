"""What happens beside the training: the model judged, the best weights kept, a row an epoch, an early end.

A callback that has something to remember over a resume has `get_state`, a tree of plain values and arrays, and
`set_state`; see `Remembering`.
"""

from kerastk.training.callbacks.judging import MONITOR, Averaged, Best, ClassValidation, Last, Validation
from kerastk.training.callbacks.memory import Remembering
from kerastk.training.callbacks.rows import EpochRows
from kerastk.training.callbacks.steering import Deadline, Guard, Plateau

__all__ = [
    "MONITOR", "Averaged", "Best", "ClassValidation", "Deadline", "EpochRows", "Guard", "Last", "Plateau",
    "Remembering", "Validation",
]  # fmt: skip
