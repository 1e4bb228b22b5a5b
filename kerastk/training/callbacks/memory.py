"""What a callback notes for a resume."""

from typing import Any, ClassVar


class Remembering:
    """A callback that goes on after a resume where it was: a checkpoint keeps the attributes that `remembered` names.

    They are plain values and arrays. Their names and that of the class are in checkpoints: another name is another
    format.
    """

    remembered: ClassVar[tuple[str, ...]]

    def get_state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {name: getattr(self, name) for name in self.remembered}

    def set_state(self, state: dict[str, Any]) -> None:
        """What a checkpoint kept."""
        for name in self.remembered:
            setattr(self, name, state[name])
