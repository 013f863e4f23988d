"""`launcher merge BASE ADAPTER --out FILE`: a plain .nemo from a base and an adapter."""

from __future__ import annotations

from pathlib import Path

import click

from launcher.cli import common_options, context


@click.command("merge")
@click.argument("base")
@click.argument("adapter", type=click.Path(path_type=Path))
@click.option("--out", "target", metavar="FILE", required=True, type=click.Path(path_type=Path),
              help="The .nemo to write; it must not be there yet.")  # fmt: skip
@click.option("--trust-base", "trusted", metavar="SHA256",
              help="Of a BASE whose weights may run its maker's programs on this computer.")  # fmt: skip
@common_options
def command(base: str, adapter: Path, target: Path, trusted: str | None) -> int:
    """Merge ADAPTER (an adapter.safetensors, or the folder it is in) into BASE, the model that it was learned on."""
    import tempfile

    from launcher.cli.model import named_model
    from launcher.clock import SystemClock
    from launcher.errors import BadInputError
    from launcher.job import harm_in
    from launcher.local_recipe import run_here
    from recipes.contract import Artifact, sha256_of
    from recipes.merge.spec import MERGED

    ctx = context()
    target = target.expanduser().absolute()
    if target.suffix != ".nemo":
        raise BadInputError("is no .nemo file's name.", key="--out", value=str(target), fix="End it in .nemo.")
    if target.exists():
        raise BadInputError(
            "is there already.", key="--out", value=str(target), file=target, fix="Name another file, or remove it."
        )
    named = named_model(base, "BASE")
    if not adapter.expanduser().exists():
        raise BadInputError("no such file or folder.", key="ADAPTER", value=str(adapter), file=adapter)
    harm = harm_in(Path(named), trusted, "--trust-base") if named.endswith(".nemo") else None
    if harm:
        raise BadInputError(harm[0], key="BASE", value=base, file=base, fix=harm[1])
    if trusted:
        ctx.out.warn(f"--trust-base: {Path(base).name} runs programs of whoever made it, on this computer, as you")
    target.parent.mkdir(parents=True, exist_ok=True)
    spec = {"base": named, "adapter": str(adapter.expanduser().absolute()), "trust_base": trusted}
    with tempfile.TemporaryDirectory(prefix=".merging-", dir=target.parent) as scratch:  # renamed, not copied
        result = run_here("merge", spec, Path(scratch), SystemClock(), lambda event: None)
        _place(Path(scratch) / MERGED, target)
    metrics = result["metrics"]
    if not metrics["as_trained"]:
        ctx.out.warn("these are not the very weights that the training run saved: evaluate them before use")
    made = Artifact(str(target), target.stat().st_size, sha256_of(target))
    ctx.out.say(f"{target}  {made.bytes / 1e6:,.1f} MB  sha256 {made.sha256}")
    ctx.out.result({"artifacts": [made.__dict__], **metrics})
    return 0


def _place(made: Path, target: Path) -> None:
    """Rename to a name that nobody else has taken meanwhile; BadInputError where somebody has."""
    from launcher.errors import BadInputError

    if target.exists():
        raise BadInputError("has come to be there while the model was merged.", key="--out", file=target)
    made.rename(target)
