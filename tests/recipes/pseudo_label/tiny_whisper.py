"""Makes a Whisper of transformers with few, random weights, its tokenizer too: it hears nonsense made of given words.

Runs in the recipe environment: python tiny_whisper.py OUT WORD... Its window is 2 s; every word is one token.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from transformers import (
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperProcessor,
    WhisperTokenizer,
)

WINDOW_S = 2
SPECIAL = (
    "<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|translate|>", "<|transcribe|>", "<|startoflm|>",
    "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>",
)  # fmt: skip


def tokenizer_of(words: list[str]) -> WhisperTokenizer:
    """Byte-level BPE whose merges lead from each word's first letter to the whole word, with its space."""
    from tokenizers.pre_tokenizers import ByteLevel

    vocabulary = {letter: number for number, letter in enumerate(sorted(ByteLevel.alphabet()))}
    merges: list[tuple[str, str]] = []
    for word in words:
        whole = "Ġ"
        for letter in word:
            if (whole, letter) not in merges:
                merges.append((whole, letter))
            whole += letter
            vocabulary.setdefault(whole, len(vocabulary))
    for name in SPECIAL:
        vocabulary[name] = len(vocabulary)
    made = WhisperTokenizer(vocab=vocabulary, merges=merges)
    made.add_special_tokens({"additional_special_tokens": list(SPECIAL[1:])})
    return made


def model_of(tokenizer: WhisperTokenizer, words: list[str]) -> WhisperForConditionalGeneration:
    """Two layers of width 64 each way, multilingual as the originals are; it can say the words, and nothing else."""
    number = {name: tokenizer.convert_tokens_to_ids(name) for name in SPECIAL}
    end, start = number["<|endoftext|>"], number["<|startoftranscript|>"]
    config = WhisperConfig(
        vocab_size=len(tokenizer), num_mel_bins=80, d_model=64, encoder_layers=2, decoder_layers=2,
        encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=128, decoder_ffn_dim=128,
        max_source_positions=50 * WINDOW_S, max_target_positions=32, decoder_start_token_id=start, eos_token_id=end,
        bos_token_id=end, pad_token_id=end, init_std=0.3,
    )  # fmt: skip
    torch.manual_seed(0)
    model = WhisperForConditionalGeneration(config)
    told: Any = model.generation_config
    sayable = {end, *(tokenizer.convert_tokens_to_ids(f"Ġ{word}") for word in words)}
    told.suppress_tokens = [token for token in range(len(tokenizer)) if token not in sayable]
    told.begin_suppress_tokens = [end]
    told.no_timestamps_token_id, told.is_multilingual, told.max_length = number["<|notimestamps|>"], True, 12
    told.lang_to_id = {"<|en|>": number["<|en|>"]}
    told.task_to_id = {name: number[f"<|{name}|>"] for name in ("translate", "transcribe")}
    told._from_model_config = False
    return model.eval()


if __name__ == "__main__":
    out, spoken = Path(sys.argv[1]), sys.argv[2:]
    made = tokenizer_of(spoken)
    model_of(made, spoken).save_pretrained(out)
    WhisperProcessor(WhisperFeatureExtractor(feature_size=80, chunk_length=WINDOW_S), made).save_pretrained(out)
