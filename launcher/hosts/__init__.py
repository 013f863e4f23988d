"""Machines to put, run and get on: this one, and (with a rented lease) another (`launcher.hosts.ssh`)."""

from launcher.hosts.base import Host, HostError, HostKeyChangedError, HostUnreachableError, StepStatus
from launcher.hosts.local import LocalHost

__all__ = ["Host", "HostError", "HostKeyChangedError", "HostUnreachableError", "LocalHost", "StepStatus"]
