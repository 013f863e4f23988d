"""Recipe `pseudo_label`: a teacher transcribes unlabelled audio into a manifest that a student can learn from."""

from recipes.pseudo_label.spec import PseudoLabelSpec

__all__ = ["PseudoLabelSpec"]
