"""The recipes that a study was created with, kept with it."""

from __future__ import annotations

from petra.core.errors import ConfigError, StoreError
from petra.core.pipeline import Pipeline
from petra.store.store import Store

RECIPES_NOTE = "recipes"


def recipe_notes(recipes: tuple[Pipeline, ...]) -> dict[str, object]:
    """What a study that is created with these keeps of them."""
    return {RECIPES_NOTE: [pipeline.as_list() for pipeline in recipes]}


def stored_recipes(store: Store) -> tuple[Pipeline, ...]:
    """Those that the study was created with; none for a study from before there were any. Raises
    StoreError for what is no list of pipelines.
    """
    note = store.note(RECIPES_NOTE) or []
    try:
        if not isinstance(note, list):
            raise ConfigError(f"got {type(note).__name__}, a list of pipelines is wanted")
        return tuple(Pipeline.from_list(item) for item in note)
    except ConfigError as error:
        raise StoreError(f"{store.directory} is damaged: note {RECIPES_NOTE}: {error}") from None
