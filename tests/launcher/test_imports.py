"""What may import what: the launcher no torch, a verb's help only click, a recipe never the launcher."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from launcher.cli import VERBS

REPO = Path(__file__).resolve().parents[2]
TORCHY = {"torch", "nemo", "lightning", "pytorch_lightning", "transformers", "torchaudio", "peft", "omegaconf"}
# What `--help` may not load: each of these alone takes longer than all of `launcher --help` should.
HEAVY = {
    "rich", "pydantic", "yaml", "sqlalchemy", "alembic", "requests", "questionary", "numpy", "jiwer", "kaldialign",
    "soundfile", "av", "psutil", "pynvml", "fabric", "paramiko", "sky", "vastai_sdk", "vastai", "gpuhunt", "runpod",
    "psycopg", "asyncio", "importlib.metadata", "http.client",
}  # fmt: skip
# Refuses torch and its kind even where they are installed, then imports every name given.
IMPORT_ALL = """
import importlib, json, sys
banned, names = set(json.loads(sys.argv[1])), json.loads(sys.argv[2])
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in banned:
            raise AssertionError(f'{name} was asked for')
sys.meta_path.insert(0, Refuse())
for name in names:
    importlib.import_module(name)
print(json.dumps(sorted(banned & {name.split('.')[0] for name in sys.modules})))
"""


def modules(package: str) -> list[str]:
    found = []
    for path in sorted((REPO / package).rglob("*.py")):
        parts = path.relative_to(REPO).with_suffix("").parts
        if parts[-1] != "__main__":
            found.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return found


def imported(tree: ast.AST) -> set[str]:
    """Every module name that any import statement below `tree` names (not those of type checking)."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


def imported_at_start(tree: ast.Module) -> set[str]:
    """The same, but only what runs when the module is imported: no function bodies, no `if TYPE_CHECKING`."""
    names: set[str] = set()
    stack: list[ast.AST] = list(tree.body)
    while stack:
        node = stack.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            stack += node.orelse
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            names |= imported(node)
        stack += ast.iter_child_nodes(node)
    return names


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def start(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environ = os.environ | {"PYTHONPATH": str(REPO)}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environ, cwd=REPO, check=False)


def test_no_module_of_the_launcher_imports_torch_or_nemo() -> None:
    done = start(IMPORT_ALL, json.dumps(sorted(TORCHY)), json.dumps(modules("launcher")))
    assert done.returncode == 0, done.stderr[-1500:]
    assert json.loads(done.stdout.splitlines()[-1]) == []


def test_the_import_guard_itself_would_notice_torch(tmp_path: Path) -> None:
    (tmp_path / "guilty.py").write_text("import torch\n")
    done = start(f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n" + IMPORT_ALL, '["torch"]', '["guilty"]')
    assert done.returncode != 0
    assert "torch was asked for" in done.stderr


def test_no_function_of_the_launcher_imports_torch_or_nemo_later_either() -> None:
    guilty = {
        str(path.relative_to(REPO)): found
        for path in (REPO / "launcher").rglob("*.py")
        if (found := {name for name in imported(parse(path)) if name.split(".")[0] in TORCHY})
    }
    assert guilty == {}


def test_no_recipe_imports_the_launcher() -> None:
    guilty = [
        str(path.relative_to(REPO))
        for path in (REPO / "recipes").rglob("*.py")
        if any(name.split(".")[0] == "launcher" for name in imported(parse(path)))
    ]
    assert guilty == []


def test_help_of_the_whole_imports_no_verb_and_nothing_heavy() -> None:
    loaded = loaded_by_help([])
    ours = {name for name in loaded if name.startswith("launcher.cli.")}
    assert ours == {"launcher.cli.output", "launcher.cli.unheard"}
    assert loaded & HEAVY == set()


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb_imports_that_verb_and_nothing_heavy(verb: str) -> None:
    loaded = loaded_by_help([verb])
    own = VERBS[verb][0]
    verbs = {module for module, _ in VERBS.values()}
    assert loaded & verbs == {own}
    assert loaded & HEAVY == set()


def loaded_by_help(verb: list[str]) -> set[str]:
    code = (
        "import json, sys; from launcher.cli import main; code = main([*sys.argv[1:], '--help'])\n"
        "print(json.dumps([code, sorted(sys.modules)]))"
    )
    done = start(code, *verb)
    assert done.returncode == 0, done.stderr[-1500:]
    code_, loaded = json.loads(done.stdout.splitlines()[-1])
    assert code_ == 0
    return set(loaded)


def test_no_file_of_the_command_line_imports_anything_heavy_at_its_top() -> None:
    light = {"launcher.cli", "launcher.cli.output", "launcher.cli.plan_options", "launcher.cli.unheard",
             "launcher.errors"}  # fmt: skip
    allowed = {"click", "__future__", *light}
    guilty = {}
    for path in (REPO / "launcher" / "cli").glob("*.py"):
        top = imported_at_start(parse(path))
        bad = {n for n in top if n not in allowed and n.split(".")[0] not in sys.stdlib_module_names}
        bad |= top & {"asyncio", "dataclasses", "json", "subprocess", "importlib.metadata", "urllib.request"}
        if bad:
            guilty[path.name] = bad
    assert guilty == {}


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_takes_json_quiet_and_home(verb: str) -> None:
    from importlib import import_module

    command = import_module(VERBS[verb][0]).command
    leaves = list(command.commands.values()) if isinstance(command, click.Group) else [command]
    for leaf in leaves:
        options = {name for parameter in leaf.params for name in parameter.opts}
        assert {"--json", "-q", "--home"} <= options, f"{verb} {leaf.name}"


@pytest.mark.parametrize("package", ["launcher", "recipes", "examples", "bench", "tests"])
def test_modules_stay_under_400_lines(package: str) -> None:
    lines = {path: len(path.read_text("utf-8").splitlines()) for path in (REPO / package).rglob("*.py")}
    assert {str(path.relative_to(REPO)): count for path, count in lines.items() if count >= 400} == {}


@pytest.mark.parametrize("package", ["launcher", "recipes"])
def test_every_module_says_what_it_is_for(package: str) -> None:
    silent = [str(path) for path in (REPO / package).rglob("*.py") if not ast.get_docstring(parse(path))]
    assert silent == []
