"""The optimizers that a fine-tune may step with, and what each holds of memory."""
