"""The NeMo configs of the tiny bases: Parakeet's own classes and fields, with small numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

KINDS = ("tdt", "rnnt", "ctc", "hybrid")
DURATIONS = [0, 1, 2, 3, 4]  # of a TDT: frames one step may skip, as in Parakeet-TDT
MELS = 80


def model_config(kind: str, tokenizer_dir: Path, *, width: int, layers: int) -> dict[str, Any]:
    """NeMo config of one of KINDS; `width` is d_model and the size of the prediction and joint networks."""
    if kind == "ctc":
        return _shared(tokenizer_dir, width, layers) | {
            "decoder": _ctc_decoder(width),
            "ctc_reduction": "mean_batch",
            "decoding": {"strategy": "greedy_batch"},
        }
    cfg = _shared(tokenizer_dir, width, layers) | _transducer(width)
    if kind == "rnnt":
        loss = {"fastemit_lambda": 0.0, "clamp": -1.0}
        cfg["loss"] = {"loss_name": "warprnnt_numba", "warprnnt_numba_kwargs": loss}
        return cfg
    cfg["model_defaults"] |= {"tdt_durations": DURATIONS, "num_tdt_durations": len(DURATIONS)}
    cfg["joint"]["num_extra_outputs"] = len(DURATIONS)
    cfg["decoding"] |= {"model_type": "tdt", "durations": DURATIONS}
    loss = {"fastemit_lambda": 0.0, "clamp": -1.0, "durations": DURATIONS, "sigma": 0.02, "omega": 0.1}
    cfg["loss"] = {"loss_name": "tdt", "tdt_kwargs": loss}
    if kind == "hybrid":
        cfg["aux_ctc"] = {
            "ctc_loss_weight": 0.3,
            "use_cer": False,
            "ctc_reduction": "mean_batch",
            "decoder": _ctc_decoder(width),
            "decoding": {"strategy": "greedy_batch"},
        }
    return cfg


def _shared(tokenizer_dir: Path, width: int, layers: int) -> dict[str, Any]:
    data = {"manifest_filepath": None, "sample_rate": 16000, "batch_size": 8}
    return {
        "sample_rate": 16000,
        "compute_eval_loss": False,
        "log_prediction": False,
        "skip_nan_grad": False,
        "model_defaults": {"enc_hidden": width, "pred_hidden": width, "joint_hidden": width},
        "train_ds": data | {"shuffle": True},
        "validation_ds": data | {"shuffle": False, "use_start_end_token": False},  # transcribe() reads it
        "test_ds": None,
        "tokenizer": {"dir": str(tokenizer_dir), "type": "bpe"},
        "preprocessor": {
            "_target_": "nemo.collections.asr.modules.AudioToMelSpectrogramPreprocessor",
            "sample_rate": 16000,
            "normalize": "per_feature",
            "window_size": 0.025,
            "window_stride": 0.01,
            "window": "hann",
            "features": MELS,
            "n_fft": 512,
            "frame_splicing": 1,
            "dither": 1e-5,
            "pad_to": 0,
        },
        "spec_augment": {
            "_target_": "nemo.collections.asr.modules.SpectrogramAugmentation",
            "freq_masks": 0,
            "time_masks": 0,
            "freq_width": 27,
            "time_width": 0.05,
        },
        "encoder": {
            "_target_": "nemo.collections.asr.modules.ConformerEncoder",
            "feat_in": MELS,
            "feat_out": -1,
            "n_layers": layers,
            "d_model": width,
            "use_bias": False,  # as in Parakeet 0.6B
            "subsampling": "dw_striding",
            "subsampling_factor": 8,
            "subsampling_conv_channels": width // 2,
            "causal_downsampling": False,
            "ff_expansion_factor": 4,
            "self_attention_model": "rel_pos",
            "n_heads": 4,
            "att_context_size": [-1, -1],
            "att_context_style": "regular",
            "xscaling": False,
            "untie_biases": True,
            "pos_emb_max_len": 5000,
            "conv_kernel_size": 9,
            "conv_norm_type": "batch_norm",
            "conv_context_size": None,
            "dropout": 0.0,
            "dropout_pre_encoder": 0.0,
            "dropout_emb": 0.0,
            "dropout_att": 0.0,
            "stochastic_depth_drop_prob": 0.0,
        },
        "optim": {
            "name": "adamw",
            "lr": 1e-3,
            "betas": [0.9, 0.98],
            "weight_decay": 1e-3,
            "sched": {"name": "CosineAnnealing", "warmup_steps": 10, "min_lr": 1e-5},
        },
    }


def _transducer(width: int) -> dict[str, Any]:
    return {
        "decoder": {
            "_target_": "nemo.collections.asr.modules.RNNTDecoder",
            "normalization_mode": None,
            "random_state_sampling": False,
            "blank_as_pad": True,
            "prednet": {"pred_hidden": width, "pred_rnn_layers": 1, "t_max": None, "dropout": 0.0},
        },
        "joint": {
            "_target_": "nemo.collections.asr.modules.RNNTJoint",
            "log_softmax": None,
            "preserve_memory": False,
            "fuse_loss_wer": True,
            "fused_batch_size": 16,
            "jointnet": {"joint_hidden": width, "activation": "relu", "dropout": 0.0},
        },
        "decoding": {
            "strategy": "greedy_batch",
            "greedy": {"max_symbols": 10},
            "beam": {"beam_size": 2, "return_best_hypothesis": False, "score_norm": True},
        },
    }


def _ctc_decoder(width: int) -> dict[str, Any]:
    return {
        "_target_": "nemo.collections.asr.modules.ConvASRDecoder",
        "feat_in": width,
        "num_classes": -1,
        "vocabulary": [],
    }
