"""What to measure: the scenario file and its model."""
