"""Which engine is faster, by how much, and how sure we are: pure functions over a run's raw values.

`compare` is the way in; `result` is what comes out, `words` says it in a sentence, docs/statistics.md says why.
"""
