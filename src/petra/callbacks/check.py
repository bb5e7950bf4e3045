"""Callbacks examined before anything is spent."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches

from petra.callbacks.base import EVENTS, HEARD
from petra.core.errors import ConfigError
from petra.core.text import printable

_WANTED = f"a callback has one or more of: {', '.join(EVENTS)} (see petra.plugins.Callback)"


def check_callback(given: object, *, where: str) -> None:
    """Raise ConfigError, beginning with the path `where`, for what hears nothing, and for methods
    that cannot be called as they are going to be: with another name, or other arguments.
    """
    if isinstance(given, type):
        raise ConfigError(
            f"{where}: got the class {given.__name__}", hint=f"make one: {given.__name__}(...)"
        )
    kind = printable(type(given).__name__)
    for name in (n for n in dir(given) if n.startswith("on_") and n not in EVENTS):
        if callable(getattr(given, name, None)):
            close = get_close_matches(name, EVENTS, n=1, cutoff=0.4)
            guess = f"did you mean {close[0]!r}? " if close else ""
            raise ConfigError(
                f"{where}: {kind} has {printable(name)!r}, which is no event of a study",
                hint=f"{guess}{_WANTED}",
            )
    if not has_any(given, EVENTS) and not has_any(given, HEARD):
        raise ConfigError(f"{where}: got {_article(kind)}, which hears nothing", hint=_WANTED)
    events = EVENTS if has_any(given, EVENTS) else HEARD
    _check_calls(given, events, where=f"{where}: {kind}")


def named_and_given(callbacks: object) -> tuple[list[object], tuple[object, ...]]:
    """Those that are named, as in a study file, which checks them; and objects, which are checked.

    Raises ConfigError, with the path.
    """
    every = (callbacks,) if isinstance(callbacks, str | Mapping) else callbacks
    if isinstance(every, bytes) or not isinstance(every, Iterable):
        kind = printable(type(every).__name__)
        raise ConfigError(f"callbacks: got {_article(kind)}", hint="give a list: callbacks=[...]")
    found = tuple(every)
    for i, one in enumerate(found):
        if not isinstance(one, str | Mapping):
            check_callback(one, where=f"callbacks[{i}]")
    named: list[object] = [one for one in found if isinstance(one, str | Mapping)]
    return named, tuple(one for one in found if not isinstance(one, str | Mapping))


def check_listener(given: object) -> None:
    """The same for a listener."""
    kind = printable(type(given).__name__)
    if isinstance(given, type) or not has_any(given, HEARD):
        raise ConfigError(
            f"listener: got {_article(kind)}, which hears nothing",
            hint=f"a listener has one or more of: {', '.join(HEARD)} (petra.listener.Listener)",
        )
    _check_calls(given, HEARD, where=f"listener: {kind}")


def has_any(given: object, events: Mapping[str, tuple[str, ...]]) -> bool:
    """Whether one of these methods is there."""
    return any(callable(getattr(given, name, None)) for name in events)


def _check_calls(given: object, events: Mapping[str, tuple[str, ...]], *, where: str) -> None:
    for name, arguments in events.items():
        method: Callable[..., object] | None = getattr(given, name, None)
        if method is None:
            continue
        try:
            inspect.signature(method).bind(*arguments)
        except TypeError:
            raise ConfigError(
                f"{where}.{name} cannot be called as it is going to be",
                hint=f"it is given: {name}({', '.join(arguments)})",
            ) from None
        except ValueError:  # no signature to be had
            continue


def _article(kind: str) -> str:
    return f"an {kind}" if kind[:1].lower() in "aeiou" else f"a {kind}"
