"""Ways to get a machine, behind one contract."""

from launcher.providers.base import (
    Charge,
    CreateRefusedError,
    Intent,
    Listing,
    Machine,
    MachineFailedError,
    Presence,
    Provider,
    ProviderError,
    SoldOutError,
)

__all__ = [
    "Charge",
    "CreateRefusedError",
    "Intent",
    "Listing",
    "Machine",
    "MachineFailedError",
    "Presence",
    "Provider",
    "ProviderError",
    "SoldOutError",
]
