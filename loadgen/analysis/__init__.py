"""Judges runs: samples of blocks, comparisons, prefill, floors."""
