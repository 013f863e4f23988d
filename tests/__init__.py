"""A package, so that `python -m tests.cloud` finds this folder and no other distribution's `tests`."""
