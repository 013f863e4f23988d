"""The control plane: runs on the user's machine, imports no torch and no NeMo."""

__version__ = "0.1.0"
