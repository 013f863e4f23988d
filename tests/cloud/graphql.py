"""As much of GraphQL as RunPod's clients write: one operation, fields with aliases and arguments, variables."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

_TOKEN = re.compile(
    r'\s*(?:#[^\n]*|,)*\s*("(?:\\.|[^"\\])*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|\$?[A-Za-z_]\w*|[{}()\[\]:=!])'
)
_WORDS = {"true": True, "false": False, "null": None}


class QueryError(ValueError):
    """A question that is no question, or asks for what there is not."""


@dataclass
class Field:
    """One field that was asked for."""

    name: str
    alias: str
    arguments: dict[str, Any] = field(default_factory=dict)
    fields: list[Field] = field(default_factory=list)


class _Reader:
    def __init__(self, text: str, variables: Mapping[str, Any]) -> None:
        self.tokens: list[str] = []
        self.variables = variables
        at, text = 0, text.rstrip().rstrip(",")
        while at < len(text):
            found = _TOKEN.match(text, at)
            if not found:
                raise QueryError(f"Syntax Error: Unexpected character at {at}: {text[at : at + 20]!r}")
            self.tokens.append(found.group(1))
            at = found.end()
        self.at = 0

    def peek(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def take(self, wanted: str = "") -> str:
        token = self.peek()
        if not token or (wanted and token != wanted):
            raise QueryError(f"Syntax Error: Expected {wanted or 'more'}, found {token or '<EOF>'}")
        self.at += 1
        return token

    def operation(self) -> tuple[str, list[Field]]:
        kind = "query"
        if self.peek() != "{":
            kind = self.take()
            if self.peek() not in ("(", "{"):
                self.take()  # its name
            if self.peek() == "(":  # its variables' types are not checked
                while self.take() != ")":
                    pass
        return kind, self.fields()

    def fields(self) -> list[Field]:
        self.take("{")
        found = []
        while self.peek() != "}":
            alias = name = self.take()
            if self.peek() == ":":
                self.take()
                name = self.take()
            one = Field(name, alias)
            if self.peek() == "(":
                self.take()
                while self.peek() != ")":
                    key = self.take()
                    self.take(":")
                    one.arguments[key] = self.value()
                self.take()
            if self.peek() == "{":
                one.fields = self.fields()
            found.append(one)
        self.take("}")
        return found

    def value(self) -> Any:
        token = self.take()
        if token == "[":
            held = []
            while self.peek() != "]":
                held.append(self.value())
            self.take()
            return held
        if token == "{":
            table = {}
            while self.peek() != "}":
                key = self.take()
                self.take(":")
                table[key] = self.value()
            self.take()
            return table
        if token[0] == '"':
            return re.sub(r"\\(.)", lambda m: {"n": "\n", "t": "\t"}.get(m[1], m[1]), token[1:-1])
        if token[0] == "$":
            return self.variables.get(token[1:])
        if token[0] in "-0123456789":
            return float(token) if re.search(r"[.eE]", token) else int(token)
        return _WORDS.get(token, token)


def parse(text: str, variables: Mapping[str, Any] | None = None) -> tuple[str, list[Field]]:
    """The kind of operation and its fields."""
    return _Reader(text, variables or {}).operation()


def pick(value: Any, fields: list[Field]) -> Any:
    """Of a value, the fields that were asked for; a field may be a function of its arguments."""
    if isinstance(value, list):
        return [pick(one, fields) for one in value]
    if not fields or value is None:
        return value
    chosen = {}
    for one in fields:
        if one.name not in value:
            raise QueryError(f'Cannot query field "{one.name}" on this type.')
        held = value[one.name]
        if isinstance(held, Callable):  # type: ignore[arg-type]
            held = held(**one.arguments)
        chosen[one.alias] = pick(held, one.fields)
    return chosen
