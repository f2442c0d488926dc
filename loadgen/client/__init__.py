"""How the load generator itself fares, and whether it was the limit."""
