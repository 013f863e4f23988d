"""What works on this machine: small checks, each with what it found and the command that mends it."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from launcher.environment import OVERRIDE, WHY_NOT_READY, build_fix, recipe_environment, recipe_python
from launcher.errors import BadInputError
from launcher.home import Home

DISTRIBUTION = "parakeet-launcher"
SKYPILOT = "0.14.1"  # the version that renting through it was tested with
CUDA_OF_TORCH = 13000  # the CUDA that the locked torch is built for, as NVML counts (major * 1000 + minor * 10)
NEEDS_GB = 3.0  # a tiny model's run; a 0.6B model's checkpoints and .nemo want ten times that
WANTS_GB = 30.0

# Where each provider's key may be, by presence alone: nothing here opens one of these files.
CREDENTIALS: dict[str, tuple[str, tuple[str, ...], str]] = {
    "vast": ("VAST_API_KEY", ("~/.config/vastai/vast_api_key", "~/.vast_api_key"), "vastai set api-key KEY"),
    "runpod": ("RUNPOD_API_KEY", ("~/.runpod/config.toml",), "runpod config"),
    "brev": ("", ("~/.brev/credentials.json",), "brev login"),
}


@dataclass(frozen=True)
class Check:
    """One thing looked at. `needed`: a local run does not work without it."""

    name: str
    ok: bool
    detail: str
    fix: str = ""
    needed: bool = False

    def as_json(self) -> dict[str, object]:
        """The check as one JSON-ready object."""
        return {"name": self.name, "ok": self.ok, "detail": self.detail, "fix": self.fix, "needed": self.needed}


def examine(home: Home, deep: bool = False) -> list[Check]:
    """Every check, in the order a person would mend them. `deep` starts torch and NeMo (tens of seconds)."""
    found, torch_version = check_recipe_environment(deep)
    return [
        check_python(),
        check_packages(),
        found,
        check_gpu(torch_version),
        check_machine(),
        check_disk(home),
        check_home(home),
        check_clock(),
        check_audio(),
        *check_engines(),
        *check_credentials(),
    ]


def works(checks: Iterable[Check]) -> bool:
    """Whether everything that a local run needs is there."""
    return all(check.ok for check in checks if check.needed)


def check_python() -> Check:
    """The launcher's own interpreter."""
    ok = sys.version_info >= (3, 11)
    fix = "" if ok else "Install Python 3.11 or newer, then: make env PYTHON=python3.11"
    return Check("python", ok, f"{platform.python_version()} at {sys.executable}", fix, needed=True)


def check_packages() -> Check:
    """The packages the launcher asks for, by their metadata (none is imported)."""
    try:
        wanted = importlib.metadata.requires(DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        detail = "running from source, not installed: what it needs is not known"
        return Check("packages", True, detail, needed=False)
    names = [re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in wanted if "extra ==" not in line]
    missing = [name for name in names if _version(name) is None]
    fix = "Build the environment again: make env" if missing else ""
    detail = f"missing: {', '.join(missing)}" if missing else f"{len(names)} of {len(names)} there"
    return Check("packages", not missing, detail, fix, needed=True)


def check_recipe_environment(deep: bool) -> tuple[Check, str | None]:
    """The environment that runs recipes, by its metadata, and torch's version; `deep` imports both for real."""
    name = "recipe env"
    try:
        python = recipe_python()
    except BadInputError as error:
        env = recipe_environment()
        if os.environ.get(OVERRIDE):
            return Check(name, False, f"{OVERRIDE} {error.problem}", error.fix, needed=True), None
        return Check(name, False, f"{env.root} {WHY_NOT_READY[env.state]}", build_fix(), needed=True), None
    mend = f"Remove {python.parents[1]}. {build_fix()}"
    if os.environ.get(OVERRIDE):
        mend = f"Unset {OVERRIDE}, or install NeMo there"
    asks = ("torch", "nemo_toolkit", "transformers")
    code = (
        "import importlib.metadata as m, json, sys\n"
        "found = {d.metadata['Name'].lower().replace('-', '_'): d.version for d in m.distributions()}\n"
        "print(json.dumps([found.get(n) for n in sys.argv[1:]]))"
    )
    told = _run([str(python), "-I", "-c", code, *asks], timeout_s=60)
    try:
        versions = dict(zip(asks, json.loads(told[1].splitlines()[-1]), strict=True)) if told[0] == 0 else {}
    except (ValueError, IndexError):
        versions = {}
    if not versions:
        return Check(name, False, f"{python} does not start: {_last(told[1])}", mend, needed=True), None
    torch_version = versions["torch"]
    missing = [ask for ask, version in versions.items() if version is None]
    if missing:
        detail = f"{python} lacks {', '.join(missing)}"
        return Check(name, False, detail, mend, needed=True), torch_version
    detail = f"torch {torch_version}, NeMo {versions['nemo_toolkit']}, at {python}"
    if deep:
        loads = "import torch, nemo.collections.asr; print('cuda' if torch.cuda.is_available() else 'cpu')"
        status, text = _run([str(python), "-c", loads], timeout_s=600)
        if status != 0:
            problem = f"torch or NeMo does not load: {_last(text)}"
            return Check(name, False, problem, mend, True), torch_version
        detail += f"; both load, computing on {_last(text)}"
    return Check(name, True, detail, needed=True), torch_version


def check_gpu(torch_version: str | None) -> Check:
    """NVIDIA GPUs through NVML; none is fine. A GPU that the installed torch cannot use is not."""
    none = Check("gpu", True, "no NVIDIA GPU: CPU only, small models/tests")
    try:
        import pynvml
    except ImportError:
        return Check("gpu", False, "not known: nvidia-ml-py is not installed", "Install it: make env")
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return none
    try:
        cards = []
        for index in range(pynvml.nvmlDeviceGetCount()):
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            name = pynvml.nvmlDeviceGetName(handle)
            total_gib = pynvml.nvmlDeviceGetMemoryInfo(handle).total / 2**30
            cards.append(f"{name.decode() if isinstance(name, bytes) else name} {total_gib:.0f} GiB")
        driver, cuda = pynvml.nvmlSystemGetDriverVersion(), pynvml.nvmlSystemGetCudaDriverVersion()
    except pynvml.NVMLError as error:
        return Check("gpu", False, f"the NVIDIA driver answers {error}", "Restart, or reinstall the driver")
    finally:
        pynvml.nvmlShutdown()
    return judge_gpu(cards, str(driver), int(cuda), torch_version)


def judge_gpu(cards: list[str], driver: str, cuda: int, torch_version: str | None) -> Check:
    """What the cards found mean: usable by the installed torch, or not and why."""
    if not cards:
        return Check("gpu", True, "no NVIDIA GPU: CPU only, small models/tests")
    detail = f"{', '.join(cards)}; driver {driver}"
    if torch_version and "+cpu" in torch_version:
        fix = "Unset PIP_FIND_LINKS and PIP_EXTRA_INDEX_URL, remove .venv-recipes, then: make env"
        return Check("gpu", False, f"{detail}; but torch {torch_version} is the CPU build", fix)
    if torch_version and "+" not in torch_version and cuda < CUDA_OF_TORCH:
        fix = "Update the NVIDIA driver to 580 or newer (recipes fall back to the CPU until then)"
        return Check("gpu", False, f"{detail}, too old for this torch (CUDA {CUDA_OF_TORCH // 1000})", fix)
    return Check("gpu", True, detail)


def check_machine() -> Check:
    """Processors and memory."""
    import psutil

    memory = psutil.virtual_memory()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    free_gib, total_gib = memory.available / 2**30, memory.total / 2**30
    detail = f"{cores} cores, {free_gib:.1f} of {total_gib:.1f} GiB memory free"
    if free_gib < 2:
        return Check("machine", False, detail, "Close other programs: torch and NeMo alone take 1 GiB", needed=True)
    return Check("machine", True, detail, needed=True)


def check_disk(home: Home) -> Check:
    """Free space where runs are kept."""
    where = _existing(home.root)
    free_gb = shutil.disk_usage(where).free / 1e9
    detail = f"{free_gb:.1f} GB free at {where}"
    if free_gb < NEEDS_GB:
        fix = f"Free {NEEDS_GB - free_gb:.1f} GB, or point LAUNCHER_HOME at a larger disk"
        return Check("disk", False, detail, fix, needed=True)
    if free_gb < WANTS_GB:
        return Check("disk", True, f"{detail}: enough for small models; a 0.6B one wants {WANTS_GB:.0f}", needed=True)
    return Check("disk", True, detail, needed=True)


def check_home(home: Home) -> Check:
    """The ledger's folder: writable, and nobody else's to read."""
    name, root = "home", home.root
    elsewhere = "; the ledger is a database elsewhere" if os.environ.get("LAUNCHER_LEDGER") else ""
    where = _existing(root)
    try:
        with tempfile.TemporaryFile(dir=where):
            pass
    except OSError as error:
        fix = "Mend its owner and mode, or point LAUNCHER_HOME at a folder of your own"
        return Check(name, False, f"{where} cannot be written: {error.strerror}", fix, needed=True)
    if where != root:
        return Check(name, True, f"{root}, made at the first run{elsewhere}", needed=True)
    mode = root.stat().st_mode & 0o777
    if mode & 0o077:
        detail = f"{root} is open to others (mode {mode:04o})"
        return Check(name, False, detail, f"chmod 700 {root}", needed=False)
    return Check(name, True, f"{root}, yours alone{elsewhere}", needed=True)


def check_clock(wall: Callable[[], float] = time.time) -> Check:
    """The clock against this machine's own evidence: deadlines and the ledger stand on it.

    Evidence: a file written now carries the file system's time; no file of this program is from the future;
    and what the system says of its time service, where it says anything.
    """
    now = wall()
    with tempfile.NamedTemporaryFile() as file:
        skew_s = os.fstat(file.fileno()).st_mtime - now
    newest = max(path.stat().st_mtime for path in Path(__file__).parent.glob("*.py"))
    fix = "Set it: timedatectl set-ntp true (or your system's own way)"
    stamp = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now))
    if abs(skew_s) > 5:
        return Check("clock", False, f"{stamp} is {abs(skew_s):.0f} s off the file system's time", fix, needed=True)
    if newest > now + 86400:
        return Check("clock", False, f"{stamp} is before this program was written", fix, needed=True)
    status, text = _run(["timedatectl", "show", "-p", "NTPSynchronized", "--value"], timeout_s=5)
    kept = {"yes": "kept by a time service", "no": "no time service keeps it"}.get(
        text.strip() if status == 0 else ""
    )
    return Check("clock", True, f"{stamp}, {kept or 'time service not known'}", needed=True)


def check_audio() -> Check:
    """What reads recordings: libsndfile for WAV and FLAC, PyAV or ffmpeg for mp3, m4a and the rest."""
    found, broken = [], []
    for module, name in (("soundfile", "libsndfile"), ("av", "PyAV")):
        try:
            loaded = importlib.import_module(module)
            found.append(f"{name} {loaded.__version__}")
        except (ImportError, OSError) as error:
            broken.append(f"{name}: {_last(str(error))}")
    if shutil.which("ffmpeg"):
        found.append("ffmpeg")
    detail = "; ".join([", ".join(found), *broken]).lstrip("; ")
    return Check("audio", not broken, detail, "Build the environment again: make env" if broken else "", needed=True)


def check_engines() -> list[Check]:
    """What renting goes through, by metadata: a folder `sky/` here would satisfy `import sky`, installed or not."""
    extra = "Install it: make env (or pip install 'parakeet-launcher[cloud]')"
    sky, vast, brev = _version("skypilot"), _version("vastai-sdk"), shutil.which("brev")
    if sky is None:
        skypilot = Check("skypilot", False, "not installed: no renting through SkyPilot", extra)
    elif sky != SKYPILOT:
        skypilot = Check("skypilot", False, f"{sky}; only {SKYPILOT} was tested", f"pip install skypilot=={SKYPILOT}")
    else:
        skypilot = Check("skypilot", True, sky)
    sdk = Check("vastai-sdk", vast is not None, vast or "not installed: no renting at Vast", "" if vast else extra)
    brev_fix = "Install NVIDIA's brev command line, then: brev login"
    command = Check("brev", brev is not None, brev or "not installed: no renting at Brev", "" if brev else brev_fix)
    return [skypilot, sdk, command]


def check_credentials() -> list[Check]:
    """Whether each provider's key is there. By presence: no value is ever read or shown."""
    checks = []
    for provider, (variable, files, command) in CREDENTIALS.items():
        paths = [path for path in (Path(name).expanduser() for name in files) if path.is_file()]
        name = f"{provider} key"
        if variable and os.environ.get(variable):
            checks.append(Check(name, True, f"in ${variable}"))
        elif not paths:
            checks.append(
                Check(
                    name,
                    False,
                    "none: needed only to rent there",
                    command + (f", or set {variable}" if variable else ""),
                )
            )
        elif paths[0].stat().st_mode & 0o077:
            checks.append(Check(name, False, f"{paths[0]} can be read by others", f"chmod 600 {paths[0]}"))
        else:
            checks.append(Check(name, True, f"in {paths[0]}"))
    return checks


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _existing(path: Path) -> Path:
    """The path itself, or the nearest folder above it that exists."""
    return next(p for p in (path, *path.parents) if p.is_dir())


def _run(command: list[str], timeout_s: float) -> tuple[int, str]:
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
            timeout=timeout_s, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return 124, f"no answer in {timeout_s:.0f} s"
    except OSError as error:
        return 127, str(error)
    return done.returncode, done.stdout


def _last(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it said nothing"
