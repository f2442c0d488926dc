"""What engines say of themselves, and what Prometheus knows of a run: memory, energy."""
