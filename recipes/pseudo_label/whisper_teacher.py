"""A Whisper model of transformers as a teacher: greedy decoding, confidences as openai-whisper measures them.

openai-whisper 20250625, decoding.py and transcribe.py: `avg_logprob` is the sum of the log-probabilities of the
tokens, the end of text among them, over the number of tokens, the end included; `no_speech_prob` is the probability
of <|nospeech|> where <|startoftranscript|> stands; text of a window with `no_speech_prob` above no_speech_threshold
is dropped unless `avg_logprob` is above logprob_threshold. A clip's confidence here is exp(avg_logprob).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from recipes.contract import RecipeExit, RecipeFailure
from recipes.evaluate import audio
from recipes.evaluate.offline import Caller
from recipes.pseudo_label.filtering import SILENCE_LOGPROB
from recipes.pseudo_label.heard import Heard
from recipes.pseudo_label.spec import PseudoLabelSpec

_NO_SPEECH = ("<|nospeech|>", "<|nocaptions|>")  # openai's name, and that of older tokenizers of transformers


class WhisperTeacher(Caller):
    """One Whisper with the settings it hears by. RecipeFailure (bad input) for a model that is not one."""

    def __init__(self, spec: PseudoLabelSpec, warn: Callable[[str], None]) -> None:
        super().__init__(spec, warn)
        import torch

        torch.manual_seed(spec.seed)
        on_gpu = torch.cuda.is_available() and spec.device != "cpu"
        if spec.device == "cuda" and not on_gpu:
            raise RecipeFailure(RecipeExit.BAD_INPUT, "device: cuda was asked for, and there is no CUDA GPU here.")
        if spec.precision == "bf16" and not on_gpu:
            warn("precision: bf16 is for a GPU; this runs in fp32")
        half = on_gpu and spec.precision != "fp32" and torch.cuda.is_bf16_supported()
        self._dtype = torch.bfloat16 if half else torch.float32
        model, self._processor = _opened(spec.model)
        self._model = model.to("cuda" if on_gpu else "cpu", self._dtype).eval()
        self._max_no_speech = spec.max_no_speech
        self._asked = _asked_of(model, spec, warn)
        self._end = {*_as_list(model.generation_config.eos_token_id)}
        known = self._processor.tokenizer.get_vocab()
        self._no_speech = next((known[name] for name in _NO_SPEECH if name in known), None)
        if self._no_speech is None:
            warn(f"{spec.model}: its tokenizer has no <|nospeech|>: silence is told by confidence alone")

    @property
    def longest_s(self) -> float:
        """Its window (30 s of all that OpenAI made), or less where the settings say so."""
        return min(float(self._processor.feature_extractor.chunk_length), self.spec.max_duration_s)

    def transcribe(self, paths: list[str]) -> list[Any]:
        """A `Heard` a file, in order; of more than a window's length only its beginning."""
        found: list[Heard] = []
        for start in range(0, len(paths), self.batch_size):
            clips = [audio.look(Path(path)) for path in paths[start : start + self.batch_size]]
            found += self._batch([audio.read(clip) for clip in clips])
        return found

    def _batch(self, samples: list[Any]) -> list[Heard]:
        import torch

        features = self._processor.feature_extractor(
            samples, sampling_rate=audio.RATE, return_tensors="pt", return_attention_mask=True
        )
        given = features.input_features.to(self._model.device, self._dtype)
        mask = features.attention_mask.to(self._model.device)
        with torch.inference_mode():
            encoded = self._model.get_encoder()(given)
            made = self._model.generate(
                attention_mask=mask, encoder_outputs=encoded, do_sample=False, num_beams=1,
                return_dict_in_generate=True, output_scores=True, return_timestamps=False, **self._asked,
            )  # fmt: skip
            silence = self._silence(encoded, len(samples))
        tokens = made.sequences[:, made.sequences.shape[1] - len(made.scores) :]
        logprobs = torch.stack(
            [
                step.float().log_softmax(-1).gather(1, tokens[:, at, None])[:, 0]
                for at, step in enumerate(made.scores)
            ],
            dim=1,
        )
        texts = self._processor.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        return [
            self._heard(text.strip(), row.tolist(), values.tolist(), quiet)
            for text, row, values, quiet in zip(texts, tokens, logprobs, silence, strict=True)
        ]

    def _silence(self, encoded: Any, rows: int) -> list[float | None]:
        """The probability of no speech, a clip."""
        import torch

        if self._no_speech is None:
            return [None] * rows
        start = torch.full((rows, 1), self._model.config.decoder_start_token_id, device=self._model.device)
        logits = self._model(encoder_outputs=encoded, decoder_input_ids=start).logits[:, 0]
        found: list[float | None] = logits.float().softmax(-1)[:, self._no_speech].tolist()
        return found

    def _heard(self, text: str, tokens: list[int], logprobs: list[float], no_speech: float | None) -> Heard:
        ends = next((at for at, token in enumerate(tokens) if token in self._end), len(tokens))
        mean = sum(logprobs[: ends + 1]) / (ends + 1)
        silent = no_speech is not None and no_speech > self._max_no_speech and mean < SILENCE_LOGPROB
        return Heard(text, ends + 1, math.exp(mean), mean, no_speech, silent)


def _opened(name: str) -> tuple[Any, Any]:
    """Model and processor, from a folder or by name; nothing of the model's own code is run."""
    from transformers import WhisperForConditionalGeneration, WhisperProcessor
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        from transformers import AutoConfig

        config = AutoConfig.from_pretrained(name, trust_remote_code=False)
        if config.model_type != "whisper":
            raise RecipeFailure(RecipeExit.BAD_INPUT, f"model {name}: is a {config.model_type}, not a Whisper.")
        model = WhisperForConditionalGeneration.from_pretrained(name, config=config)
        return model, WhisperProcessor.from_pretrained(name)
    except RecipeFailure:
        raise
    except Exception as error:
        line = next((text for text in str(error).splitlines() if text.strip()), type(error).__name__)
        hint = "is it as save_pretrained writes one?" if Path(name).is_dir() else "check the name, or fetch it online"
        raise RecipeFailure(RecipeExit.BAD_INPUT, f"model {name}: cannot be loaded ({line[:300]}); {hint}") from error


def _asked_of(model: Any, spec: PseudoLabelSpec, warn: Callable[[str], None]) -> dict[str, Any]:
    """The language and the task, for a model that takes them: an English-only one does not."""
    config = model.generation_config
    languages = getattr(config, "lang_to_id", None) or {}
    if not getattr(config, "is_multilingual", bool(languages)) or not getattr(config, "task_to_id", None):
        if spec.language is not None:
            warn(f"language: {spec.model} takes none: it hears what it has learned")
        return {}
    if spec.language is not None and f"<|{spec.language.lower()}|>" not in languages:
        known = ", ".join(sorted(name.strip("<|>") for name in languages))
        raise RecipeFailure(
            RecipeExit.BAD_INPUT, f"language: {spec.model} does not know {spec.language}. It has {known}."
        )
    return {"task": "transcribe"} | ({"language": spec.language.lower()} if spec.language else {})


def _as_list(value: Any) -> list[int]:
    return [] if value is None else list(value) if isinstance(value, (list, tuple)) else [int(value)]
