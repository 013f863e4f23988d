"""What recipes share about models: which bases there are, opening and saving .nemo files, losses, precision."""
