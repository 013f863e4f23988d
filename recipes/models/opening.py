"""Opens a base model, from a .nemo or by its pretrained name, and says what it is."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recipes.contract import RecipeExit, RecipeFailure
from recipes.models.archive import BadModelFile, read_config
from recipes.models.bases import Kind, refusal


@dataclass(frozen=True)
class ModelFacts:
    """What the model itself says: never taken from a table."""

    kind: Kind
    model_class: str
    vocabulary_size: int
    mel_bands: int
    sample_rate_hz: int
    parameters: int


def check_base(base: str, *, is_path: bool, allow_unsupported: bool, trusted: str | None = None) -> None:
    """Look at a base before NeMo, which takes seconds to import, is asked to open it.

    Raises RecipeFailure(BAD_INPUT) with one line for a refused base and for a missing, broken or foreign file.
    """
    reason = refusal(Path(base).stem if is_path else base)
    if reason is not None and not allow_unsupported:
        raise RecipeFailure(RecipeExit.BAD_INPUT, f"base: {reason}")
    if is_path:
        _check_file(Path(base), trusted)


def _check_file(path: Path, trusted: str | None) -> None:
    try:
        read_config(path, trusted=trusted)
    except BadModelFile as error:
        raise RecipeFailure(RecipeExit.BAD_INPUT, f"base: {error}") from error


def open_model(base: str, *, is_path: bool, trusted: str | None = None) -> Any:
    """A NeMo ASR model that `check_base` has passed, on the GPU if there is one, else on CPU.

    `trusted`: the SHA-256 of a file that may run its maker's programs.

    Raises RecipeFailure(BAD_INPUT) for a file NeMo cannot restore, a name that cannot be found (or not without
    a network), a model that is not ASR.
    """
    if is_path:
        _check_file(Path(base), trusted)
    import torch
    from nemo.collections.asr.models import ASRModel

    from recipes.models.guarded import GuardedConnector, TrustingConnector

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    connector = TrustingConnector(trusted) if is_path and trusted else GuardedConnector()
    try:
        model = (
            ASRModel.restore_from(base, map_location=device, save_restore_connector=connector)
            if is_path
            else ASRModel.from_pretrained(base, map_location=device, save_restore_connector=connector)
        )
    except Exception as error:
        hint = "" if is_path else "; check the name, or fetch it while online (offline, only cached models load)"
        line = next((text for text in str(error).splitlines() if text.strip()), type(error).__name__)
        raise RecipeFailure(RecipeExit.BAD_INPUT, f"base: {base}: cannot be loaded ({line[:300]}){hint}") from error
    _ = facts_of(model)
    if model.cfg.get("validation_ds") is None:  # transcribe() reads it
        from omegaconf import open_dict

        with open_dict(model.cfg):
            model.cfg.validation_ds = {
                "manifest_filepath": None,
                "sample_rate": model.cfg.preprocessor.sample_rate,
                "batch_size": 8,
                "shuffle": False,
                "use_start_end_token": False,
            }
    return model


def facts_of(model: Any) -> ModelFacts:
    """What kind of model this is, read from it. RecipeFailure(BAD_INPUT) for one that we cannot fine-tune."""
    kind: Kind
    if hasattr(model, "ctc_decoder") and hasattr(model, "joint"):
        kind = "hybrid"
    elif hasattr(model, "joint"):
        durations = model.joint.num_extra_outputs
        kind = "tdt" if durations else "rnnt"
    elif hasattr(model, "decoder") and type(model).__name__.startswith("EncDecCTC"):
        kind = "ctc"
    else:
        raise RecipeFailure(
            RecipeExit.BAD_INPUT,
            f"base: {type(model).__name__} is not a TDT, RNNT, CTC or hybrid model, which are what this recipe tunes",
        )
    if not hasattr(model, "tokenizer"):
        raise RecipeFailure(
            RecipeExit.BAD_INPUT, f"base: {type(model).__name__} spells characters; this recipe tunes BPE models"
        )
    return ModelFacts(
        kind=kind,
        model_class=type(model).__name__,
        vocabulary_size=int(model.tokenizer.vocab_size),
        mel_bands=int(model.cfg.preprocessor.features),
        sample_rate_hz=int(model.cfg.preprocessor.sample_rate),
        parameters=sum(p.numel() for p in model.parameters()),
    )


def scratch_in(folder: Path) -> None:
    """Let NeMo unpack and pack models under `folder`: /tmp of a rented box may be too small for them."""
    folder.mkdir(parents=True, exist_ok=True)
    tempfile.tempdir = str(folder)
