"""A NeMo model as a teacher: its own greedy decoding, with NeMo's own confidence of every token."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from recipes.evaluate.offline import Transcriber
from recipes.pseudo_label.heard import Heard
from recipes.pseudo_label.spec import PseudoLabelSpec

#: NeMo 3.0.0, asr_confidence_utils.py, ConfidenceConfig and ConfidenceMethodConfig. A token's confidence is
#: (V exp(-H) - 1) / (V - 1), H the entropy over the V tokens, blank among them: 1 when it is certain, about 1/n when
#: n tokens are as likely. NeMo's default, Tsallis' entropy with alpha 1/3 (Laptev and Ginsburg, "Fast Entropy-Based
#: Methods of Word-Level Confidence Estimation for End-to-End Automatic Speech Recognition", SLT 2022), weighs the far
#: tail: right texts had 0.4 to 0.7 of a TDT and 0.05 to 0.1 of a CTC model, so that no one bound serves both.
#: Blanks and a TDT's durations are left out.
CONFIDENCE = {
    "preserve_token_confidence": True,
    "preserve_frame_confidence": True,
    "exclude_blank": True,
    "tdt_include_duration": False,
    "aggregation": "mean",
    "method_cfg": {"name": "entropy", "entropy_type": "gibbs", "alpha": 1.0, "entropy_norm": "exp"},
}


class NemoTeacher(Transcriber):
    """Hears as `recipes.evaluate` does, to the same texts. A clip's confidence is the mean of its tokens'."""

    def __init__(self, model: Any, spec: PseudoLabelSpec, warn: Callable[[str], None]) -> None:
        super().__init__(model, spec, warn)
        ask_for_confidence(model, use_cuda_graphs=spec.use_cuda_graph_decoder)

    @property
    def longest_s(self) -> float:
        """As the settings say."""
        return self.spec.max_duration_s

    def transcribe(self, paths: list[str]) -> list[Any]:
        """A `Heard` a file, in order."""
        import torch

        from recipes.models.decoding import hypotheses_of_files

        with torch.autocast("cuda", torch.bfloat16) if self.bf16 else contextlib.nullcontext():
            found = hypotheses_of_files(self.model, paths, self.batch_size, confidences=True)
        return [_heard(hypothesis) for hypothesis in found]


def ask_for_confidence(model: Any, *, use_cuda_graphs: bool) -> None:
    """Have a model's greedy decoder keep the confidence of its tokens; its config keeps what it said."""
    from omegaconf import OmegaConf, open_dict

    said = model.cfg.decoding
    decoding = OmegaConf.create(OmegaConf.to_container(said))
    with open_dict(decoding):
        if decoding.get("strategy") not in ("greedy", "greedy_batch"):  # a beam has no confidence of tokens
            decoding.strategy = "greedy_batch"
        decoding.confidence_cfg = CONFIDENCE
        if hasattr(model, "joint"):
            decoding.greedy = {**(decoding.get("greedy") or {}), "use_cuda_graph_decoder": use_cuda_graphs}
    model.change_decoding_strategy(decoding, verbose=False)
    with open_dict(model.cfg):
        model.cfg.decoding = said


def _heard(hypothesis: Any) -> Heard:
    confidences = [float(value) for value in hypothesis.token_confidence or ()]
    mean = sum(confidences) / len(confidences) if confidences else 0.0
    return Heard(hypothesis.text or "", len(confidences), min(1.0, max(0.0, mean)))
