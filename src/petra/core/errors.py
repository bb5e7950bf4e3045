"""Every error petra raises on purpose: what happened, what was got, what is allowed, what to do.

A `PetraError` is somebody's mistake or a candidate's failure and is shown as one message; anything
else that escapes is a bug and keeps its traceback.
"""

from __future__ import annotations

from collections.abc import Iterable

from petra.core.suggest import family, nearest_name


class PetraError(Exception):
    """Base of all deliberate errors.

    `hint` says what to do next and is printed on a line of its own.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword-only arguments need help to cross a process boundary.
        return (rebuild_error, (type(self), self.__dict__))


def rebuild_error(cls: type[PetraError], state: dict[str, object]) -> PetraError:
    """The error whose attributes are `state`, without calling its constructor.

    Needs a text `message` among them.
    """
    if not isinstance(state["message"], str):
        raise TypeError(f"message: got {type(state['message']).__name__}")
    error = cls.__new__(cls)
    Exception.__init__(error, state["message"])
    error.__dict__.update(state)
    return error


class ConfigError(PetraError):
    """A study file, argument or pipeline is wrong.

    The message starts with the path of the offending key.
    """


class DataError(PetraError):
    """The user's data is unusable: wrong shapes, labels out of range, an empty split."""


class StageRefused(PetraError):
    """A stage cannot act on this model.

    `layer` names the module, '' when it is about the whole model.
    """

    def __init__(self, message: str, *, layer: str | None = None, hint: str = "") -> None:
        super().__init__(f"layer {layer!r}: {message}" if layer else message, hint=hint)
        self.layer = layer or ""


class DivergedError(PetraError):
    """Training produced a NaN or infinite loss."""


class ExportError(PetraError):
    """A model could not be lowered to a runtime.

    `operator` names what the runtime cannot express, if known.
    """

    def __init__(self, message: str, *, operator: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.operator = operator


class ParityError(PetraError):
    """The reloaded artifact disagrees with the PyTorch model it was exported from."""


class ArtifactError(PetraError):
    """A file that should be a petra artifact is missing, corrupt or of an unknown kind."""


class StoreError(PetraError):
    """The study directory cannot be used: locked, corrupt, unwritable or of another version."""


class MissingExtra(PetraError):
    """An optional dependency is not installed; the message names the extra to install."""

    def __init__(self, package: str, *, extra: str) -> None:
        super().__init__(
            f"the package {package!r} is not installed",
            hint=f"install it with: pip install 'petra[{extra}]'",
        )


def did_you_mean(got: str, allowed: Iterable[str]) -> str:
    """'did you mean 'x'? ' where a name is really near (`petra.core.suggest`), then the allowed
    names, for use as a hint. Of the first part of some names all that begin with it come first.
    """
    names = sorted(allowed)
    begun = family(got, names)
    guess = nearest_name(got, names)
    if guess is None and len(begun) > 1:
        others = ", ".join(name for name in names if name not in begun)
        rest = f"; others: {others}" if others else ""
        return f"name one of {', '.join(begun)}{rest}"
    said = f"did you mean {guess!r}? " if guess else ""
    return f"{said}allowed: {', '.join(names)}"
