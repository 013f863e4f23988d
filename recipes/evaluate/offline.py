"""Runs NeMo's own offline `transcribe()` over many clips: longest first, backing off when memory runs out."""

from __future__ import annotations

import contextlib
import gc
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import soundfile

from recipes.contract import RecipeExit, RecipeFailure
from recipes.evaluate import audio
from recipes.evaluate.audio import Clip
from recipes.evaluate.spec import DecodingSpec

BATCHES_A_CALL = 8  # how often progress shows: transcribe() itself tells nothing until it is done


def open_model(name: str, device: str = "auto", log: Path | None = None, trusted: str | None = None) -> Any:
    """A NeMo model from a .nemo file or a pretrained name, ready to transcribe; NeMo's words go to `log`."""
    from recipes.models import opening
    from recipes.models.quiet import import_nemo_quietly

    is_path = name.endswith(".nemo") or Path(name).is_file()
    try:
        opening.check_base(name, is_path=is_path, allow_unsupported=True, trusted=trusted)
    except RecipeFailure as failure:
        raise RecipeFailure(failure.code, f"model {failure.message.removeprefix('base: ')}") from failure
    import_nemo_quietly(log)
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise RecipeFailure(RecipeExit.BAD_INPUT, "device: cuda was asked for, and there is no CUDA GPU here.")
    try:
        model = opening.open_model(name, is_path=is_path, trusted=trusted)
    except RecipeFailure as failure:
        message = failure.message.removeprefix("base: ").removeprefix("base ")
        raise RecipeFailure(failure.code, f"model {message}") from failure
    return (model.cpu() if device == "cpu" else model).eval()


class Caller(ABC):
    """Something that is run over files, so many at once; fewer when memory runs out.

    `warn` takes one line a person should see.
    """

    def __init__(self, spec: DecodingSpec, warn: Callable[[str], None]) -> None:
        self.spec, self.warn = spec, warn
        self.batch_size = spec.batch_size

    @abstractmethod
    def transcribe(self, paths: list[str]) -> list[Any]:
        """What is heard in files, in order, `batch_size` at once."""

    def call(self, sources: Sequence[Any]) -> list[Any]:
        """What `transcribe` makes of files (Path) and samples ((n,), 16 kHz), in order.

        Samples go through a file, as in NVIDIA's scripts: NeMo pads arrays to a second but not files, so that the
        same clip could give two texts. RecipeFailure when memory runs out on a single one.
        """
        with tempfile.TemporaryDirectory() as folder:
            paths = []
            for number, source in enumerate(sources):
                if isinstance(source, Path):
                    paths.append(str(source))
                    continue
                paths.append(str(Path(folder) / f"{number}.wav"))
                soundfile.write(paths[-1], source, audio.RATE, subtype="FLOAT")
            from recipes.models.precision import is_out_of_memory

            while True:
                try:
                    return self.transcribe(paths)
                except (RuntimeError, MemoryError) as error:
                    if not is_out_of_memory(error):
                        raise
                    self._back_off(error)

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


class Transcriber(Caller):
    """A NeMo model with the settings it decodes by."""

    def __init__(self, model: Any, spec: DecodingSpec, warn: Callable[[str], None]) -> None:
        import torch

        from recipes.models.decoding import set_greedy_graphs

        super().__init__(spec, warn)
        self.model = model
        torch.manual_seed(spec.seed)
        on_gpu = next(model.parameters()).is_cuda
        if spec.precision == "bf16" and not on_gpu:
            warn("precision: bf16 is for a GPU; this runs in fp32")
        self.bf16 = on_gpu and spec.precision != "fp32" and torch.cuda.is_bf16_supported()
        set_greedy_graphs(model, spec.use_cuda_graph_decoder)

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
            texts[i] = " ".join(text for text in self.call(pieces) if text)
            done, seconds = done + 1, seconds + clips[i].duration_s
            progress(done, seconds)
        apart = set(short) | set(long)
        rest = [i for i in range(len(clips)) if i not in apart]
        rest.sort(key=lambda i: -clips[i].duration_s)  # like lengths together; too long for memory shows first
        while rest:
            size = self.batch_size * BATCHES_A_CALL
            part, rest = rest[:size], rest[size:]
            sources = [clips[i].path if clips[i].plain else audio.read(clips[i]) for i in part]
            for i, text in zip(part, self.call(sources), strict=True):
                texts[i] = text
                seconds += clips[i].duration_s
            done += len(part)
            progress(done, seconds)
        return texts

    def transcribe(self, paths: list[str]) -> list[Any]:
        """One text a file, in order."""
        import torch

        from recipes.models.decoding import transcribe_files

        with torch.autocast("cuda", torch.bfloat16) if self.bf16 else contextlib.nullcontext():
            return transcribe_files(self.model, paths, self.batch_size)
