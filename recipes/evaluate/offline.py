"""Runs NeMo's own offline `transcribe()` over many clips: longest first, backing off when memory runs out."""

from __future__ import annotations

import contextlib
import gc
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import soundfile

from recipes.contract import RecipeExit, RecipeFailure
from recipes.evaluate import audio
from recipes.evaluate.audio import Clip
from recipes.evaluate.spec import DecodingSpec

BATCHES_A_CALL = 8  # how often progress shows: transcribe() itself tells nothing until it is done


def open_model(name: str, device: str = "auto") -> Any:
    """A NeMo model from a .nemo file or a pretrained name, ready to transcribe on `device`."""
    import logging
    import warnings

    warnings.filterwarnings("ignore")
    import torch
    from nemo.collections.asr.models import ASRModel
    from nemo.utils import logging as nemo_logging

    nemo_logging.setLevel(logging.ERROR)
    if device == "cuda" and not torch.cuda.is_available():
        raise RecipeFailure(RecipeExit.BAD_INPUT, "device: cuda was asked for, and there is no CUDA GPU here.")
    where = "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"
    path = Path(name)
    if path.is_file():
        model = ASRModel.restore_from(str(path), map_location=where)
    elif name.endswith(".nemo"):
        raise RecipeFailure(RecipeExit.BAD_INPUT, f"model: no such file: {name}")
    else:
        model = ASRModel.from_pretrained(name, map_location=torch.device(where))
    return model.to(where).eval()


class Transcriber:
    """A model with the settings it decodes by. `warn` takes one line a person should see."""

    def __init__(self, model: Any, spec: DecodingSpec, warn: Callable[[str], None]) -> None:
        import torch

        self.model, self.spec, self.warn = model, spec, warn
        self.batch_size = spec.batch_size
        torch.manual_seed(spec.seed)
        on_gpu = next(model.parameters()).is_cuda
        if spec.precision == "bf16" and not on_gpu:
            warn("precision: bf16 is for a GPU; this runs in fp32")
        self.bf16 = on_gpu and spec.precision != "fp32" and torch.cuda.is_bf16_supported()
        self._cuda_graphs(spec.use_cuda_graph_decoder)

    def _cuda_graphs(self, wanted: bool) -> None:
        from omegaconf import open_dict

        decoding = self.model.cfg.get("decoding")
        if decoding is None or "joint" not in self.model.cfg or decoding.get("strategy") != "greedy_batch":
            return
        with open_dict(decoding):
            decoding.greedy.use_cuda_graph_decoder = wanted
        self.model.change_decoding_strategy(decoding, verbose=False)

    def texts(
        self, clips: Sequence[Clip], progress: Callable[[int, float], None] = lambda clips, seconds: None
    ) -> list[str]:
        """One text a clip, in order. `progress(clips done, audio seconds done)` is called as it goes."""
        texts = [""] * len(clips)
        short = [i for i, clip in enumerate(clips) if clip.duration_s < audio.SHORTEST_S]
        for i in short:
            self.warn(f"{clips[i].path}: {clips[i].duration_s:.2f} s holds no word; its transcript is empty")
        long = [i for i, clip in enumerate(clips) if clip.duration_s > self.spec.max_duration_s]
        done, seconds = len(short), 0.0
        for i in long:
            limit_s = self.spec.max_duration_s
            self.warn(
                f"{clips[i].path}: {clips[i].duration_s:.0f} s is longer than max_duration_s ({limit_s:g}); "
                "it is transcribed in pieces cut at pauses"
            )
            pieces = list(audio.windows(audio.read(clips[i]), limit_s))
            texts[i] = " ".join(text for text in self._call(pieces) if text)
            done, seconds = done + 1, seconds + clips[i].duration_s
            progress(done, seconds)
        apart = set(short) | set(long)
        rest = [i for i in range(len(clips)) if i not in apart]
        rest.sort(key=lambda i: -clips[i].duration_s)  # like lengths together; too long for memory shows first
        while rest:
            size = self.batch_size * BATCHES_A_CALL
            part, rest = rest[:size], rest[size:]
            sources = [clips[i].path if clips[i].plain else audio.read(clips[i]) for i in part]
            for i, text in zip(part, self._call(sources), strict=True):
                texts[i] = text
                seconds += clips[i].duration_s
            done += len(part)
            progress(done, seconds)
        return texts

    def _call(self, sources: Sequence[Any]) -> list[str]:
        """Texts of files (Path) and samples ((n,), 16 kHz); samples go through a file, as NVIDIA's scripts do.

        NeMo pads arrays to a second but not files, so that the same clip could give two texts.
        """
        with tempfile.TemporaryDirectory() as folder:
            paths = []
            for number, source in enumerate(sources):
                if isinstance(source, Path):
                    paths.append(str(source))
                    continue
                paths.append(str(Path(folder) / f"{number}.wav"))
                soundfile.write(paths[-1], source, audio.RATE, subtype="FLOAT")
            while True:
                try:
                    return self._transcribe(paths)
                except (RuntimeError, MemoryError) as error:
                    if not out_of_memory(error):
                        raise
                    self._back_off(error)

    def _transcribe(self, paths: list[str]) -> list[str]:
        import torch

        with torch.autocast("cuda", torch.bfloat16) if self.bf16 else contextlib.nullcontext():
            found = self.model.transcribe(paths, batch_size=self.batch_size, num_workers=0, verbose=False)
        if isinstance(found, tuple):  # some models give (best, all)
            found = found[0]
        return [str(getattr(one, "text", one) or "") for one in found]

    def _back_off(self, error: BaseException) -> None:
        import torch

        if self.batch_size == 1:
            message = (
                f"out of memory on a single clip of at most {self.spec.max_duration_s:g} s ({error}). "
                "Lower max_duration_s, or use a machine with more memory."
            )
            raise RecipeFailure(RecipeExit.OUT_OF_MEMORY, message) from error
        self.batch_size //= 2
        self.warn(f"out of memory: going on with batch_size {self.batch_size}")
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def out_of_memory(error: BaseException) -> bool:
    """Whether this error means that memory, the GPU's or this machine's, ran out."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text
