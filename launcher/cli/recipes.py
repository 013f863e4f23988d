"""`launcher recipes`: the recipes and their settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from launcher.cli import common_options, context

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

    from launcher.catalog import Recipe


@click.command(short_help="List the recipes and their settings.")
@click.argument("action", metavar="[list|show]", type=click.Choice(["list", "show"]), default="list")
@click.argument("name", required=False)
@common_options
def command(action: str, name: str | None) -> int:
    """List the recipes, or show one's settings with units and defaults: `launcher recipes show finetune`."""
    from launcher.catalog import recipe, recipe_names

    out = context().out
    if action == "show" and name is None:
        raise click.UsageError(f"show needs a name: {', '.join(recipe_names())}")
    if action == "list" and name is not None:
        raise click.UsageError(f"list takes no name. Did you mean: launcher recipes show {name}?")
    found = [recipe(each) for each in ([name] if name else recipe_names())]
    out.say(_settings(found[0]) if name else _list(found))
    out.result({"recipes": [each.as_json() for each in found]})
    return 0


def _list(found: list[Recipe]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column()
    for each in found:
        table.add_row(each.name, Text(each.summary))
    return table


def _settings(one: Recipe) -> Group:
    import json

    from rich.console import Group
    from rich.padding import Padding
    from rich.text import Text

    parts: list[Text | Padding] = [Text(f"{one.name}: {one.summary}"), Text()]
    for setting in one.settings:
        head = Text(setting.name, style="bold")
        told = "filled in from the job's data" if setting.from_data else setting.type
        if not setting.required and not setting.from_data:
            told += f"; default {json.dumps(setting.default, ensure_ascii=False)}"
        head.append(f"  {told}" + (f" ({setting.unit})" if setting.unit else ""), style="not bold")
        more = {"When to change it": setting.change, "Source": setting.source}
        said = [setting.description, *(f"{word}: {text}" for word, text in more.items() if text)]
        parts += [head, *(Padding(Text(line), (0, 0, 0, 4)) for line in said)]
    return Group(*parts)
