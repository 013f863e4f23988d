"""Many jobs under one budget and one approval."""
