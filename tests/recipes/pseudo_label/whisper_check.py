"""Recomputes from a Whisper's own forward passes what its labels say: prints one JSON list of [file, mean, quiet].

Runs in the recipe environment: python whisper_check.py FOLDER WAV... `mean` is the mean log-probability of the text's
tokens and of the end after them, `quiet` the probability of no speech.
"""

from __future__ import annotations

import json
import sys

import soundfile
import torch
from transformers import WhisperForConditionalGeneration, WhisperProcessor

folder, files = sys.argv[1], sys.argv[2:]
model = WhisperForConditionalGeneration.from_pretrained(folder).eval()
processor = WhisperProcessor.from_pretrained(folder)
told, tokenizer = model.generation_config, processor.tokenizer
start = [tokenizer.convert_tokens_to_ids(f"<|{name}|>")
         for name in ("startoftranscript", "en", "transcribe", "notimestamps")]  # fmt: skip
quiet = tokenizer.convert_tokens_to_ids("<|nospeech|>")
found = []
for file in files:
    path, _, text = file.partition("=")
    samples = soundfile.read(path, dtype="float32")[0]
    given = processor.feature_extractor(samples, sampling_rate=16000, return_tensors="pt").input_features
    said = tokenizer(" " + text, add_special_tokens=False).input_ids
    with torch.no_grad():
        logits = model(input_features=given, decoder_input_ids=torch.tensor([start + said])).logits[0].double()
    silence = logits[0].softmax(-1)[quiet].item()
    logits[:, told.suppress_tokens] = -torch.inf
    logits[len(start) - 1, told.begin_suppress_tokens] = -torch.inf
    values = logits.log_softmax(-1)[len(start) - 1 :]
    if len(start) + len(said) < told.max_length:  # it ended of itself
        said = [*said, told.eos_token_id]
        mean = sum(values[at, token].item() for at, token in enumerate(said)) / len(said)
    else:  # cut off: the end that was not said still counts as a token, as openai-whisper has it
        mean = sum(values[at, token].item() for at, token in enumerate(said)) / (len(said) + 1)
    found.append([path, mean, silence])
print(json.dumps(found))  # noqa: T201
