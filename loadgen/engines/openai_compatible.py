"""Any other server with an OpenAI-compatible endpoint."""

from loadgen.engines.base import Engine


class OpenAICompatible(Engine):
    """Plain OpenAI: the output may end before `max_tokens`, and there is no tokenize route."""

    kind = "openai"
    apis = ("chat", "completions", "responses")
    health_path = "/v1/models"
