"""One folder an engine: its locked requirements and its launcher, which needs the standard library only."""
