"""Keys that a caller of many clouds has lying about, and that must be found nowhere else."""

from __future__ import annotations

import secrets
import subprocess
from pathlib import Path

import pytest


def plant(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Write them, in files and in the environment: the keys by name."""
    keys = {name: f"{name}-{secrets.token_hex(12)}" for name in ("aws", "vast", "lambda", "hf", "gcp", "wandb")}
    files = {
        ".aws/credentials": f"[default]\naws_access_key_id = {keys['aws']}\naws_secret_access_key = {keys['aws']}\n",
        ".config/vastai/vast_api_key": keys["vast"], ".vast_api_key": keys["vast"],
        ".lambda_cloud/lambda_keys": f"api_key = {keys['lambda']}\n", ".cache/huggingface/token": keys["hf"],
        ".config/gcloud/application_default_credentials.json": f'{{"client_secret": "{keys["gcp"]}"}}',
        ".netrc": f"machine api.wandb.ai login user password {keys['wandb']}\n",
    }  # fmt: skip
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / ".ssh").mkdir()
    own = folder / ".ssh" / "id_ed25519"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(own)], check=True)
    monkeypatch.setenv("HOME", str(folder))
    for name, key in (("AWS_ACCESS_KEY_ID", "aws"), ("AWS_SECRET_ACCESS_KEY", "aws"), ("VAST_API_KEY", "vast"),
                      ("LAMBDA_API_KEY", "lambda"), ("HF_TOKEN", "hf"), ("WANDB_API_KEY", "wandb")):  # fmt: skip
        monkeypatch.setenv(name, keys[key])
    return keys | {"ssh": own.read_text().splitlines()[2]}
