"""`python -m recipes.merge SPEC.json OUT/`: writes OUT/merged.nemo, a plain model.

result.json's metrics: `weights_sha256` of the merged tensors, and `as_trained`, whether they are the very same as
those of the model that the training run saved.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from recipes.contract import EventLog, RecipeExit, RecipeFailure, complete
from recipes.entry import main
from recipes.merge.spec import MERGED, MergeSpec
from recipes.methods.adapter import ADAPTER, BadAdapter, read_adapter
from recipes.methods.merging import AdapterMisfit, merge_into
from recipes.models.digests import weights_digest


def merge(spec: MergeSpec, out: Path, events: EventLog) -> None:
    """The whole recipe. The adapter is small and read first: what is wrong with it costs no wait for the base."""
    events.emit("phase", name="loading")
    path = Path(spec.adapter)
    path = path / ADAPTER if path.is_dir() else path
    if not path.is_file():
        raise RecipeFailure(RecipeExit.BAD_INPUT, f"{path}: no such file: name an {ADAPTER}, or the folder it is in")
    try:
        config, tensors = read_adapter(path)
    except BadAdapter as error:
        raise RecipeFailure(RecipeExit.BAD_INPUT, str(error)) from error
    from recipes.models.opening import check_base, open_model, scratch_in
    from recipes.models.quiet import import_nemo_quietly

    is_path = spec.base.endswith(".nemo")
    check_base(spec.base, is_path=is_path, allow_unsupported=True, trusted=spec.trust_base)
    import_nemo_quietly(out / "nemo.log")
    scratch_in(out / ".work")
    model = open_model(spec.base, is_path=is_path, trusted=spec.trust_base)
    found = weights_digest(model.state_dict())
    if found != config.base.weights_sha256:
        wants = f"{config.base.name} (base.weights_sha256 {config.base.weights_sha256})"
        raise RecipeFailure(
            RecipeExit.BAD_INPUT,
            f"{path}: the adapter of another base: it was learned on {wants}, and the weights of {spec.base} are "
            f"{found}: give the base that it was learned on",
        )
    events.emit("phase", name="merging")
    try:
        merge_into(model, tensors, config.scaling)
    except AdapterMisfit as error:
        raise RecipeFailure(RecipeExit.BAD_INPUT, f"{path}: damaged: {error}; take the adapter home again") from error
    from recipes.models.saving import save_model

    merged = weights_digest(model.state_dict())
    events.emit("phase", name="saving")
    save_model(model, out / MERGED)
    shutil.rmtree(out / ".work", ignore_errors=True)
    metrics = {"weights_sha256": merged, "as_trained": merged == config.merged_weights_sha256}
    complete(out, "done", metrics, [MERGED])


if __name__ == "__main__":
    sys.exit(main(MergeSpec, merge))
