"""Conducts a whole run."""
