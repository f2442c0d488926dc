"""Where engines answer, how they count tokens, and prompts of exact length."""
