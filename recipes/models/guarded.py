"""NeMo's own way to open a .nemo, with a look into it first: also into one that NeMo has fetched by its name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from nemo.core.connectors.save_restore_connector import SaveRestoreConnector

from recipes.models.archive import read_config


class GuardedConnector(SaveRestoreConnector):  # type: ignore[misc]
    """Opens what `read_config` passes, and of its weights tensors alone. NeMo 2.7.3 and 3.0.0 have these methods."""

    trusted: str | None = None

    def load_config_and_state_dict(self, calling_cls: Any, restore_path: str, *args: Any, **kwargs: Any) -> Any:
        """As NeMo's; raises BadModelFile for a file that would do anything else than be a model."""
        if Path(restore_path).is_file():
            read_config(Path(restore_path), trusted=self.trusted)
        return super().load_config_and_state_dict(calling_cls, restore_path, *args, **kwargs)

    @staticmethod
    def _load_state_dict_from_disk(model_weights: Any, map_location: Any = "cpu") -> Any:
        return torch.load(model_weights, map_location=map_location, weights_only=True)


class TrustingConnector(GuardedConnector):
    """Opens also the one file that its user has named by its SHA-256, whose weights may run its maker's programs."""

    def __init__(self, trusted: str) -> None:
        super().__init__()
        self.trusted = trusted

    @staticmethod
    def _load_state_dict_from_disk(model_weights: Any, map_location: Any = "cpu") -> Any:
        return torch.load(model_weights, map_location=map_location, weights_only=False)
