"""The scene network in use: its clips, its training step, its training, and what it says of clips."""
