"""An Offer: one machine that can be rented now, at what price, from whom; a value."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from launcher.money import ZERO, Usd

Trust = Literal["own", "secure", "marketplace"]  # this machine; a data centre of the provider's own; a stranger's
Via = Literal["direct", "skypilot"]  # which engine would rent it


class Offer(BaseModel):
    """Something that can be rented now. Prices in USD, memory in GB (10^9 bytes, as providers quote it).

    A field that the source does not tell is None; nothing is made up for it here (the estimate has its own
    assumptions, each with its source).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    provider: str = Field(description="local, vast, runpod, brev, or a cloud's name in SkyPilot (lambda, nebius)")
    offer_id: str = Field(description="what `create` needs to get exactly this one")
    gpu: str = Field(description="canonical name (offers/gpus.toml), or the source's own where there is none")
    count: Annotated[int, Field(ge=0, le=1000, description="GPUs in it; 0: a CPU machine")]
    nodes: Annotated[int, Field(ge=1, le=64, description="such machines as one job: prices are for all of them")] = 1
    vram_gb: Annotated[
        float, Field(ge=0, le=10_000, description="of one GPU: free now on this machine, total elsewhere")
    ]
    usd_per_hour: Usd = Field(description="for the whole machine while it runs, its own minimum disk not included")
    disk_usd_per_gb_month: Usd = Field(ZERO, description="730 hours; 0 where disk is in the hourly price")
    usd_per_gb_up: Usd = Field(ZERO, description="for a GB sent from the machine (artefacts home)")
    usd_per_gb_down: Usd = Field(ZERO, description="for a GB received by the machine (data, image, base)")
    region: str = ""
    reliability: float | None = Field(None, ge=0, le=1, description="as the source says, 0-1")
    interruptible: bool = Field(False, description="can be taken away at any time; never chosen by default")
    trust: Trust = "own"
    via: Via = "direct"
    instance_type: str = Field("", description="the provider's own name of the machine type, where it has one")
    inet_down_mbps: float | None = Field(None, ge=0, description="megabits a second, into it")
    inet_up_mbps: float | None = Field(None, ge=0, description="megabits a second, out of it")
    dlperf: float | None = Field(None, ge=0, description="Vast's own benchmark score")
    boot_s: float | None = Field(None, ge=0, description="seconds to boot, as the source says")
    available: bool | None = Field(None, description="None: the source does not tell stock")
    note: str = Field("", description="words for a person, such as what else holds this GPU")
    as_of: str = Field("", description="when the source said so: ISO 8601 UTC")
    stale: bool = Field(False, description="older than prices are kept: shown, never rented at without asking again")
