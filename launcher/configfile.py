"""Reads a YAML file into a pydantic model; every fault names file, line, key, value and the nearest valid key."""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from launcher.errors import BadInputError, nearest

Model = TypeVar("Model", bound=BaseModel)
KeyPath = tuple[str | int, ...]


# What PyYAML raises on a value that its tag does not fit (`!!bool x` is a KeyError), beside its own errors.
READ_ERRORS = (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError)
MOST_NODES, MOST_LEVELS = 20_000, 30  # of a file once its aliases are written out; no settings file comes near


_NUMBERS = {  # how people write them
    "tag:yaml.org,2002:int": r"[-+]?(0|[1-9]\d*)$",
    "tag:yaml.org,2002:float": r"([-+]?(\d+\.\d*|\.\d+)([eE][-+]\d+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$",
}


# Control characters, and those that turn the direction of a line: what is shown would not be what is written.
_ACTED_ON = re.compile("[\x01-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def _refuse_bomb(root: yaml.Node | None) -> None:
    """Raise when aliases make a file endless or huge, when it is nested deeper than any settings are, or acts up."""
    sizes: dict[int, int] = {}

    def size(node: yaml.Node, level: int) -> int:
        if level > MOST_LEVELS:
            raise yaml.constructor.ConstructorError(None, None, "nested too deeply", node.start_mark)
        if isinstance(node, yaml.ScalarNode) and _ACTED_ON.search(node.value):
            raise yaml.constructor.ConstructorError(None, None, "a sign that a terminal acts on", node.start_mark)
        if id(node) not in sizes:
            parts: list[yaml.Node] = []
            if isinstance(node, yaml.MappingNode):
                parts = [part for pair in node.value for part in pair]
            elif isinstance(node, yaml.SequenceNode):
                parts = node.value
            total = 1 + sum(size(part, level + 1) for part in parts)
            if total > MOST_NODES:
                raise yaml.constructor.ConstructorError(None, None, "too large for settings", node.start_mark)
            sizes[id(node)] = total
        return sizes[id(node)]

    if root is not None:
        size(root, 1)


class _StrictLoader(yaml.SafeLoader):
    """PyYAML's safe loader, but a key written twice is an error, and a number is one as people write it.

    YAML 1.1 would read 5:00 as 300, 010 as 8 and 0x10 as 16: here they are text, and no amount of dollars.
    """

    yaml_implicit_resolvers = {  # noqa: RUF012  PyYAML's own attribute
        first: [(tag, pattern) for tag, pattern in known if tag not in _NUMBERS]
        for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[object] = set()
        for key_node, _ in node.value:
            key = key_node.value
            if not isinstance(key_node, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key must be plain text", key_node.start_mark)
            if key in seen and key_node.tag != "tag:yaml.org,2002:merge":
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is written twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


for _tag, _pattern in _NUMBERS.items():
    _StrictLoader.add_implicit_resolver(_tag, re.compile(_pattern, re.ASCII), list("-+0123456789."))


class ConfigFile:
    """A parsed YAML file that remembers on which line each key stands."""

    def __init__(self, path: Path) -> None:
        """Read and parse; raises BadInputError when it is absent, not UTF-8, not YAML, or not a mapping."""
        self.path = path
        try:
            text = path.read_text(encoding="utf-8-sig")
        except FileNotFoundError:
            raise BadInputError("no such file", file=path, fix="Write one with: launcher init") from None
        except IsADirectoryError:
            raise BadInputError("is a folder.", file=path, fix="Name the file in it, such as job.yaml.") from None
        except OSError as error:
            raise BadInputError(f"cannot be read: {error.strerror or error}", file=path) from None
        except UnicodeDecodeError as error:
            raise BadInputError(f"cannot be read: {error}", file=path) from None
        try:
            loader = _StrictLoader(text)
            root = loader.get_single_node()
            _refuse_bomb(root)
            self.data: Any = loader.construct_document(root) if root is not None else {}
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else None
            raise BadInputError(f"not valid YAML: {error.problem}.", file=path, line=line) from None
        except RecursionError:
            raise BadInputError("not valid YAML: nested too deeply.", file=path) from None
        except READ_ERRORS as error:
            words = " ".join(str(error).split())
            raise BadInputError(f"not valid YAML: {words or type(error).__name__}.", file=path) from None
        if not isinstance(self.data, dict):
            raise BadInputError("must be a mapping of settings (key: value lines)", file=path, value=self.data)
        self._root = root

    def line_of(self, keys: KeyPath) -> int | None:
        """The 1-based line of a key, or of the deepest part of its path that the file has."""
        node, line = self._root, None
        for key in keys:
            if isinstance(node, yaml.MappingNode):
                for key_node, value_node in node.value:
                    if key_node.value == str(key):
                        node, line = value_node, key_node.start_mark.line + 1
                        break
                else:
                    return line
            elif isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
                node = node.value[key]
                line = node.start_mark.line + 1
            else:
                return line
        return line

    def parse(self, model: type[Model], at: KeyPath = (), data: Any = None) -> Model:
        """Validate the file's data (or the part of it that stands `at` a key) as `model`."""
        try:
            return model.model_validate(self.data if data is None else data)
        except ValidationError as error:
            problem, fix, keys, value = explain(error, model)
            where: KeyPath = (*at, *keys)
            raise BadInputError(
                problem, fix=fix, file=self.path, line=self.line_of(where), key=dotted(where), value=value
            ) from None


def load(path: Path, model: type[Model]) -> Model:
    """Read `path` as `model`; raises BadInputError with file, line, key, value and fix."""
    return ConfigFile(path).parse(model)


def explain(error: ValidationError, model: type[BaseModel]) -> tuple[str, str, KeyPath, object]:
    """The first fault in words: (problem, fix, path of the key, value)."""
    detail = min(error.errors(), key=_rank)
    owner, keys = _walk(model, detail["loc"])
    told = detail["msg"].removeprefix("Value error, ").partition(": ")
    held = detail["input"]
    if detail["type"] == "value_error" and isinstance(held, dict) and told[0].split(".")[0] in held:
        # A rule over several keys (a model's validator) names the one to change: "default: names no budget".
        return f"{told[2]}.", "", (*keys, *told[0].split(".")), held
    problem, fix = _explain(detail, owner, str(keys[-1]) if keys else "")
    return problem, fix, keys, held


def _rank(detail: ErrorDetails) -> int:
    """A typo comes before the setting that it left missing; of `any, or a list`, a list was never meant as `any`."""
    if detail["type"] == "extra_forbidden":
        return 0
    return 2 if detail["type"] == "literal_error" and isinstance(detail["input"], list) else 1


def dotted(keys: KeyPath) -> str:
    """`('data', 'train', 0)` as `data.train[0]`."""
    text = ""
    for key in keys:
        text += f"[{key}]" if isinstance(key, int) else f".{key}" if text else str(key)
    return text


def _walk(model: type[BaseModel], location: tuple[int | str, ...]) -> tuple[type[BaseModel] | None, KeyPath]:
    """The model that holds the last key of a pydantic location, and the path without union branch names."""
    owner: type[BaseModel] | None = model
    current: Any = model
    keys: list[str | int] = []
    for part in location:
        holder = _model_in(current)
        if holder is not None:
            owner = holder
            keys.append(part)
            name = next((n for n, f in holder.model_fields.items() if part in (n, f.alias)), None)
            current = holder.model_fields[name].annotation if name else None
            continue
        origin = get_origin(current)
        if isinstance(part, int) or origin in (dict, Mapping):
            keys.append(part)
            owner = None
            args = get_args(current)
            current = args[-1] if args else None
        # anything else is pydantic's name for a branch of a union: not a key of the file
    return owner, tuple(keys)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (Union, types.UnionType):
        return next((m for m in map(_model_in, get_args(annotation)) if m is not None), None)
    return None


def _explain(detail: ErrorDetails, owner: type[BaseModel] | None, key: str) -> tuple[str, str]:
    kind, value = detail["type"], detail.get("input")
    fields = owner.model_fields if owner else {}
    if kind == "extra_forbidden":
        close = nearest(key, fields)
        if close:
            return "no such setting.", f"Did you mean {close} ({describe(fields[close])})?"
        return "no such setting.", f"Valid here: {', '.join(fields)}."
    if kind == "missing":
        wanted = describe(fields[key]) if key in fields else "a value"
        return "is missing.", f"Add it: {wanted}."
    shown = "empty" if value is None else repr(value)[:80]
    message = detail["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    if kind in ("value_error", "assertion_error"):
        return f"{message}." if isinstance(value, dict) else f"{message} (it is {shown})", ""
    if kind in ("list_type", "tuple_type") and isinstance(value, str | int | float):
        return f"{shown} will not do.", f"It must be a list: [{value}]."
    if key in fields:
        wanted = describe(fields[key])
        return f"{shown} will not do.", f"It must be {wanted}." + _did_you_mean(value, fields[key].annotation)
    if kind == "literal_error":
        choices = re.findall(r"'([^']*)'", str(detail.get("ctx", {}).get("expected", "")))
        close = nearest(str(value), choices)
        return f"{shown} will not do.", f"Did you mean {close}?" if close else f"Valid: {', '.join(choices)}."
    return f"{shown} will not do: {message[0].lower()}{message[1:]}.", ""


def describe(field: FieldInfo) -> str:
    """What a field takes, in words: 'an integer of at least 1, or auto'."""
    bounds = []
    for rule in field.metadata:
        for attribute, words in (("ge", "at least"), ("gt", "more than"), ("le", "at most"), ("lt", "less than")):
            limit = getattr(rule, attribute, None)
            if limit is not None:
                bounds.append(f"{words} {limit}")
    words = _words(field.annotation)
    if not bounds:
        return words
    head, comma, rest = words.partition(", or ")
    return f"{head} of {' and '.join(bounds)}{comma}{rest}"


_NAMES: dict[Any, str] = {
    int: "an integer", float: "a number", str: "text", bool: "true or false", Path: "a path",
    type(None): "empty", dict: "a mapping", list: "a list", Any: "any value",
}  # fmt: skip


def _did_you_mean(value: object, annotation: Any) -> str:
    close = nearest(str(value), _choices(annotation))
    return f" Did you mean {close}?" if close else ""


def _choices(annotation: Any) -> list[str]:
    if get_origin(annotation) is Literal:
        return [str(choice) for choice in get_args(annotation)]
    return [choice for part in get_args(annotation) for choice in _choices(part)]


def _words(annotation: Any) -> str:
    if annotation in _NAMES:
        return _NAMES[annotation]
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is typing.Annotated:
        return _words(args[0])
    if origin is Literal:
        return " or ".join(str(choice) for choice in args)
    if origin in (Union, types.UnionType):
        parts = [_words(part) for part in args if part is not type(None)]
        return ", or ".join(dict.fromkeys(parts)) + (", or empty" if type(None) in args else "")
    if origin in (list, tuple):
        inner = _words(args[0]) if args else "values"
        return f"a list of {inner.removeprefix('a ').removeprefix('an ')}"
    if origin is dict:
        return "a mapping"
    if isinstance(annotation, type):
        if issubclass(annotation, BaseModel):
            return f"a mapping with {', '.join(annotation.model_fields)}"
        if annotation.__name__ == "Usd":
            return "an amount of dollars such as 2.50"
    return getattr(annotation, "__name__", "a value")
