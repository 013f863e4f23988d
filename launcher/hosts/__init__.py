"""Machines to put, run and get on: this one, and (with a rented lease) another."""

from launcher.hosts.base import Host, StepStatus
from launcher.hosts.local import LocalHost

__all__ = ["Host", "LocalHost", "StepStatus"]
