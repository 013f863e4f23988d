"""`python -m tests.cloud up`: a simulated cloud to practise on. `down` removes every trace of it."""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from tests.cloud.cloud import SCENARIOS, Cloud
from tests.cloud.image import ImageError, ensure
from tests.cloud.life import Standing, down, environment, stand
from tests.cloud.machine import MARK, MachineError, Network

PROVIDERS = ("runpod", "vast", "brev")


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def complain(text: str) -> None:
    sys.stderr.write(text + "\n")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.cloud", description=__doc__)
    parser.add_argument("--state", type=Path, default=Path(tempfile.gettempdir()) / "launcher-simulated-cloud",
                        help="where the cloud keeps its state")  # fmt: skip
    verbs = parser.add_subparsers(dest="verb", required=True)
    up = verbs.add_parser("up", help="start it, and print the environment to export")
    up.add_argument("--providers", default=",".join(PROVIDERS), help="default: all of %(default)s")
    up.add_argument("--seed", type=int, default=0, help="the same seed, the same ids, ports and keys")
    up.add_argument("--scenario", default="quick", choices=("quick", "measured"), help="figures of scenarios.toml")
    up.add_argument("--layer", type=Path, action="append", default=[], help="a folder laid over every machine's root")
    up.add_argument(
        "--bind", type=Path, action="append", default=[], help="a folder here, read-only in every machine"
    )
    up.add_argument("--set", action="append", default=[], dest="changes", metavar="FIGURE=VALUE",
                    help="another figure than the scenario's: vast.self_destroy=true, quick.boot_s=0.2")  # fmt: skip
    up.add_argument("--foreground", action="store_true", help="do not leave: for a supervisor")
    verbs.add_parser("down", help="end it and remove every trace")
    image = verbs.add_parser("image", help="build the layer in which SkyPilot sets up a node without a network")
    image.add_argument("--out", type=Path, help="where; by default, and then only once, below the checkout's .cache")
    asked = parser.parse_args(argv)
    if os.geteuid() != 0:
        complain("A simulated machine is made of namespaces, which needs root. Fix: run as root.")
        return 2
    if asked.verb == "image":
        return _image(asked.out)
    if asked.verb == "down":
        left = down(asked.state)
        say("\n".join(left) if left else "nothing is left")
        return 1 if left else 0
    return _up(asked)


def _image(out: Path | None) -> int:
    try:
        say(str(ensure(out)))
    except (ImageError, OSError) as error:
        complain(str(error))
        return 2
    return 0


def _up(asked: argparse.Namespace) -> int:
    standing = Standing.read(asked.state)
    if standing and standing.alive():
        complain(f"one stands already at {asked.state}. Fix: python -m tests.cloud --state {asked.state} down")
        return 2
    if standing:
        down(asked.state)
    wrong = set(asked.providers.split(",")) - set(PROVIDERS)
    if wrong:
        complain(f"no such provider: {', '.join(sorted(wrong))}. There are: {', '.join(PROVIDERS)}")
        return 2
    if asked.foreground:
        return _serve(asked)
    asked.state.mkdir(parents=True, exist_ok=True)
    argv = [sys.executable, "-m", "tests.cloud", *(["--state", str(asked.state)]), "up", "--foreground",
            "--providers", asked.providers, "--seed", str(asked.seed), "--scenario", asked.scenario,
            *(part for change in asked.changes for part in ("--set", change)),
            *(part for layer in asked.layer for part in ("--layer", str(layer.resolve()))),
            *(part for bind in asked.bind for part in ("--bind", str(bind.resolve())))]  # fmt: skip
    env = os.environ | {MARK: secrets.token_hex(8), "PYTHONPATH": str(SCENARIOS.parents[2])}
    with (asked.state / "server.log").open("wb") as log:
        server = subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log,
                                  start_new_session=True, text=True)  # fmt: skip
    assert server.stdout
    line = server.stdout.readline()
    if not line:
        complain((asked.state / "server.log").read_text().strip())
        return server.wait()
    say('# A simulation: nothing here rents or costs anything. In this shell: eval "$(python -m tests.cloud up)"')
    for name, value in json.loads(line).items():
        say(f'export PATH={shlex.quote(value)}:"$PATH"' if name == "PATH" else f"export {name}={shlex.quote(value)}")
    return 0


def _serve(asked: argparse.Namespace) -> int:
    """The server itself; ends on SIGTERM."""
    os.umask(0o022)  # its machines are entered by users who are not root, whatever modes the caller prefers
    mark = os.environ.setdefault(MARK, secrets.token_hex(8))
    network = Network.claim()
    try:
        cloud = Cloud(asked.state / "run", network, mark, seed=asked.seed, scenario=asked.scenario,
                      layers=asked.layer, binds=asked.bind, changes=asked.changes)  # fmt: skip
        stand(asked.state, cloud, asked.providers.split(","))
    except (MachineError, KeyError, OSError, ValueError) as error:
        network.release()
        complain(f"it does not stand: {error.args[0] if error.args else error}")
        return 2
    say(json.dumps(environment(asked.state, cloud)))
    ended = threading.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda *_: ended.set())
    ended.wait()
    cloud.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
