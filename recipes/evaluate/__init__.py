"""Recipe `evaluate`: transcribe a manifest with any model, offline, and score it; the same code before and after."""

from recipes.evaluate.spec import EvaluateSpec

__all__ = ["EvaluateSpec"]
