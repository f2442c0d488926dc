"""Bakeoff's load generator: scenarios, streaming traffic, records, campaign and report."""
