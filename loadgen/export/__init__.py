"""Runs in the formats of other tools, so that people's own scripts go on working."""
