"""The whole life of a model on recorded human speech: fetch, train a tiny base, then `launcher tune`.

    .venv/bin/python examples/phone-prompts/run.py [--dir demo/phone-prompts] [--rows N] [--steps N]

Exit code 3: the recordings cannot be fetched on this system (see fetch.py); else that of `launcher tune`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

HERE = Path(__file__).resolve().parent
REPO = HERE.parents[1]
sys.path.insert(0, str(REPO))

from launcher.environment import recipe_python  # noqa: E402  (the checkout is on the path only now)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the steps one after the other; the first that fails ends it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--dir", type=Path, default=REPO / "demo" / "phone-prompts")
    parser.add_argument("--rows", type=int, help="only so many prompts, the same ones each time")
    parser.add_argument("--steps", type=int, help="training steps instead of those of job.yaml")
    parser.add_argument("--base-steps", type=int, help="training steps of the base instead of those of base.yaml")
    args = parser.parse_args(argv)
    place = args.dir.absolute()
    spec = yaml.safe_load((HERE / "job.yaml").read_text(encoding="utf-8"))["spec"]
    base = yaml.safe_load((HERE / "base.yaml").read_text(encoding="utf-8"))
    base["steps"] = args.base_steps or base["steps"]
    spec["max_steps"] = args.steps or spec["max_steps"]

    fetch = [sys.executable, HERE / "fetch.py", "--out", place]
    build = [recipe_python(), HERE.parent / "tiny_base" / "build.py", "--out", place / "base.nemo"]
    build += ["--corpus", place / "corpus.txt", "--train", place / "base" / "manifest.jsonl"]
    build += [f"--{key.replace('_', '-')}={value}" for key, value in base.items()]
    tune = [sys.executable, "-m", "launcher", "--home", place / "home", "tune", place / "recordings"]
    tune += ["--general", place / "general" / "manifest.jsonl", "--base", place / "base.nemo"]
    tune += ["--out", place / "corpus", "--group-by", "none"]
    tune += [part for key, value in spec.items() if key != "base" for part in ("--set", f"{key}={value}")]
    for command in (fetch if args.rows is None else [*fetch, "--rows", args.rows], build, tune):
        code = subprocess.run([str(part) for part in command], cwd=REPO, check=False).returncode
        if code:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
