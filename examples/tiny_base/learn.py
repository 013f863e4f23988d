"""Teaches a tiny base the rows of a manifest: a bare training loop, so that an example has a model to adapt.

Fine-tuning proper (checkpoints, replay, stopping, reports) is recipes/finetune; this only makes its input.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from typing import Any

import soundfile
import torch
from transformers.loss.loss_tdt import tdt_loss

THREADS = 1  # the model is tiny: more threads wait for each other longer than they work


def learn(model: Any, rows: Sequence[dict[str, Any]], settings: Any) -> None:
    """Train `model` in place on `rows` (16 kHz mono files): `settings.steps` steps of AdamW, cosine decay."""
    torch.set_num_threads(THREADS)
    model.train()
    model.preprocessor.featurizer.dither = 0.0
    features = [_features(model, row["audio_filepath"]) for row in rows]  # once: nothing below changes them
    labels = [torch.tensor(model.tokenizer.text_to_ids(row["text"])) for row in rows]
    optimizer = torch.optim.AdamW(model.parameters(), settings.learning_rate, (0.9, 0.98), weight_decay=1e-3)
    warmup = max(1, settings.steps // 12)
    batches = _batches([len(f) for f in features], settings.batch_size, settings.seed)
    for step in range(settings.steps):
        ramp = min(1.0, (step + 1) / warmup)
        decay = 0.5 * (1 + math.cos(math.pi * step / settings.steps))
        optimizer.param_groups[0]["lr"] = settings.learning_rate * ramp * (0.05 + 0.95 * decay)
        batch = next(batches)
        loss = _loss(model, settings.kind, [features[i] for i in batch], [labels[i] for i in batch])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 50 == 49 or step + 1 == settings.steps:
            print(f"base: step {step + 1}/{settings.steps}  loss {loss.item():.3f}", flush=True)
    model.eval()


def _features(model: Any, path: str) -> torch.Tensor:
    """Log-mel features of one file, (frames, mels)."""
    samples, rate = soundfile.read(path, dtype="float32")
    if rate != 16000 or samples.ndim != 1:
        raise ValueError(f"{path}: the base learns 16 kHz mono files, this is {rate} Hz, {samples.ndim} axes")
    with torch.no_grad():
        signal = torch.from_numpy(samples)[None]
        mels, length = model.preprocessor(input_signal=signal, length=torch.tensor([len(samples)]))
    return mels[0, :, : int(length[0])].T.contiguous()


def _batches(lengths: Sequence[int], size: int, seed: int) -> Iterator[list[int]]:
    """Endless batches of row numbers: rows of like length together (less padding), in random order."""
    shuffle = random.Random(seed)
    while True:
        order = sorted(range(len(lengths)), key=lambda i: lengths[i] * shuffle.uniform(0.85, 1.15))
        batches = [order[i : i + size] for i in range(0, len(order), size)]
        shuffle.shuffle(batches)
        yield from batches


def _loss(model: Any, kind: str, mels: Sequence[torch.Tensor], labels: Sequence[torch.Tensor]) -> torch.Tensor:
    pad = torch.nn.utils.rnn.pad_sequence
    signal = pad(mels, batch_first=True).transpose(1, 2)
    lengths = torch.tensor([len(m) for m in mels])
    targets, target_lengths = pad(labels, batch_first=True), torch.tensor([len(t) for t in labels])
    encoded, encoded_lengths = model.encoder(audio_signal=signal, length=lengths)
    if kind in ("ctc", "hybrid"):
        head = model.decoder if kind == "ctc" else model.ctc_decoder
        ctc = torch.nn.functional.ctc_loss(
            head(encoder_output=encoded).transpose(0, 1),
            targets,
            encoded_lengths,
            target_lengths,
            blank=model.tokenizer.vocab_size,
            zero_infinity=True,
        )
        if kind == "ctc":
            return ctc
    predicted, *_ = model.decoder(targets=targets, target_length=target_lengths)
    logits = model.joint.joint(encoded.transpose(1, 2), predicted.transpose(1, 2))
    if kind == "rnnt":
        return model.loss(
            log_probs=logits, targets=targets, input_lengths=encoded_lengths, target_lengths=target_lengths
        )
    durations = list(model.cfg.model_defaults.tdt_durations)
    loss = tdt_loss(
        token_logits=logits[..., : -len(durations)],
        duration_logits=logits[..., -len(durations) :],
        targets=targets,
        logit_lengths=encoded_lengths,
        target_lengths=target_lengths,
        blank_token_id=model.tokenizer.vocab_size,
        durations=durations,
        sigma=0.02,
        reduction="mean_batch",
    )
    return loss if kind == "tdt" else 0.7 * loss + 0.3 * ctc
