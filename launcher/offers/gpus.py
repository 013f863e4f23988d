"""GPU names: one canonical set, however a provider, a driver or a person spells them."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

from launcher.errors import nearest

TABLE = Path(__file__).with_name("gpus.toml")
_PARTS = re.compile(r"[a-z0-9]+")
_MEMORY = re.compile(r"(\d{1,3})gi?b?")  # 80gb, 80gib, 80g
_SAYS_NOTHING = frozenset({"nvidia", "corporation", "geforce", "tesla", "generation", "gpu", "graphics", "card"})


@dataclass(frozen=True)
class Gpu:
    """One GPU of gpus.toml. Dense bf16 TFLOPS (fp16 where `supports_bf16` is False), GB (10^9 bytes), GB/s."""

    name: str
    vram_gb: float
    bf16_tflops: float
    mem_gb_s: float
    supports_bf16: bool
    source: str


@cache
def all_gpus() -> dict[str, Gpu]:
    """Every GPU of gpus.toml by its canonical name, in the file's order."""
    return _read()[0]


def canonical(name: str, vram_gb: float | None = None) -> Gpu | None:
    """The GPU that a name means, or None where it is none of ours (a laptop's chip, a MIG slice, another maker's).

    One name can mean several (A100: 40 or 80 GB). Then the memory in the name decides, else `vram_gb`, else the
    smaller or slower one is meant.
    """
    return _canonical(name[:100], vram_gb)


@lru_cache(maxsize=8192)  # thousands of offers spell a few dozen names
def _canonical(name: str, vram_gb: float | None) -> Gpu | None:
    key, told = _key(name)
    family = _read()[1].get(key)
    if not family:
        return None
    memory = told if told is not None else vram_gb
    return family[0] if memory is None else min(family, key=lambda gpu: abs(gpu.vram_gb - memory))


def matching(name: str) -> tuple[Gpu, ...]:
    """Every GPU that a person may mean by a name: "a100" both sizes, "h100" all three, "rtx 4070" only itself."""
    key, told = _key(name)
    exact = canonical(name)
    if exact and (told is not None or _key(exact.name)[0] == key):
        same = [gpu for gpu in _read()[1][key] if told is None or gpu == exact]
        return tuple(dict.fromkeys([exact, *(gpu for gpu in same if _key(gpu.name)[0] == key)]))
    prefixed = [gpu for gpu in all_gpus().values() if _key(gpu.name.split(" ")[0])[0] == key]
    return tuple(prefixed or ([exact] if exact else []))


def nearest_gpu(name: str) -> str | None:
    """The canonical name that a misspelt one most likely meant."""
    by_key: dict[str, str] = {}
    for key, family in _read()[1].items():
        by_key.setdefault(key, family[0].name)
    close = nearest(_key(name)[0], by_key)
    return by_key[close] if close else None


def check_gpu(name: str) -> str:
    """A GPU's name as a person may give it; ValueError with the nearest one."""
    if canonical(name) is None:
        close = nearest_gpu(name)
        raise ValueError(f"no such GPU. {f'Did you mean {close}?' if close else 'See: launcher offers'}")
    return name


def _key(name: str) -> tuple[str, float | None]:
    """A name without what says nothing, and the memory (GB) that it tells."""
    memory: float | None = None
    kept = []
    for part in _PARTS.findall(name.lower()):
        told = _MEMORY.fullmatch(part)
        if told:
            memory = float(told[1])
        elif part not in _SAYS_NOTHING:
            kept.append(part)
    return "".join(kept), memory


@cache
def _read() -> tuple[dict[str, Gpu], dict[str, list[Gpu]]]:
    held = tomllib.loads(TABLE.read_text(encoding="utf-8"))
    gpus: dict[str, Gpu] = {}
    families: dict[str, list[Gpu]] = {}
    for name, row in held["gpus"].items():
        gpu = Gpu(
            name, float(row["vram_gb"]), float(row["bf16_tflops"]), float(row["mem_gb_s"]), row.get("bf16", True),
            held["sources"][row["source"]],
        )  # fmt: skip
        gpus[name] = gpu
        for key in (_key(name)[0], *row["aliases"]):
            if gpu not in families.setdefault(key, []):
                families[key].append(gpu)
    return gpus, families
