"""The ways to fine-tune: one module each, behind the contract in contract.py, listed in registry.py."""
