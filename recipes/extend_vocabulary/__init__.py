"""Recipe `extend_vocabulary`: a base learns to write what its vocabulary could not, and is then fine-tuned."""
