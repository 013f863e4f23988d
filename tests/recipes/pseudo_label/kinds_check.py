"""Every kind of base as a teacher: the texts of `evaluate`, the confidences NeMo's own; prints one JSON object.

Runs in the recipe environment: python kinds_check.py BASES WAV...
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from recipes.evaluate.audio import look
from recipes.evaluate.offline import Transcriber, open_model
from recipes.models.decoding import hypotheses_of_files
from recipes.pseudo_label.nemo_teacher import NemoTeacher
from recipes.pseudo_label.spec import PseudoLabelSpec

folder, files = Path(sys.argv[1]), sys.argv[2:]
found = {}
for kind in ("tdt", "rnnt", "ctc", "hybrid"):
    spec = PseudoLabelSpec(model=str(folder / f"{kind}.nemo"), manifest="m", batch_size=4)
    model = open_model(spec.model, "cpu")
    said = Transcriber(model, spec, print).texts([look(Path(file)) for file in files])
    decoding = dict(model.cfg.decoding)
    teacher = NemoTeacher(model, spec, print)
    heard = teacher.call([Path(file) for file in files])
    own = hypotheses_of_files(model, files, 4, confidences=True)
    means = [sum(map(float, one.token_confidence)) / max(1, len(one.token_confidence)) for one in own]
    found[kind] = {
        "same": [one.text for one in heard] == said,
        "heard": any(said),
        "confidences": [one.confidence for one in heard],
        "own": means,
        "config_kept": dict(model.cfg.decoding) == decoding,
    }
print("FOUND" + json.dumps(found))  # noqa: T201
