"""Restores .nemo files in whatever NeMo runs this, and transcribes a manifest with each: prints one JSON object.

python restore_check.py MANIFEST MODEL.nemo [MODEL.nemo ...]  ->  {"MODEL.nemo": ["text", ...]}
"""

from __future__ import annotations

import json
import logging
import sys
import warnings
from pathlib import Path


def main() -> None:
    warnings.filterwarnings("ignore")
    from nemo.collections.asr.models import ASRModel
    from nemo.utils import logging as nemo_logging

    nemo_logging.setLevel(logging.ERROR)
    manifest = Path(sys.argv[1])
    names = [json.loads(line)["audio_filepath"] for line in manifest.read_text(encoding="utf-8").splitlines()]
    audio = [str(manifest.parent / name) for name in names]
    found = {}
    for path in sys.argv[2:]:
        model = ASRModel.restore_from(path, map_location="cpu")
        heard = model.transcribe(audio, batch_size=8, verbose=False)
        heard = heard[0] if isinstance(heard, tuple) else heard
        found[path] = [getattr(one, "text", one) for one in heard]
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
