"""The data plane: runs where the GPU is, as `python -m recipes.<name> SPEC.json OUT/`; never imports launcher."""
