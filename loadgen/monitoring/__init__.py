"""What Prometheus knows of a run: memory, energy."""
