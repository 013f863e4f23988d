"""Kills runner and sentinel at every failpoint, and lets the layer below release; the simulated bill is the judge."""
