"""What a budget and a job forbid of an offer, whatever it costs: in words, or None where nothing does."""

from __future__ import annotations

from launcher.budgets import Budget
from launcher.job import Job
from launcher.offers import canonical
from launcher.offers.gpus import matching
from launcher.offers.offer import Offer, Trust
from launcher.providers.traits import allowed_providers, traits_of_provider


class Rules:
    """The rules of one job under one budget; `refusal` is asked once an offer, thousands of times a plan."""

    def __init__(self, job: Job, budget: Budget, provider: str | None = None, gpu: str | None = None) -> None:
        self._job, self._budget, self._provider = job, budget, provider
        self.provision_timeout_s = job.resources.provision_timeout_s
        named = job.resources.gpus if job.resources.gpus != "any" else ()
        self._gpus = frozenset(each.name for name in ((gpu,) if gpu else named) for each in matching(name))
        self._job_providers = allowed_providers(job.resources.providers)
        self._budget_providers = allowed_providers(budget.providers)
        self._where = budget.may_go(job.data.sensitivity)
        self._by_kind: dict[tuple[object, ...], str | None] = {}

    def refusal(self, offer: Offer) -> str | None:
        """Why this offer may not be used, or None."""
        if offer.available is False:
            return "sold out"
        kind = (offer.provider, offer.via, offer.trust, offer.interruptible, offer.gpu)
        if kind not in self._by_kind:
            self._by_kind[kind] = self._refusal_of_kind(offer)
        refusal = self._by_kind[kind]
        if refusal is None and offer.usd_per_hour > self._budget.max_usd_per_hour:
            return f"dearer than the budget's ${self._budget.max_usd_per_hour}/h"
        return refusal

    def trust_of(self, offer: Offer) -> Trust:
        """Whose machine it is, by the budget's word where it has one."""
        return self._budget.trust.get(offer.provider, offer.trust)

    def _refusal_of_kind(self, offer: Offer) -> str | None:
        if self._provider is not None and offer.provider != self._provider:
            return f"not {self._provider}"
        for whose, providers in (("job", self._job_providers), ("budget", self._budget_providers)):
            if offer.provider not in providers:
                return f"the {whose} does not name {offer.provider} among its providers"
        if self._gpus and _canonical(offer.gpu) not in self._gpus:
            return "not a GPU that was asked for"
        traits = traits_of_provider(offer.provider, offer.via)
        if traits is None:
            return f"this launcher knows no provider {offer.provider}"
        if offer.interruptible and not self._budget.allow_interruptible:
            return "can be taken away at any time (the budget's allow_interruptible is false)"
        trust = self.trust_of(offer)
        if trust not in self._budget.allow_trust:
            return f"a {trust} host, which the budget does not allow"
        if self._job.data.sensitivity == "phi" and offer.trust == "marketplace":  # whatever the budget calls it
            return "a marketplace host: phi data may not go there"
        if trust not in self._where:
            return f"a {trust} host: {self._job.data.sensitivity} data may not go there"
        if not traits.proves_release and not self._budget.allow_unproven:
            return "unproven: it gives no proof of release (the budget's allow_unproven is false)"
        if traits.account_keys_on_host and not self._budget.allow_account_keys_on_hosts:
            return "puts your account's key on the machine (allow_account_keys_on_hosts is false)"
        if self._job.resources.nodes > 1 and not traits.many_nodes:
            nodes = self._job.resources.nodes
            return f"rents no {nodes} machines as one: take {nodes} GPUs in one machine (nodes: 1)"
        return None


def _canonical(name: str) -> str:
    gpu = canonical(name)
    return gpu.name if gpu else name.lower()
