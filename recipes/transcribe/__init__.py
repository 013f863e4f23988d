"""Recipe `transcribe`: try a model on one's own clips, and see where another model hears something else."""

from recipes.transcribe.spec import TranscribeSpec

__all__ = ["TranscribeSpec"]
