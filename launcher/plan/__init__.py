"""The Plan: a Job plus ranked Offers, an Estimate, a ceiling and a deadline; how it is chosen."""

from launcher.plan.choose import Wishes, make_plan
from launcher.plan.model import Allowed, Candidate, Ceiling, Plan, plan_of, settings

__all__ = ["Allowed", "Candidate", "Ceiling", "Plan", "Wishes", "make_plan", "plan_of", "settings"]
