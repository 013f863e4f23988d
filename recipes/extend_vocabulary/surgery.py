"""Gives a model another tokenizer and keeps what it knows: rows move with their pieces, durations stay last.

NeMo's change_vocabulary makes new, random decoder and joint layers and leaves a TDT model with the RNNT loss, whose
blank is off by the number of durations (nemo_toolkit 3.0.0, rnnt_bpe_models.py; its constructor does better). Here
every tensor that does not depend on the vocabulary is put back, every row of a piece that both vocabularies have goes
where that piece is now, and the loss is built again as the model's config says.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from omegaconf import ListConfig, open_dict

from recipes.contract import RecipeExit, RecipeFailure
from recipes.extend_vocabulary.merging import Merged
from recipes.extend_vocabulary.pieces import read_pieces

#: How far below all that could win a new piece's logit begins: it is never written before it is learned.
BELOW = 10.0


@dataclass
class Heads:
    """The layers of a model that have a row for each piece. `outputs` are by name: linear layers, or convolutions."""

    embedding: torch.nn.Embedding | None
    outputs: dict[str, torch.nn.Module]


@dataclass
class Lowest:
    """The lowest logit that won in any frame heard so far, by output layer: what a new piece has to stay below."""

    won: dict[str, float] = field(default_factory=dict)

    def below(self, name: str, biases: torch.Tensor) -> float:
        """The bias of a new piece of this layer, of zero weights. A multiple of ten: machines then agree."""
        reached = min(float(biases.min()), self.won.get(name, 0.0)) - BELOW
        return 10.0 * (reached // 10.0)


def tokenizer_of(model: Any) -> bytes:
    """The base's SentencePiece model. RecipeFailure (bad input) for a tokenizer of another kind."""
    inner: Any = getattr(model.tokenizer, "tokenizer", None)
    if not hasattr(inner, "serialized_model_proto"):
        name = type(model.tokenizer).__name__
        message = f"base: its tokenizer is {name}; only one SentencePiece model can be extended. Take another base"
        raise RecipeFailure(RecipeExit.BAD_INPUT, message)
    proto: bytes = inner.serialized_model_proto()
    return proto


def heads_of(model: Any) -> Heads:
    """The layers with a row a piece. RecipeFailure (bad input) for an architecture that has them elsewhere."""
    outputs: dict[str, torch.nn.Module] = {}
    embedding = None
    if hasattr(model, "joint"):
        prediction = getattr(model.decoder, "prediction", None)
        embedding = prediction["embed"] if isinstance(prediction, torch.nn.ModuleDict) else None
        last = model.joint.joint_net[-1] if hasattr(model.joint, "joint_net") else None
        if not isinstance(embedding, torch.nn.Embedding) or not isinstance(last, torch.nn.Linear):
            kinds = f"{type(model.decoder).__name__} and {type(model.joint).__name__}"
            raise RecipeFailure(
                RecipeExit.BAD_INPUT,
                f"base: its {kinds} cannot be extended here: take a base with an RNNTDecoder and an RNNTJoint",
            )
        outputs["joint"] = last
    ctc = getattr(model, "ctc_decoder", None) or (None if hasattr(model, "joint") else model.decoder)
    if ctc is not None:
        outputs["ctc"] = ctc.decoder_layers[0]
    return Heads(embedding, outputs)


@contextmanager
def watching(model: Any, lowest: Lowest) -> Iterator[None]:
    """While a model transcribes, note the lowest logit that won, blank included and durations not."""
    size = int(model.tokenizer.vocab_size)

    def hook(name: str) -> Any:
        def note(_module: Any, _inputs: Any, output: torch.Tensor) -> None:
            tokens = output[:, : size + 1] if name == "ctc" else output[..., : size + 1]
            won = float(tokens.amax(1 if name == "ctc" else -1).min())
            lowest.won[name] = min(won, lowest.won.get(name, won))

        return note

    hooks = [layer.register_forward_hook(hook(name)) for name, layer in heads_of(model).outputs.items()]
    try:
        yield
    finally:
        for each in hooks:
            each.remove()


def change_tokenizer(model: Any, merged: Merged, folder: Path, lowest: Lowest) -> None:
    """Put the tokenizer into the model, in place; `folder` keeps its files until the model is saved.

    New pieces begin unheard and unsaid: no weight and a bias that never wins in the joint and the CTC head; in the
    decoder the mean of the embeddings of what the base would spell them with.
    """
    device = next(model.parameters()).device
    before = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    size = int(model.tokenizer.vocab_size)
    heads = heads_of(model)
    layers = [*heads.outputs.values(), *([heads.embedding] if heads.embedding is not None else [])]
    moved = {f"{_path_of(layer, model)}.{part}" for layer in layers for part in ("weight", "bias")}
    config = copy.deepcopy(model.cfg)
    pieces = [piece.surface for piece in read_pieces(tokenizer_of(model)).pieces]
    write_tokenizer(folder, merged)
    model.change_vocabulary(new_tokenizer_dir=str(folder), new_tokenizer_type="bpe")
    model.to(device)
    _keep_config(model, config, len(merged.sources))
    heads = heads_of(model)
    state = model.state_dict()
    with torch.no_grad():
        for name, tensor in before.items():
            if name not in moved:
                state[name].copy_(tensor)
        for name, layer in heads.outputs.items():
            path = _path_of(layer, model)
            bias = lowest.below(name, before[f"{path}.bias"][: size + 1])
            _move_rows(state[f"{path}.weight"], before[f"{path}.weight"], merged.sources, size, new=0.0)
            _move_rows(state[f"{path}.bias"], before[f"{path}.bias"], merged.sources, size, new=bias)
        if heads.embedding is not None:
            path = _path_of(heads.embedding, model)
            old, new = before[f"{path}.weight"], state[f"{path}.weight"]
            _move_rows(new, old, merged.sources, size, new=0.0)
            _begin_embeddings(new, old, merged, pieces)
    rebuild_loss(model)


def write_tokenizer(folder: Path, merged: Merged) -> None:
    """The files that NeMo looks for: tokenizer.model, tokenizer.vocab, vocab.txt."""
    folder.mkdir(parents=True, exist_ok=True)
    pieces = read_pieces(merged.model).pieces
    (folder / "tokenizer.model").write_bytes(merged.model)
    lines = [f"{piece.surface}\t{piece.score:g}\n" for piece in pieces]
    (folder / "tokenizer.vocab").write_text("".join(lines), encoding="utf-8")
    words = [piece.surface.replace("▁", "##") + "\n" for piece in pieces[1:]]  # without <unk>, as NeMo's own script
    (folder / "vocab.txt").write_text("".join(words), encoding="utf-8")


def rebuild_loss(model: Any) -> None:
    """The transducer loss of the model's own config (TDT stays TDT), for its number of pieces; CTC has its own."""
    if not hasattr(model, "joint"):
        return
    from nemo.collections.asr.losses.rnnt import RNNTLoss

    name, arguments = model.extract_rnnt_loss_cfg(model.cfg.get("loss"))
    blank = model.joint.num_classes_with_blank - 1 - (model.joint.num_extra_outputs if name == "tdt" else 0)
    reduction = model.cfg.get("rnnt_reduction", "mean_batch")
    model.loss = RNNTLoss(num_classes=blank, loss_name=name, loss_kwargs=arguments, reduction=reduction)
    if model.joint.fuse_loss_wer:
        model.joint.set_loss(model.loss)
        model.joint.set_wer(model.wer)


def _path_of(layer: torch.nn.Module, model: Any) -> str:
    return next(str(path) for path, each in model.named_modules() if each is layer)


def _move_rows(to: torch.Tensor, old: torch.Tensor, sources: Sequence[int | None], size: int, *, new: float) -> None:
    """Rows of pieces by `sources`, `new` where there is none; what follows (blank, durations) stays last."""
    known = [(number, source) for number, source in enumerate(sources) if source is not None]
    to[: len(sources)] = new
    to[[number for number, _ in known]] = old[[source for _, source in known]]
    to[len(sources) :] = old[size:]


def _begin_embeddings(to: torch.Tensor, old: torch.Tensor, merged: Merged, pieces: Sequence[str]) -> None:
    """Each new piece begins as the mean of what the base would spell it with, else as the mean of all pieces."""
    ids = {surface: number for number, surface in enumerate(pieces)}
    everything = old[: len(pieces)].mean(0)
    surfaces = [piece.surface for piece in read_pieces(merged.model).pieces]
    for number, source in enumerate(merged.sources):
        if source is None:
            parts = _spelled(surfaces[number], ids)
            to[number] = old[parts].mean(0) if parts else everything


def _spelled(surface: str, ids: dict[str, int]) -> list[int]:
    """Ids of the longest known parts from the left; characters that none has are passed over."""
    found, at = [], 0
    while at < len(surface):
        end = next((end for end in range(len(surface), at, -1) if surface[at:end] in ids), None)
        if end is not None:
            found.append(ids[surface[at:end]])
        at = end or at + 1
    return found


def _keep_config(model: Any, before: Any, size: int) -> None:
    """The base's config with the new vocabulary: change_vocabulary writes every default of this NeMo into it."""
    surfaces = ListConfig([model.tokenizer.ids_to_tokens([number])[0] for number in range(size)])
    sections = [(before.get("decoder"), "vocab_size"), (before.get("joint"), "num_classes")]
    if not hasattr(model, "joint"):
        sections = [(before.decoder, "num_classes")]
    if before.get("aux_ctc") is not None:
        sections.append((before.aux_ctc.decoder, "num_classes"))
    for section, key in sections:
        with open_dict(section):
            section[key] = size
            if "vocabulary" in section:
                section.vocabulary = surfaces
    with open_dict(model.cfg):
        for name in ("decoder", "joint", "decoding", "aux_ctc"):
            if before.get(name) is not None:
                model.cfg[name] = before[name]
        if "labels" in model.cfg:
            model.cfg.labels = surfaces
