"""Hostile input by the hundred thousand: what no byte of a stranger's may end."""
