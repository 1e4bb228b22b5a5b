"""What can go wrong, as a tree. Each error is one line: what came, and what would work.

KerastkError            everything kerastk raises on purpose
├── RecipeError         a wrong option, value, key or combination
├── DataError           the data set as a whole cannot be used
├── PhotoError          one photo cannot be read
├── WeightsError        pretrained weights are missing, damaged or out of reach
├── RunError            a run folder is missing, taken, or not what it should be
│   └── Stopped         the run was told to stop; `kerastk resume` goes on with it (exit code 75, by Ctrl-C 130)
├── Diverged            the loss or a weight is no longer a number
├── GradientError       a gradient is not what central differences give (an AssertionError too)
└── GateError           the run is fine, but below --assert-accuracy (exit code 1)
"""


class KerastkError(Exception):
    """Base of all errors that kerastk raises on purpose; `exit_code` is what the command line returns."""

    exit_code = 2


class RecipeError(KerastkError):
    """A wrong option, value, key or combination of options."""


class DataError(KerastkError):
    """The data set as a whole cannot be used."""


class PhotoError(KerastkError):
    """One photo cannot be read. `kind` names the sort of damage (see `datasets.check`)."""

    def __init__(self, message: str, kind: str = "damaged"):
        super().__init__(message)
        self.kind = kind


class WeightsError(KerastkError):
    """Pretrained weights are missing, damaged or out of reach."""


class RunError(KerastkError):
    """A run folder is missing, taken, or not what it should be."""


class Stopped(RunError):
    """The run was told to stop by a signal; what it has learned is kept, and `kerastk resume` goes on with it."""

    # 75 is EX_TEMPFAIL of sysexits.h: try again later.
    def __init__(self, message: str, exit_code: int = 75):
        super().__init__(message)
        self.exit_code = exit_code


class Diverged(KerastkError):
    """The loss or a weight is no longer a number."""


class GradientError(KerastkError, AssertionError):
    """A gradient is not what central differences give (see `kerastk.testing`)."""


class GateError(KerastkError):
    """The model works but is worse than the caller demanded."""

    exit_code = 1
