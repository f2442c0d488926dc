"""All that set-up fetches, in one folder, for machines without a network."""
