"""Prometheus exporters of Bakeoff. They know nothing of the traffic."""
