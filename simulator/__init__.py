"""An OpenAI-compatible engine whose timing is exactly known: the oracle, so it shares no code with the load generator.

Pure core: `plan` (fixed timing, faults, event shape), `batching` (continuous batching), `wire` (bytes of a stream),
`tokenizer`, `otlp` (the shape of a push). Thin shell: `server` (one epoll loop), `stream`, `http`, `routes`, `pusher`.
`truth` records what was really written, and when.
"""
