"""budgets.yaml: named budgets, each a set of hard caps, who may approve them, and what may go where."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from launcher.configfile import ConfigFile
from launcher.errors import BadInputError, nearest
from launcher.money import ZERO, Usd
from launcher.offers.offer import Trust
from launcher.providers.traits import ANY_SKYPILOT, is_provider, known_providers

FILE_NAME = "budgets.yaml"
MOST_USD = Usd(1_000_000)  # no budget for one person's fine-tunes is above it: a slip of the finger is

Sensitivity = Literal["public", "internal", "phi"]
How = Literal["typed", "preapproved"]


def _reasonable(amount: Usd) -> Usd:
    if amount < ZERO:
        raise ValueError("an amount of dollars cannot be negative")
    if amount > MOST_USD:
        raise ValueError(f"more than ${MOST_USD:,.0f} is taken for a slip of the finger")
    return amount


def check_provider(name: str) -> str:
    """A provider's name as a job or a budget may give it; ValueError with the nearest one."""
    if name == ANY_SKYPILOT or is_provider(name):
        return name
    valid = (*known_providers(), ANY_SKYPILOT)
    close = nearest(name, valid)
    raise ValueError(f"no such provider. {f'Did you mean {close}?' if close else 'There is: ' + ', '.join(valid)}")


Cap = Annotated[Usd, AfterValidator(_reasonable)]
ProviderName = Annotated[str, AfterValidator(check_provider)]
PROVIDERS: tuple[str, ...] = ("local", "vast", "runpod", "brev")
ANYWHERE: tuple[Trust, ...] = ("own", "secure", "marketplace")
USUAL: dict[Sensitivity, tuple[Trust, ...]] = {"public": ANYWHERE, "internal": ("own", "secure"), "phi": ("own",)}


class Budget(BaseModel):
    """One named budget: hard caps in USD and hours, and rules of what may go where. All apply at once."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    per_run_usd: Cap = Field(description="most one run may cost, all attempts included; 0: nothing may cost money")
    per_day_usd: Cap = Field(description="most all runs of one calendar day may cost")
    per_month_usd: Cap = Field(description="most all runs of one calendar month may cost")
    max_usd_per_hour: Cap = Field(description="highest hourly price of a machine")
    max_hours: Annotated[
        float, Field(gt=0, le=720, allow_inf_nan=False, description="longest a run may take, hours")
    ] = 12.0
    concurrent_runs: Annotated[int, Field(ge=1, le=1000, description="runs that cost money at the same time")] = 1
    providers: tuple[ProviderName, ...] = Field(
        PROVIDERS,
        min_length=1,
        description="who may be used: local, vast, runpod, brev, a cloud of SkyPilot's such as lambda, or skypilot "
        "for all of those",
    )  # fmt: skip
    approval: tuple[How, ...] = Field(
        ("typed",), description="typed: a person types YES; preapproved: --confirm YES --max-cost, for CI"
    )
    allow_trust: tuple[Trust, ...] = Field(
        ANYWHERE, description="whose machines: own (yours), secure (a data centre's), marketplace (a stranger's)"
    )
    trust: dict[ProviderName, Trust] = Field(
        default_factory=dict, description="where you trust a provider more or less than we do, such as {vast: secure}"
    )
    sensitivity: dict[Sensitivity, tuple[Trust, ...]] = Field(
        default_factory=lambda: dict(USUAL),
        description="which data (data.sensitivity of a job) may go where; phi never goes to a marketplace",
    )
    allow_unproven: bool = Field(
        False, description="true: also providers that give no way to prove that a machine is released"
    )
    allow_account_keys_on_hosts: bool = Field(
        False, description="true: also ways of renting that put a key to your whole account on the machine"
    )
    allow_interruptible: bool = Field(False, description="true: also machines that can be taken away at any time")

    @model_validator(mode="after")
    def _safe(self) -> Self:
        if "marketplace" in self.sensitivity.get("phi", ()) or self.trusted_as_own():
            where = self.trusted_as_own()
            raise ValueError(
                f"trust.{where}: it is not your own machine; it can be secure or marketplace"
                if where else "sensitivity.phi: phi never goes to a marketplace; take marketplace out"
            )  # fmt: skip
        return self

    def trusted_as_own(self) -> str | None:
        """A rented provider that `trust` calls own, if there is one."""
        return next((name for name, trust in self.trust.items() if trust == "own" and name != "local"), None)

    def may_go(self, sensitivity: Sensitivity) -> tuple[Trust, ...]:
        """Whose machines data of this sensitivity may go to; one that the file leaves out goes nowhere else."""
        allowed = self.sensitivity.get(sensitivity, ("own",))
        return tuple(trust for trust in allowed if sensitivity != "phi" or trust != "marketplace")


class Budgets(BaseModel):
    """The whole file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    default: str = Field(description="the budget of a job that names none")
    time_zone: str = Field("UTC", description="where a day and a month begin, such as Europe/Zurich")
    budgets: dict[str, Budget]

    @model_validator(mode="after")
    def _consistent(self) -> Budgets:
        if self.default not in self.budgets:
            there = f"there is: {', '.join(self.budgets) or 'none'}"
            raise ValueError(f"default: {self.default!r} names no budget of this file; {there}")
        try:
            ZoneInfo(self.time_zone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError(
                f"time_zone: {self.time_zone!r} is not a time zone such as UTC or Europe/Zurich"
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
