"""The simulator's schedulers beside the real ones."""
