"""The stack as containers: bring Compose's project up, watch it, and take it down."""
