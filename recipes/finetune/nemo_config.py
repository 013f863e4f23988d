"""The effective config, in the schema of NVIDIA's examples/asr/conf/asr_finetune/speech_to_text_finetune.yaml."""

from __future__ import annotations

from typing import Any

from recipes.finetune.plan import Plan
from recipes.finetune.spec import FinetuneSpec

#: Hydra's name for the folder that the config lies in: paths work from anywhere and name no machine.
HERE = "${hydra:runtime.config_sources.1.path}"

HEADER = """\
# The effective config of a fine-tuning run, in the schema of NVIDIA's speech_to_text_finetune.yaml:
#   python speech_to_text_finetune.py --config-path=<this folder> --config-name=finetune
# data/train.jsonl holds the first epoch's rows (replayed ones included); data/audio and data/base.nemo link to
# the recordings and the base. The stock script trains every weight and draws no new replay rows each epoch.
"""


def nemo_config(
    spec: FinetuneSpec,
    plan: Plan,
    *,
    base: str,
    train: str,
    validation: str,
    sample_rate_hz: int,
    spec_augment: dict[str, Any] | None,
    num_workers: int,
    nodes: int = 1,
) -> dict[str, Any]:
    """The config as plain data. `base`, `train` and `validation` are relative to it, or a pretrained name."""
    data = {
        "sample_rate": "${model.sample_rate}",
        "num_workers": num_workers,
        "pin_memory": True,
    }
    held_out = data | {"batch_size": plan.batch_size, "shuffle": False, "use_start_end_token": False}
    start = (
        {"init_from_nemo_model": f"{HERE}/{base}"}
        if spec.base_is_path
        else {"init_from_nemo_model": None, "init_from_pretrained_model": base}
    )
    return {
        "name": "Speech_To_Text_Finetuning",
        **start,
        "model": {
            "sample_rate": sample_rate_hz,
            "train_ds": {
                "manifest_filepath": f"{HERE}/{train}",
                **data,
                "batch_size": plan.batch_size,
                "shuffle": True,
                "max_duration": spec.max_duration_s,
                "min_duration": spec.min_duration_s,
                "is_tarred": False,
                "tarred_audio_filepaths": None,
                "shuffle_n": 2048,
                "bucketing_strategy": "fully_randomized",
                "bucketing_batch_size": None,
            },
            "validation_ds": {"manifest_filepath": f"{HERE}/{validation}", **held_out},
            "test_ds": {"manifest_filepath": None, **held_out},
            "char_labels": {"update_labels": False, "labels": None},
            "tokenizer": {"update_tokenizer": False, "dir": None, "type": "bpe"},
            "spec_augment": spec_augment,
            "optim": {
                "name": "adamw",
                "lr": plan.learning_rate,
                "betas": [0.9, 0.98],
                "weight_decay": spec.weight_decay,
                "sched": {
                    "name": "CosineAnnealing",
                    "warmup_steps": plan.warmup_steps,
                    "warmup_ratio": None,
                    "min_lr": plan.learning_rate / 20,
                },
            },
        },
        "trainer": {
            "devices": plan.devices // nodes,
            "num_nodes": nodes,
            "max_epochs": -1,
            "max_steps": plan.total_steps,
            "val_check_interval": plan.validation_interval_steps * plan.accumulate,
            "check_val_every_n_epoch": None,
            "accelerator": "auto",
            "strategy": "auto" if plan.devices == 1 else "ddp_find_unused_parameters_true",
            "accumulate_grad_batches": plan.accumulate,
            "gradient_clip_val": spec.gradient_norm,
            "precision": int(plan.precision) if plan.precision.isdigit() else plan.precision,
            "log_every_n_steps": 10,
            "enable_progress_bar": True,
            "num_sanity_val_steps": 0,
            "sync_batchnorm": False,
            "enable_checkpointing": False,
            "logger": False,
            "benchmark": False,
        },
        "exp_manager": {
            "exp_dir": None,
            "name": "${name}",
            "create_tensorboard_logger": True,
            "create_checkpoint_callback": True,
            "checkpoint_callback_params": {
                "monitor": "val_wer",
                "mode": "min",
                "save_top_k": 1,
                "always_save_nemo": True,
            },
            "resume_if_exists": False,
            "resume_ignore_no_checkpoint": False,
            "create_wandb_logger": False,
            "wandb_logger_kwargs": {"name": None, "project": None},
        },
    }
