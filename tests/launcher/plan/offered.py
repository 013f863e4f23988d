"""Offers, a job over an hour of speech, a budget, and the plan that they make."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from launcher.budgets import Budget
from launcher.estimate import Estimator
from launcher.job import Job, load_job
from launcher.ledger.caps import Caps
from launcher.money import ZERO, Usd
from launcher.offers import Market
from launcher.offers.offer import Offer
from launcher.plan import Plan, Wishes, make_plan
from launcher.plan.choose import Purse
from launcher.prepare import Prepared

LOCAL_CPU = Offer(
    provider="local", offer_id="cpu", gpu="none (A CPU, 4 cores)", count=0, vram_gb=0, usd_per_hour=ZERO
)
LOCAL_GPU = LOCAL_CPU.model_copy(update={"offer_id": "gpu0", "gpu": "RTX 4090", "count": 1, "vram_gb": 23.5})


def offer(provider: str = "vast", usd: str = "0.40", gpu: str = "RTX 4090", vram: float = 24, **more: Any) -> Offer:
    trust = {"vast": "marketplace"}.get(provider, "secure")
    fields = {"offer_id": f"{provider}-{gpu}-{usd}", "count": 1, "trust": trust, "inet_down_mbps": 800.0, **more}
    return Offer(provider=provider, gpu=gpu, vram_gb=vram, usd_per_hour=Usd(usd), **fields)


def job_of(folder: Path, text: str = "", spec: str = "base: nvidia/parakeet-tdt-0.6b-v2", data: str = "") -> Job:
    path = folder / "job.yaml"
    path.write_text(f"recipe: finetune\nspec: {{{spec}}}\ndata: {{manifest: m.jsonl{data}}}\n{text}")
    return load_job(path)


def purse(**more: Any) -> Purse:
    given = {"per_run_usd": "5", "per_day_usd": "10", "per_month_usd": "50", "max_usd_per_hour": "2.5", **more}
    budget = Budget.model_validate(given)
    left = {cap: getattr(budget, cap) for cap in ("per_run_usd", "per_day_usd", "per_month_usd")}
    return Purse(Caps.of("test", budget, "UTC"), budget, left)


def plan_of(job: Job, prepared: Prepared, offers: list[Offer], held: Purse | None = None,
            wishes: Wishes | None = None) -> Plan:  # fmt: skip
    return make_plan(job, prepared, Market(offers, []), held or purse(), Estimator(job, prepared), wishes or Wishes())
