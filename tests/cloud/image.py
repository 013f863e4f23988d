"""The layer of a simulated pod's image in which SkyPilot's set-up of a node finds all that it would fetch.

`python -m tests.cloud image --out DIR` builds it, `up --layer DIR` lays it over every machine. A real pod downloads
uv and some 165 packages; a simulated one has no network, so they are in its image: uv, and the environment
~/skypilot-runtime with Ray and what SkyPilot's own wheel depends on (sky/skylet/constants.py of 0.14.1:
UV_INSTALLATION_COMMANDS, RAY_SKYPILOT_INSTALLATION_COMMANDS). Only the wheel itself comes over ssh, as on any node;
that uv then looks up no dependency is the one setting that a real image does not have.

0.6 GB; pip takes one to three minutes for it, once. Root is needed: it is built at the paths that a pod sees.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

SKYPILOT = "0.14.1"
RUNTIME = "/root/skypilot-runtime"
#: Ray's version, and what it bears: sky/skylet/constants.py, RAY_INSTALLATION_COMMANDS.
PACKAGES = (
    "pip", "wheel", "setuptools<70", "click<8.3.0", "ray[default]==2.9.3", "pydantic-core==2.41.1",
    f"skypilot[runpod,remote]=={SKYPILOT}",
)  # fmt: skip
NO_LOOK_UPS = "[pip]\nno-deps = true\n"
INTERPRETERS = ("3.11", "3.10", "3.9")  # for which Ray 2.9.3 has wheels
STAMP = "complete"
# /root is the layer's, for this process and its children alone: everything is built at the path it will have.
BUILD = r"""
set -eu
mount --bind "$LAYER/root" /root
export HOME=/root
/root/.local/bin/uv --no-config venv -q "$RUNTIME" --python "$BASE"
exec "$PIP_PYTHON" -m pip --python "$RUNTIME/bin/python" install -q --no-input --no-cache-dir "$@"
"""


class ImageError(RuntimeError):
    """The layer could not be built: what was missing, or what pip said."""


def default() -> Path:
    """Where the layer is kept: below $LAUNCHER_CACHE, else the checkout's .cache, which git ignores."""
    kept = os.environ.get("LAUNCHER_CACHE") or Path(__file__).resolve().parents[2] / ".cache"
    return Path(kept) / f"pod-layer-{fingerprint()[:12]}"


def fingerprint() -> str:
    """What the layer is made of: another list, or another interpreter, is another layer."""
    words = "\n".join([*PACKAGES, NO_LOOK_UPS, BUILD, interpreter()])
    return hashlib.sha256(words.encode()).hexdigest()


def interpreter() -> str:
    """A Python that simulated machines have too, in /usr, of a version that Ray has wheels for."""
    for folder in ("/usr/bin", "/usr/local/bin"):
        for version in INTERPRETERS:
            path = Path(folder, f"python{version}")
            if path.exists():
                return str(path)
    raise ImageError(f"no Python {' or '.join(INTERPRETERS)} in /usr/bin. Fix: apt-get install python3.11")


def ensure(out: Path | None = None) -> Path:
    """The layer, built if it is not there whole; of several that ask at once one builds, and the others wait."""
    layer = (out or default()).absolute()
    layer.parent.mkdir(parents=True, exist_ok=True)
    with _held(layer.with_name(f".{layer.name}.lock")):
        if _stamp(layer) != fingerprint():
            part = layer.with_name(f".{layer.name}.part")
            shutil.rmtree(part, ignore_errors=True)
            _build(part)
            shutil.rmtree(layer, ignore_errors=True)
            part.rename(layer)
    return layer


def _stamp(layer: Path) -> str:
    try:
        return (layer / STAMP).read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""


@contextlib.contextmanager
def _held(lock: Path) -> Iterator[None]:
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _build(layer: Path) -> None:
    if os.geteuid() != 0:
        raise ImageError("The layer is built in a mount namespace, which needs root. Fix: run as root.")
    (layer / "root/.local/bin").mkdir(parents=True)
    (layer / "root/.config/uv").mkdir(parents=True)
    (layer / "root/.config/uv/uv.toml").write_text(NO_LOOK_UPS, encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        fetched = Path(folder)
        env = os.environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "UV_LINK_MODE": "copy"}
        env.pop("PYTHONPATH", None)
        own = Path.home() / ".config/pip/pip.conf"  # its folder is out of sight below
        if own.exists() and "PIP_CONFIG_FILE" not in env:
            env["PIP_CONFIG_FILE"] = shutil.copy(own, fetched / "pip.conf")
        pip = [sys.executable, "-m", "pip", "install", "-q", "--no-input"]
        _call([*pip, "--target", str(fetched / "uv"), "uv"], env)
        shutil.copy(fetched / "uv/bin/uv", layer / "root/.local/bin/uv")
        pip_python = _pip_outside_root(fetched)
        env |= {"LAYER": str(layer), "RUNTIME": RUNTIME, "BASE": interpreter(), "PIP_PYTHON": pip_python[0],
                "PYTHONPATH": pip_python[1]}  # fmt: skip
        _call(["unshare", "--mount", "--propagation", "private", "bash", "-c", BUILD, "build", *PACKAGES], env)
    shutil.rmtree(layer / "root/.cache", ignore_errors=True)
    uninstall = [f"{layer}/root/.local/bin/uv", "--no-config", "pip", "uninstall", "-q", "skypilot", "--python",
                 f"{layer}{RUNTIME}/bin/python"]  # fmt: skip
    _call(uninstall, os.environ | {"UV_NO_CACHE": "1"})  # a node gets SkyPilot's wheel from the launch itself
    (layer / STAMP).write_text(fingerprint(), encoding="utf-8")


def _pip_outside_root(folder: Path) -> tuple[str, str]:
    """A Python and a pip that are still there when /root is the layer's."""
    import pip

    shutil.copytree(Path(pip.__file__).parent, folder / "pip" / "pip")
    return interpreter(), str(folder / "pip")


def _call(command: list[str], env: dict[str, str]) -> None:
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ImageError(f"{' '.join(command[:4])} …: {done.stderr.strip()[-2000:] or done.returncode}")
