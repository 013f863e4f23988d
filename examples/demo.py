"""`make demo`: the main job from recordings to receipt, on a corpus and a tiny model made here.

    .venv/bin/python examples/demo.py [--seed N] [--dir demo]

Everything it makes lies in --dir; what it runs is what you would run: `launcher tune RECORDINGS`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

import yaml

EXAMPLES = Path(__file__).resolve().parent
sys.path.insert(0, str(EXAMPLES.parent))

from launcher.environment import recipe_python  # noqa: E402  (the checkout is on the path only now)

CORPUS, BASE = EXAMPLES / "clinical-terms", EXAMPLES / "tiny_base"


def main() -> int:
    """Make the corpus and the base (both once), then tune; the exit code is that of `launcher tune`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=1, help="of the voices, the split's speakers and the training")
    parser.add_argument("--dir", type=Path, default=EXAMPLES.parent / "demo")
    args = parser.parse_args()
    began = time.monotonic()
    place = args.dir.absolute() / f"seed{args.seed}"
    job = yaml.safe_load((CORPUS / "job.yaml").read_text(encoding="utf-8"))
    base = yaml.safe_load((CORPUS / "base.yaml").read_text(encoding="utf-8"))

    say(f"1/3  Making the recordings (invented speakers, medical terms) in {place}")
    run(place / "corpus.log", sys.executable, CORPUS / "make_corpus.py", "--out", place, "--seed", args.seed)
    say("2/3  Training a tiny base model that knows everyday speech and no medical terms (cached)")
    training = [f"--{key.replace('_', '-')}={value}" for key, value in base.items()]
    run(
        place / "base.log", recipe_python(), BASE / "build.py", "--out", place / "base.nemo",
        "--corpus", place / "corpus.txt", "--train", place / "base" / "manifest.jsonl", *training,
    )  # fmt: skip
    say("3/3  launcher tune: import, check, split, baseline, gate, plan, fine-tune, evaluate, decide, receipt")
    spec = {**job["spec"], "seed": args.seed}
    settings = [item for key, value in spec.items() if key != "base" for item in ("--set", f"{key}={value}")]
    code = subprocess.run(
        [
            sys.executable, "-m", "launcher", "--home", place / "home", "tune", place / "recordings",
            "--general", place / "general" / "manifest.jsonl", "--base", place / "base.nemo",
            "--out", place / "corpus", "--priority", ",".join(job["gate"]["priority"]), *settings,
        ],
        cwd=EXAMPLES.parent, check=False,
    ).returncode  # fmt: skip
    if code == 0:
        say(f"\nthat took {time.monotonic() - began:.0f} s\nnow with your own recordings: launcher tune PATH")
    return code


def say(text: str) -> None:
    """Tell the person, before what is started says anything."""
    print(text, flush=True)


def run(log: Path, *command: object) -> None:
    """Run one command, its own words indented and its libraries' chatter in `log`; its failure ends the demo."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w", encoding="utf-8") as chatter:
        process = subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, stderr=chatter, text=True)
        assert process.stdout is not None
        for line in process.stdout:
            if not line.startswith("{"):  # its answer to programs
                say(f"     {line.rstrip()}")
    if process.wait():
        say(log.read_text(encoding="utf-8")[-3000:])
        raise SystemExit(process.returncode)


if __name__ == "__main__":
    sys.exit(main())
