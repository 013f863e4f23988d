"""budgets.yaml: named budgets, each a set of hard caps, and what may go where."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from launcher.configfile import ConfigFile
from launcher.errors import BadInputError, nearest
from launcher.money import ZERO, Usd

FILE_NAME = "budgets.yaml"


def _not_negative(amount: Usd) -> Usd:
    if amount < ZERO:
        raise ValueError("an amount of dollars cannot be negative")
    return amount


Cap = Annotated[Usd, AfterValidator(_not_negative)]
Provider = Literal["local", "vast", "runpod", "brev", "skypilot"]
Approval = Literal["typed", "preapproved"]


class Budget(BaseModel):
    """One named budget: hard caps in USD and hours. All apply at once."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    per_run_usd: Cap = Field(description="most one run may cost, all attempts included")
    per_day_usd: Cap = Field(description="most all runs of one calendar day may cost")
    per_month_usd: Cap = Field(description="most all runs of one calendar month may cost")
    max_usd_per_hour: Cap = Field(description="highest hourly price of a machine")
    max_hours: Annotated[float, Field(gt=0, le=720, description="longest a run may take, hours")] = 12.0
    concurrent_runs: Annotated[int, Field(ge=1, description="runs at the same time")] = 1
    providers: tuple[Provider, ...] = Field(("local", "vast", "runpod", "brev"), description="who may be used")
    approval: tuple[Approval, ...] = Field(
        ("typed",), description="typed: a person types YES; preapproved: --confirm YES --max-cost"
    )


class Budgets(BaseModel):
    """The whole file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    default: str = Field(description="the budget of a job that names none")
    time_zone: str = Field("UTC", description="where a day and a month begin, such as Europe/Zurich")
    budgets: dict[str, Budget]

    @model_validator(mode="after")
    def _consistent(self) -> Budgets:
        if self.default not in self.budgets:
            raise ValueError(f"default names no budget of this file; there is: {', '.join(self.budgets) or 'none'}")
        try:
            ZoneInfo(self.time_zone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError(
                f"time_zone {self.time_zone!r} is not a time zone such as UTC or Europe/Zurich"
            ) from None
        return self


BUILT_IN = Budgets(
    default="interactive",
    budgets={
        "interactive": Budget(
            per_run_usd=Usd("5.00"),
            per_day_usd=Usd("10.00"),
            per_month_usd=Usd("50.00"),
            max_usd_per_hour=Usd("2.50"),
        )
    },
)


def find_budgets(*folders: Path) -> Path | None:
    """The first budgets.yaml among the folders (the job's, the current one, the launcher's home)."""
    return next((folder / FILE_NAME for folder in folders if (folder / FILE_NAME).is_file()), None)


def load_budgets(path: Path | None) -> Budgets:
    """Read a budgets file; without one, the built-in safe caps. Raises BadInputError."""
    return BUILT_IN if path is None else ConfigFile(path).parse(Budgets)


def choose_budget(budgets: Budgets, name: str | None, file: Path | None) -> tuple[str, Budget]:
    """The budget a job names, or the default; raises BadInputError with the nearest name."""
    wanted = name or budgets.default
    if wanted not in budgets.budgets:
        close = nearest(wanted, budgets.budgets)
        known = ", ".join(budgets.budgets)
        fix = f"Did you mean {close}?" if close else f"There is: {known}."
        where = file or "the built-in budgets"
        raise BadInputError(f"{where} has no budget of this name.", key="budget", value=wanted, fix=fix)
    return wanted, budgets.budgets[wanted]
