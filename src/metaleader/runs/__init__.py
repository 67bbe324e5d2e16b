"""Runs: their folders and checkpoints, one after another or many at once, and `metaleader.run`."""
