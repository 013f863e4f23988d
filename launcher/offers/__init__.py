"""What can be rented now, at what total price."""

from launcher.offers.gpus import Gpu, canonical
from launcher.offers.market import Market, SourceReport, ask_market

__all__ = ["Gpu", "Market", "SourceReport", "ask_market", "canonical"]
