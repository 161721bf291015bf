"""What `flashrt bench` does: load a model, time its captured graph and its `predict`, and compare with earlier results."""
