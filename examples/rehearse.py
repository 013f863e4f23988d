"""`make rehearse`: the whole rented path at no cost, on a practice cloud that stands on this computer alone.

    sudo .venv/bin/python examples/rehearse.py [--yes] [--provider vast] [--dir demo]

A simulation: its machines are namespaces with a real sshd, its prices are invented, and nothing leaves this computer.
The launcher, the recipes, ssh, rsync and the training are the real ones. Everything it makes lies in --dir; the cloud
is taken down at the end, also after Ctrl-C. Without a terminal, or with --yes, the plan is approved beforehand.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import urllib.request
from decimal import Decimal
from pathlib import Path
from typing import Any

import yaml

EXAMPLES = Path(__file__).resolve().parent
CHECKOUT = EXAMPLES.parent
sys.path[:0] = [str(CHECKOUT), str(EXAMPLES)]

from demo import BASE, CORPUS, run, say  # noqa: E402  (the checkout is on the path only now)

from launcher.environment import recipe_python  # noqa: E402

SIMULATION = "SIMULATION: a practice cloud on this computer. Nothing is rented, and nothing costs anything."
CAPS = {"per_run_usd": 5, "per_day_usd": 5, "per_month_usd": 5, "max_usd_per_hour": 2.5}
PYTHON_THERE = "usr/local/bin/python"  # as an image would bring it: `setup` of sky/*.yaml finds it on the path
NEVER_PASSED = ("LAUNCHER_LEDGER", "LAUNCHER_HOME", "LAUNCHER_CONFIRM", "LAUNCHER_MAX_COST")


def main() -> int:
    """Walk the path; the exit code is that of `launcher run`, or of what failed before it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--yes", action="store_true", help="approve the plan beforehand instead of typing YES")
    parser.add_argument("--provider", help="vast, runpod or brev; default: the one that the plan chooses")
    parser.add_argument("--steps", type=int, default=240, help="of training; fewer end sooner, with a worse model")
    parser.add_argument("--method", help="of training, such as lora_decoder; default: the demo's")
    parser.add_argument("--dir", type=Path, default=CHECKOUT / "demo")
    args = parser.parse_args()
    say(f"{SIMULATION}\n")
    if os.geteuid() != 0:
        say(
            "Its machines are made of namespaces, which needs root: sudo make rehearse",
        )
        return 2
    typed = not args.yes and sys.stdin.isatty() and sys.stdout.isatty()
    place = args.dir.absolute()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    cloud = Practice(place / "rehearsal", args.provider, args.steps, args.method)
    try:
        job = cloud.prepare(place / "seed1")
        cloud.stand()
        code = cloud.walk(job, typed=typed)
    except KeyboardInterrupt:
        say("\ninterrupted")
        code = 130
    finally:
        for signum in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signum, signal.SIG_IGN)  # what stands is taken down first
        clean = cloud.end()
    say(f"\n{SIMULATION}")
    return code if clean else code or 1


class Practice:
    """One rehearsal: its folder, its cloud, its launcher."""

    def __init__(self, folder: Path, provider: str | None, steps: int, method: str | None) -> None:
        self.folder, self.state, self.home = folder, folder / "cloud", folder / "home"
        self.steps, self.method = steps, method
        self.providers = [provider] if provider else ["vast", "runpod", "brev"]
        self.env = {name: value for name, value in os.environ.items() if name not in NEVER_PASSED}
        self.env["PYTHONPATH"] = str(CHECKOUT)

    def prepare(self, corpus: Path) -> Path:
        """The demo's recordings and base (both made once), and a small job over them; the job file."""
        say("1/5  Recordings and a tiny base model, those of `make demo` (cached)")
        self._cloud("down")  # one that a killed rehearsal left
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        base = yaml.safe_load((CORPUS / "base.yaml").read_text(encoding="utf-8"))
        run(corpus / "corpus.log", sys.executable, CORPUS / "make_corpus.py", "--out", corpus, "--seed", 1)
        training = [f"--{key.replace('_', '-')}={value}" for key, value in base.items()]
        run(
            corpus / "base.log", recipe_python(), BASE / "build.py", "--out", corpus / "base.nemo",
            "--corpus", corpus / "corpus.txt", "--train", corpus / "base" / "manifest.jsonl", *training,
        )  # fmt: skip
        self._launcher("import", corpus / "recordings", "--out", self.folder / "corpus")
        spec = yaml.safe_load((CORPUS / "job.yaml").read_text(encoding="utf-8"))["spec"]
        spec |= {"base": str(corpus / "base.nemo"), "max_steps": self.steps}
        spec |= {"method": self.method} if self.method else {}
        spec["validation_interval_steps"] = min(spec["validation_interval_steps"], self.steps)
        job = {
            "recipe": "finetune", "spec": spec,
            "data": {"manifest": str(self.folder / "corpus" / "manifest.jsonl"), "group_by": "voice_id",
                     "general": str(corpus / "general" / "manifest.jsonl")},
            "gate": {"priority": ["drug", "procedure"], "advisory": True},
            "resources": {"providers": self.providers}, "budget": "practice",
        }  # fmt: skip
        budget = {**CAPS, "providers": self.providers, "approval": ["typed", "preapproved"]}
        path = self.folder / "job.yaml"
        path.write_text(yaml.safe_dump(job, sort_keys=False), encoding="utf-8")
        budgets = {"default": "practice", "budgets": {"practice": budget}}
        path.with_name("budgets.yaml").write_text(yaml.safe_dump(budgets, sort_keys=False), encoding="utf-8")
        return path

    def stand(self) -> None:
        """Start the cloud, its machines with the recipes' environment as an image would bring it."""
        say("2/5  Starting the practice cloud: RunPod, Vast and Brev as far as a launcher can see them")
        environment = recipe_python().parent.parent.resolve()
        python = self.folder / "image" / PYTHON_THERE
        python.parent.mkdir(parents=True)
        python.write_text(
            f'#!/bin/sh\nexec {shlex.quote(str(environment / "bin" / "python"))} "$@"\n', encoding="utf-8"
        )
        python.chmod(0o755)
        binds = [part for place in (environment, *bases_of(environment)) for part in ("--bind", place)]
        told = self._cloud("up", "--layer", self.folder / "image", *binds)
        if told.returncode:
            raise SystemExit(f"the practice cloud does not stand: {told.stderr.strip()}")
        for line in told.stdout.splitlines():
            name, _, value = line.removeprefix("export ").partition("=")
            if line.startswith("export "):
                value = shlex.split(value.removesuffix(':"$PATH"'))[0]
                self.env[name] = f"{value}{os.pathsep}{self.env['PATH']}" if name == "PATH" else value

    def walk(self, job: Path, *, typed: bool) -> int:
        """What a newcomer would type; the exit code of the run."""
        self._show("3/5  What can be rented", "offers", "--gpu", "L40S")
        self._show("     What it would take (spends nothing)", "plan", job)
        approved = [] if typed else ["--confirm", "YES", "--max-cost", str(CAPS["per_run_usd"])]
        if not typed and self.env.get("CI"):
            approved.append("--ephemeral-ledger")
        how = "type YES when you are asked" if typed else "approved beforehand, as in CI"
        code = self._show(f"4/5  Rent, train, bring home, release ({how})", "run", job, *approved)
        self._show("5/5  What was spent, and is anything left?", "costs")
        self._show("", "reap")
        return code

    def end(self) -> bool:
        """Release what still runs, hold the bill against the ledger, and take the cloud down; whether all is gone."""
        for held in self._answer("status").get("runs", []):
            if not held.get("released", held.get("state") in ("settled", "refused", "cancelled")):
                self._launcher("stop", held["run"], "--now")
        self._compare()
        done = self._cloud("down")
        if done.returncode:
            say(f"the practice cloud left something behind: {done.stdout.strip()}")
        else:
            say("     The practice cloud is gone: no machine, process, mount or network device of it is left.")
            say(f"     What came home, the report and the receipt: {self.home / 'runs'}")
        return done.returncode == 0

    def _compare(self) -> None:
        url = self.env.get("LAUNCHER_SIMULATED_CLOUD_URL")
        if not url:
            return
        try:
            with urllib.request.urlopen(f"{url}/_bill", timeout=10) as reply:  # the practice cloud's own address
                bill = json.load(reply)
        except OSError:
            return
        billing = [row["label"] for row in bill["machines"] if row["bills"]]
        charged = sum((Decimal(row["charged_usd"]) for row in self._answer("costs").get("rows", [])), Decimal(0))
        say(
            f"\n     The cloud's own bill: ${Decimal(bill['total_usd']):.4f} for {len(bill['machines'])} machine(s), "
            f"{len(billing)} of them still billing. The launcher's ledger: ${charged:.4f}. None of it is real money."
        )

    def _show(self, title: str, *words: object) -> int:
        if title:
            say(f"\n{title}")
        say(f"$ launcher {' '.join(str(word) for word in words)}")
        return subprocess.run(self._argv(*words), env=self.env, cwd=self.folder, check=False).returncode

    def _launcher(self, *words: object) -> None:
        subprocess.run(self._argv("-q", *words), env=self.env, cwd=self.folder, check=False)

    def _answer(self, *words: object) -> dict[str, Any]:
        """A verb's JSON; empty where it could not say any."""
        if not self.home.is_dir():
            return {}
        argv = self._argv(*words, "--json")
        done = subprocess.run(argv, env=self.env, cwd=self.folder, capture_output=True, text=True, check=False)
        try:
            held = json.loads(done.stdout)
        except ValueError:
            return {}
        return held if isinstance(held, dict) else {}

    def _argv(self, *words: object) -> list[str]:
        return [sys.executable, "-m", "launcher", "--home", str(self.home), *(str(word) for word in words)]

    def _cloud(self, *words: object) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "tests.cloud", "--state", str(self.state), *(str(word) for word in words)]
        env = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
        return subprocess.run(argv, cwd=CHECKOUT, env=env, capture_output=True, text=True, check=False)


def bases_of(environment: Path) -> list[Path]:
    """The installation that a virtual environment's Python belongs to, unless every machine has it in /usr."""
    said = subprocess.run([environment / "bin" / "python", "-I", "-c", "import sys; print(sys.base_prefix)"],
                          capture_output=True, text=True, check=True)  # fmt: skip
    base = Path(said.stdout.strip()).resolve()
    return [] if base == Path("/usr") else [base]


if __name__ == "__main__":
    sys.exit(main())
