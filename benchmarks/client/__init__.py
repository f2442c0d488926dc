"""Bakeoff's load generator beside others, against a server whose timing is known: `python -m benchmarks.client`."""
