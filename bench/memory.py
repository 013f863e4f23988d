"""What training takes of memory, measured on the real architecture with random weights, against the estimate.

    python bench/memory.py [--seconds 20] [--only PART] [--base B] [--method M] [--optimizer O]

Two measurements. "saved": every byte that the encoder keeps for backward, counted tensor by tensor under fake
tensors (no memory, any length, any batch) in float32 and in bf16 autocast as CUDA does it; the memory.layer_* and
memory.subsampling_* figures of recipes/constants.toml are solved from it. "peak": real steps (encoder, prediction
network, joint, TDT loss, optimizer), by resident memory on a CPU (float32) or torch.cuda's own peak on a GPU (bf16);
each in a process of its own, every method with and without activation checkpointing. "encoder": the encoder's
forward and backward pass alone, above its weights. Prints estimate against measurement and puts each row into
bench/results/memory.json and memory.md. Runs itself in the recipe environment. A case that this machine's memory may
not hold is left out; all of them need 17 GB on a CPU.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPO))

from bench.inside.memory_table import table  # noqa: E402
from recipes.constants import figure  # noqa: E402
from recipes.methods.contract import MethodName  # noqa: E402
from recipes.methods.registry import METHODS  # noqa: E402
from recipes.models.memory import Need, training_need  # noqa: E402
from recipes.models.shape import Shape, shape_of  # noqa: E402
from recipes.optimizers.facts import Saving  # noqa: E402

RESULT = Path(__file__).parent / "results" / "memory.json"
TOKENS_A_SECOND = 4.1  # as the reported figures have it
V2, V3 = "nvidia/parakeet-tdt-0.6b-v2", "nvidia/parakeet-tdt-0.6b-v3"
BIG = "nvidia/parakeet-tdt-1.1b"
PLAIN, AGAIN = Saving(), Saving(activation_checkpointing=True)
EIGHT, LEAN = Saving("adamw_8bit"), Saving("adamw_8bit_in_backward", activation_checkpointing=True, bf16_weights=True)
CASES = (
    *((V2, method, 1, PLAIN) for method in METHODS if method != "decoder_only"),  # as frozen_encoder
    *((V2, method, 1, AGAIN) for method in METHODS if METHODS[method].encoder_backward != "none"),
    (V2, "full", 2, PLAIN),
    (V2, "frozen_encoder", 2, PLAIN),
    (V3, "frozen_encoder", 1, PLAIN),
    (V2, "lora_decoder", 2, PLAIN),
    (V2, "full", 1, EIGHT),
    (V2, "full", 1, LEAN),
    (BIG, "full", 1, LEAN),
)


PARTS = ("saved", "encoder", "peaks")
ENCODER_ALONE = (("full", PLAIN), ("full", AGAIN), ("lora", PLAIN), ("lora", AGAIN))


def main() -> int:
    """Measure in child processes of the recipe environment; returns 0."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--only", choices=(*PARTS, "estimates"),
                        help="one of the three measurements; estimates: set what was measured beside today's")
    parser.add_argument("--base", choices=sorted({case[0] for case in CASES}), help="only its peaks")
    parser.add_argument("--method", choices=list(METHODS), help="only its peaks")
    parser.add_argument("--optimizer", help="only its peaks")
    given = parser.parse_args()
    some = given.base or given.method or given.optimizer
    wanted = {given.only} if given.only else {"peaks"} if some else set(PARTS)
    if "estimates" in wanted:
        estimate_again()
    if "encoder" in wanted:
        measure_encoder(given.seconds)
    if "peaks" in wanted:
        for case in CASES:
            some = (given.base, given.method, given.optimizer)
            if all(one in (None, its) for one, its in zip(some, (case[0], case[1], case[3].optimizer), strict=True)):
                measure_peak(given.seconds, *case)
    if "saved" in wanted:
        found = solved(shape_of(V2))
        for name, figures in found.items():
            for figure_name, (here, measured) in figures.items():
                print(f"{name:5} {figure_name:36} constants {here:>10,.1f}   measured {measured:>10,.1f}")
        keep(given.seconds, "saved", found)
    return 0


def measure_peak(seconds: float, base: str, method: MethodName, batch: int, saving: Saving) -> None:
    """Real steps of one case, against the estimate."""
    import psutil  # the launcher's; a child has no need of it

    lean = " again" if saving.activation_checkpointing else ""
    name = f"{base} {method}{lean} {saving.optimizer} batch {batch}"
    on_a_cpu = need_of(seconds, base, method, batch, saving, half=False, on_gpu=False)
    if on_a_cpu.total * 1e9 > psutil.virtual_memory().available:
        print(f"{name}: left out, it may need {on_a_cpu.total:.1f} GB")
        return
    row = child({"what": "peak", "base": base, "method": method, "batch": batch, "seconds": seconds,
                 "saving": asdict(saving)})  # fmt: skip
    row |= estimated(seconds, row)
    keep(seconds, "peaks", row)
    print(f"{name}: measured {row['peak_gb']:.2f} GB, above the weights {row['above_weights_gb']:.2f}, "
          f"estimate {row['estimate_gb']:.2f} ({row['ratio']:.0%}), with margin {row['with_margin_gb']:.2f}",
          flush=True)  # fmt: skip


def estimated(seconds: float, row: dict[str, Any]) -> dict[str, float]:
    """What the estimate says today of a case that was measured, without its margin and with it."""
    held = need_of(seconds, row["base"], row["method"], row["batch"], Saving(**row["saving"]),
                   half=row["half"], on_gpu=row["on_gpu"])  # fmt: skip
    bare = held.total / (1 + figure("memory.margin_share"))
    return {"estimate_gb": round(bare, 2), "with_margin_gb": round(held.total, 2),
            "static_estimate_gb": round(held.static, 2), "ratio": round(bare / row["peak_gb"], 3)}  # fmt: skip


def need_of(seconds: float, base: str, method: MethodName, batch: int, saving: Saving, *, half: bool,
            on_gpu: bool) -> Need:  # fmt: skip
    """The estimate of one case."""
    return training_need(
        shape_of(base), method, batch, longest_s=seconds, longest_tokens=TOKENS_A_SECOND * seconds, half=half,
        on_gpu=on_gpu, saving=saving,
    )  # fmt: skip


def estimate_again() -> None:
    """Set each kept measurement beside today's estimate; measures nothing."""
    kept = json.loads(RESULT.read_text(encoding="utf-8"))
    kept["peaks"] = [row | estimated(kept["seconds"], row) for row in kept["peaks"]]
    write(kept)


def measure_encoder(seconds: float) -> None:
    """The encoder alone, each way beside full fine-tuning in the same run."""
    full = 0.0
    for method, saving in ENCODER_ALONE:
        question = {"what": "encoder", "base": V2, "method": method, "batch": 1, "seconds": seconds}
        row = child(question | {"saving": asdict(saving)})
        full = full or row["above_weights_gb"]
        row["of_full"] = round(row["above_weights_gb"] / full, 3)
        keep(seconds, "encoder", row)
        lean = " again" if saving.activation_checkpointing else ""
        print(f"encoder alone, {method}{lean}: {row['above_weights_gb']:.2f} GB above the weights, "
              f"{row['of_full']} of full", flush=True)  # fmt: skip


def keep(seconds: float, part: str, measured: dict[str, Any]) -> None:
    """Write one measurement into the results, in the place of an earlier one of the same case."""
    kept = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {"seconds": seconds}
    if kept["seconds"] != seconds:
        return  # a look at other clips: the results are of one length
    if part == "saved":
        kept[part] = measured
    else:
        row = measured | {"cpus": os.cpu_count(), "measured_utc": datetime.now(UTC).isoformat(timespec="seconds")}
        others = [each for each in kept.get(part, []) if _case(each) != _case(row)]
        kept[part] = sorted([*others, row], key=lambda each: str(_case(each)))
    kept["python"] = platform.python_version()
    write(kept)


def write(kept: dict[str, Any]) -> None:
    """The results, and their table."""
    RESULT.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    RESULT.with_suffix(".md").write_text(table(kept), encoding="utf-8")


def _case(row: dict[str, Any]) -> tuple[Any, ...]:
    return (row["base"], row["method"], row["batch"], row["device"], tuple(row.get("saving", asdict(PLAIN)).items()))


def child(asked: dict[str, Any]) -> dict[str, Any]:
    """Run one measurement in the recipe environment."""
    from launcher.environment import recipe_python

    # Freed memory goes back to the system at once, so that resident memory is what is held.
    environment = {**os.environ, "PYTHONPATH": str(REPO), "MALLOC_MMAP_THRESHOLD_": "262144"}
    script = Path(__file__).parent / "inside" / "memory.py"
    command = [str(recipe_python()), str(script.resolve()), json.dumps(asked)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"bench/memory.py: a measurement failed\n{done.stderr[-2000:]}")
    held: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return held


# --- what is saved for backward -----------------------------------------------------------------------------


def solved(shape: Shape) -> dict[str, dict[str, tuple[float, float]]]:
    """(constants.toml, measured) of each figure, from four runs that differ in layers and length."""
    made: dict[str, dict[str, tuple[float, float]]] = {}
    for kind in ("half", "full", "bf16"):
        few, many = shape.layers // 2, shape.layers
        asked = [(few, 20.0), (many, 20.0), (few, 40.0), (many, 40.0)]
        question = {"what": "saved", "kind": kind, "width": shape.width, "heads": shape.heads, "runs": asked}
        linear, pair, subsampling = _solve(shape, asked, child(question)["bytes"])
        names = (
            "layer_{}_bytes_per_frame_width",
            "layer_{}_bytes_per_frame_pair_head",
            "subsampling_{}_bytes_per_frame",
        )
        made[kind] = {
            name.format(kind): (figure(f"memory.{name.format(kind)}"), round(value, 1))
            for name, value in zip(names, (linear, pair, subsampling), strict=True)
        }
        if kind == "bf16":
            continue  # where adapters learn, the weights stay float32
        linear, pair, _ = _solve(shape, asked, child(question | {"adapters": "attention"})["bytes"])
        wider, _, _ = _solve(shape, asked, child(question | {"adapters": "attention_and_feed_forward"})["bytes"])
        values = {
            f"inputs_layer_{kind}_bytes_per_frame_width": linear,
            f"inputs_layer_{kind}_feed_forward_bytes_per_frame_width": wider - linear,
            f"inputs_layer_{kind}_bytes_per_frame_pair_head": pair,
        }
        made[f"lora_{kind}"] = {
            name: (figure(f"memory.{name}"), round(value, 1)) for name, value in values.items()
        }
    return made


def _solve(shape: Shape, runs: list[tuple[int, float]], held: list[float]) -> tuple[float, float, float]:
    """Bytes a frame and unit of width, a pair of frames and head, and a frame before the first layer."""
    (few, _), (many, _) = runs[0], runs[1]
    short, long = (held[1] - held[0]) / (many - few), (held[3] - held[2]) / (many - few)  # a layer, 20 s and 40 s
    frames = 20.0 * shape.frames_per_s
    pair = (long - 2 * short) / (2 * frames**2 * shape.heads)
    linear = (short - pair * frames**2 * shape.heads) / (frames * shape.width)
    return linear, pair, (held[1] - many * short) / frames


if __name__ == "__main__":
    raise SystemExit(main())
