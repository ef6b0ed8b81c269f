"""What a field of the config is: its default, what it may be, and what it does."""

import dataclasses
import enum
from typing import Any, NamedTuple


class Range(NamedTuple):
    """The numbers from `low` to `high`; both are allowed."""

    low: float
    high: float


class Role(enum.Enum):
    """What a field is to a training run, and hence where a change of it matters."""

    SETTING = "Decides what is trained: runs that differ in it are two experiments."
    STUDIED = "A setting that the paper varies: its tables compare runs by it."
    REPEAT = "May differ between runs of one setting, but not within a run."
    SOURCE = "Says where data lies or which steps are kept; may change on resume."
    CONDUCT = "Leaves no trace in the weights; may change on resume."


@dataclasses.dataclass(frozen=True)
class Field:
    """One field of the config.

    Attributes:
      default: The value of the paper's x4 setting. None stands for a whole number that
        follows from the data.
      allowed: A tuple of the values that the field may have, a `Range` of numbers, or
        None for anything of the default's type. A field whose default is two numbers,
        with a `Range`, is a range itself: (low, high), both of them in it.
      help: What the field does, in plain sentences.
      role: What the field is to a training run.
      places: True if the field names files or folders, where ~ is the home directory.
      form: What a value looks like, where `allowed` and the type do not tell.
    """

    default: Any
    allowed: tuple | Range | None
    help: str
    role: Role = Role.SETTING
    places: bool = False
    form: str = ""

    @property
    def type(self) -> type:
        """The type of the field's values. A float field takes whole numbers, too."""
        return int if self.default is None else type(self.default)

    @property
    def free_on_resume(self) -> bool:
        """True if the field may differ between a run and its continuation."""
        return self.role in (Role.SOURCE, Role.CONDUCT)

    @property
    def identity(self) -> bool:
        """True if runs that differ in the field are different experiments."""
        return self.role in (Role.SETTING, Role.STUDIED)

    def describe_allowed(self) -> str:
        """Returns the choices or the range in words; "" if any value is allowed."""
        if self.places:
            return "a path" if self.type is str else "names or paths"
        if self.form:
            return self.form
        if self.type is bool:
            return "true or false"
        if self.allowed is None:
            return "a name" if self.type is str else ""
        if isinstance(self.allowed, Range):
            words = "from {:.10g} to {:.10g}".format(*self.allowed)
            if self.type is not tuple:
                return words
            kind = "whole numbers" if type(self.default[0]) is int else "numbers"
            return f"(low, high), {kind} {words}"
        return f"one of {', '.join(map(str, self.allowed))}"
