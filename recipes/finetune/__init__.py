"""Fine-tunes a Parakeet-family model with NeMo: `python -m recipes.finetune SPEC.json OUT/`."""
