"""The detached process that takes one run from reserved to released and settled."""
