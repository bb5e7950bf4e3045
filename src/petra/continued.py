"""A study that goes on with other settings than it was started with: which may differ."""

from __future__ import annotations

from typing import Any

from petra.config import parse_config
from petra.core.errors import StoreError
from petra.store.store import Store

_FORMER_SEARCH, _SEARCH = {"name": "evolution"}, {"name": "surrogate"}  # the defaults
# What may differ between the sessions of one study: nothing that changes what is proposed or how it
# is judged.
_MAY_CHANGE = frozenset({"budget", "limits", "executor", "callbacks", "workdir"})


def take_over(store: Store, wanted: dict[str, Any]) -> None:
    """Store the settings in place of those that the study was started with. Raises StoreError when
    it would be another study.
    """
    stored = parse_config(store.config, where=str(store.directory)).model_dump(mode="json")
    if (stored["search"], wanted["search"]) == (_FORMER_SEARCH, _SEARCH):
        wanted = {**wanted, "search": stored["search"]}  # begun when another one was the default
    changed = sorted(k for k in wanted if k not in _MAY_CHANGE and wanted[k] != stored[k])
    if changed:
        raise StoreError(
            f"{store.directory}: holds a study with other settings ({', '.join(changed)})",
            hint="choose another workdir, or give the same settings to continue that study",
        )
    store.set_config(wanted)
