"""What bench/memory.py measured, as a table for people: each row, and each target with what was found."""

from __future__ import annotations

from typing import Any

GIB = 2**30 / 1e9  # GB, of 10^9 bytes, in a GiB
LEAN = "adamw_8bit_in_backward"
#: What is asked of full fine-tuning of one clip a step, in GiB, everything counted.
FULL_GIB = {"nvidia/parakeet-tdt-0.6b-v2": 8.0, "nvidia/parakeet-tdt-1.1b": 12.0}
SHARE = 0.15  # of full fine-tuning's activations and gradients, for LoRA whose layers run again
APART = 0.15  # of the measurement, for the estimate


def table(kept: dict[str, Any]) -> str:
    """The results as Markdown."""
    lines = [
        "# What training takes of memory",
        "",
        f"By `bench/memory.py`: the real architectures with random weights, clips of {kept['seconds']:g} s,",
        "two steps with the optimizer's. GB are 10^9 bytes. `again`: activation checkpointing. Static: weights,",
        "gradients and moments, counted tensor by tensor. Above: what a step takes above weights and moments:",
        "activations and gradients. On a CPU: resident memory, the process's own 0.76 GB included, float32 but for",
        f"`{LEAN}` (weights in bf16). decoder_only takes what frozen_encoder does.",
        "",
        "| base | method | again | optimizer | batch | on | static GB | above GB | peak GB | estimate | share |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in kept["peaks"]:
        again = "yes" if row["saving"]["activation_checkpointing"] else ""
        cells = [_short(row["base"]), row["method"], again, row["saving"]["optimizer"], row["batch"], row["device"]]
        cells += [f"{row[name]:.2f}" for name in ("static_gb", "above_weights_gb", "peak_gb", "estimate_gb")]
        lines.append(f"| {' | '.join(map(str, cells))} | {row['ratio']:.1%} |")
    lines += ["", "The encoder alone, forward and backward, batch 1:", ""]
    lines += ["| method | again | above the weights, GB | of full's |", "|---|---|---|---|"]
    for row in kept.get("encoder", []):
        again = "yes" if row["saving"]["activation_checkpointing"] else ""
        lines.append(f"| {row['method']} | {again} | {row['above_weights_gb']:.2f} | {row['of_full']:.3f} |")
    lines += ["", "| target | found | |", "|---|---|---|", *_targets(kept), ""]
    return "\n".join(lines)


def _targets(kept: dict[str, Any]) -> list[str]:
    made = []
    for row in kept.get("encoder", []):
        if row["method"] == "lora" and row["saving"]["activation_checkpointing"]:
            words = f"LoRA with layers run again: activations and gradients at most {SHARE} of full's (encoder)"
            made.append(_target(words, f"{row['of_full']:.3f}", row["of_full"] <= SHARE, row["device"]))
    lean = {row["base"]: row for row in kept["peaks"] if row["saving"]["optimizer"] == LEAN}
    for base, most in FULL_GIB.items():
        words = f"full fine-tuning of {_short(base)}, batch 1, under {most:g} GiB in all"
        if base in lean:
            gib = lean[base]["peak_gb"] / GIB
            made.append(_target(words, f"{gib:.2f} GiB", gib < most, lean[base]["device"]))
        else:
            made.append(f"| {words} | not measured | |")
    worst = max(kept["peaks"], key=lambda row: abs(row["ratio"] - 1))
    words = f"the estimate within {APART:.0%} of each of {len(kept['peaks'])} rows"
    found = f"furthest: {worst['ratio']:.1%} ({_short(worst['base'])} {worst['method']}, batch {worst['batch']})"
    made.append(_target(words, found, abs(worst["ratio"] - 1) <= APART, worst["device"]))
    return made


def _target(words: str, found: str, met: bool, device: str) -> str:
    where = "; not measured on a GPU" if device == "cpu" else f" on {device}"
    return f"| {words} | {found} | {'met' if met else '**missed**'}{where} |"


def _short(base: str) -> str:
    return base.rsplit("/", maxsplit=1)[-1]
