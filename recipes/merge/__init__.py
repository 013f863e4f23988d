"""Recipe `merge`: a base and an adapter make a plain model."""
