"""One readable file a method: the settings, optimiser and lengths of the paper where given, else the method's own.

    recipes/methods/mmdg.yaml
        method: mmdg
        settings: {}                 # of the method, by field name
        optimiser: {name: adam, learning_rate: 5.0e-5, weight_decay: 1.0e-3}
        recipe: {epochs: 70, batch_size: 32}

`mmdg benchmark --table` trains with them; `mmdg search` writes such a file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import yaml

from mmdg_model.training.methods.contract import MethodError
from mmdg_model.training.methods.registry import METHODS, resolve_settings
from mmdg_model.training.run_config import RunConfigError, from_plain

_KEYS = ("method", "settings", "optimiser", "recipe", "augmentation", "precision")


class MethodRecipeError(ValueError):
    """A recipe file of a method cannot be used; the message quotes the file, the key and the remedy."""


@dataclass(frozen=True, kw_only=True)
class MethodRecipe:
    """What one method is trained with.

    Attributes:
        method: a name of `methods.registry.METHODS`.
        settings: of it, by field name.
        run: what the file changes of `RunConfig`'s defaults, nested plain values: optimiser, recipe and the like.
        source: the file, for messages; empty where a method has none and everything is at its default.
    """

    method: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    run: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""


def method_recipe(method: str, folder: Path | None = None) -> MethodRecipe:
    """The recipe of a method; the defaults (the paper's own recipe) where it has no file.

    Args:
        folder: of files that go before those that come with the program.

    Raises:
        MethodRecipeError: the file cannot be used.
    """
    shipped: Traversable = resources.files("mmdg_model.training") / "recipes" / "methods" / f"{method}.yaml"
    own = folder / f"{method}.yaml" if folder is not None else None
    for place in (own, shipped):
        if place is not None and place.is_file():
            return recipe_from_text(place.read_text(encoding="utf-8"), str(place), method=method)
    return MethodRecipe(method=method)


def recipe_from_text(text: str, place: str, *, method: str) -> MethodRecipe:
    """A recipe from YAML; `place` (the file) is quoted, `method` must be the one it names.

    Raises:
        MethodRecipeError: no YAML mapping, an unknown key, another method, or a value out of range.
    """
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise MethodRecipeError(f"{place} cannot be read as YAML: {error}") from error
    if not isinstance(values, Mapping):
        raise MethodRecipeError(f"{place}: {values!r}, expected a mapping with {', '.join(_KEYS)}")
    if unknown := [key for key in values if key not in _KEYS]:
        raise MethodRecipeError(f"{place}: {unknown[0]!r} is an unknown key; known: {', '.join(_KEYS)}")
    if values.get("method") != method:
        raise MethodRecipeError(f"{place}: method is {values.get('method')!r}, the file is named after {method!r}; "
                                "name the same")
    settings = values.get("settings") or {}
    run = {key: values[key] for key in _KEYS[2:] if values.get(key) is not None}
    try:
        from_plain(run)
        if method in METHODS:
            resolve_settings(method, settings)
    except (RunConfigError, MethodError, TypeError, AttributeError) as error:
        raise MethodRecipeError(f"{place}: {error}") from error
    return MethodRecipe(method=method, settings=dict(settings), run=run, source=place)


def to_yaml(recipe: MethodRecipe, *, comment: str = "") -> str:
    """As a recipe file has it, with a comment above."""
    head = "".join(f"# {line}\n" for line in comment.splitlines())
    values = {"method": recipe.method, "settings": dict(recipe.settings), **recipe.run}
    return head + yaml.safe_dump(values, sort_keys=False)
