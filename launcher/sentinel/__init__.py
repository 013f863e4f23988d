"""A small process beside the runner that outlives it, and sees to it that everything of the run is released."""
