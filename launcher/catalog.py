"""The recipes found beside the launcher and their settings, read from each recipe's torch-free `spec` module."""

from __future__ import annotations

import importlib
import inspect
import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

import recipes
from launcher.errors import BadInputError, nearest

# The last word of a setting's name says its unit.
UNITS = {
    "s": "seconds", "h": "hours", "gb": "GB", "gib": "GiB", "mb": "MB", "hz": "Hz", "db": "dB", "usd": "USD",
    "steps": "steps", "epochs": "epochs", "pieces": "pieces", "clips": "clips",
    "rate": "", "fraction": "share of 1", "size": "rows",
}  # fmt: skip


@dataclass(frozen=True)
class Setting:
    """One setting of a recipe, as a person and a program read it."""

    name: str
    type: str
    unit: str
    required: bool
    default: Any
    description: str
    change: str  # when to take another value than the default
    source: str  # of the default, or of what the setting is about
    from_data: bool  # filled in by the launcher from the job's `data`

    def as_json(self) -> dict[str, Any]:
        """The setting as one JSON-ready object."""
        return dict(self.__dict__)


@dataclass(frozen=True)
class Recipe:
    """One recipe: its name, what it does, and its settings in the order they are declared."""

    name: str
    summary: str
    settings: tuple[Setting, ...]
    schema: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        """The recipe as one JSON-ready object."""
        settings = [setting.as_json() for setting in self.settings]
        return {"name": self.name, "summary": self.summary, "settings": settings, "schema": self.schema}


def recipe_names() -> list[str]:
    """Every folder of `recipes` that holds a spec.py, in alphabetical order."""
    folders = (Path(place) for place in recipes.__path__)
    return sorted({spec.parent.name for folder in folders for spec in folder.glob("*/spec.py")})


def recipe(name: str) -> Recipe:
    """One recipe by its name; raises BadInputError with the nearest name."""
    known = recipe_names()
    if name not in known:
        close = nearest(name, known)
        fix = f"Did you mean {close}?" if close else f"There is: {', '.join(known)}."
        raise BadInputError("no such recipe.", key=name, value=name, fix=fix)
    module = importlib.import_module(f"recipes.{name}.spec")
    model: type[BaseModel] = module.SPEC
    filled = frozenset(getattr(module, "DATA_FIELDS", ()))
    schema = model.model_json_schema()
    told = _told(model)
    settings = tuple(
        _setting(key, field, schema["properties"].get(key, {}), told.get(key, {}), from_data=key in filled)
        for key, field in model.model_fields.items()
    )
    return Recipe(name, module.SUMMARY, settings, schema)


def _told(model: type[BaseModel]) -> dict[str, dict[str, str]]:
    """What settings.toml says of each setting, beside its spec or that of a recipe whose settings it takes on."""
    told: dict[str, dict[str, str]] = {}
    for each in reversed(model.__mro__):
        file = Path(inspect.getfile(each)).with_name("settings.toml") if "recipes." in each.__module__ else None
        if file is not None and file.is_file():
            told |= tomllib.loads(file.read_text(encoding="utf-8"))
    return told


def _setting(
    name: str, field: FieldInfo, schema: dict[str, Any], told: dict[str, str], *, from_data: bool
) -> Setting:
    default = None if field.is_required() else schema.get("default", field.get_default(call_default_factory=True))
    return Setting(
        name=name,
        type=_type(schema),
        unit=told.get("unit", UNITS.get(name.rsplit("_", 1)[-1], "") if "_" in name else ""),
        required=field.is_required(),
        default=default,
        description=" ".join((field.description or "").split()),
        change=told.get("change", ""),
        source=told.get("source", ""),
        from_data=from_data,
    )


def _type(schema: dict[str, Any]) -> str:
    """A schema in a few words: `integer, at least 1 or "auto"`."""
    if "anyOf" in schema:
        return " or ".join(_type(choice) for choice in schema["anyOf"])
    if "enum" in schema or "const" in schema:
        return " or ".join(json.dumps(value) for value in schema.get("enum", [schema.get("const")]))
    kind = str(schema.get("type", "object" if "$ref" in schema else "anything"))
    kind = {"string": "text", "boolean": "true or false", "array": "list", "null": "null"}.get(kind, kind)
    for key, words in (
        ("minimum", "at least"), ("exclusiveMinimum", "above"), ("maximum", "at most"), ("exclusiveMaximum", "below"),
    ):  # fmt: skip
        if key in schema:
            kind += f", {words} {schema[key]:.15g}"
    return kind
