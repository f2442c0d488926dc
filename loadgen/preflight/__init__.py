"""Preflight: whether the engines of a race do the same work, asked before any load. Else speed means nothing."""
