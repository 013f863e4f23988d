"""The data plane, run where the GPU is: `python -m recipes.<name> SPEC.json OUT/`; never imports launcher."""
