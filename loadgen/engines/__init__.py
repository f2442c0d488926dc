"""What Bakeoff knows of each engine: one file an engine. `get_engine(kind)` gives it."""

from loadgen.engines.base import Api, Engine
from loadgen.engines.ksana import KsanaLLM
from loadgen.engines.llamacpp import LlamaCpp
from loadgen.engines.openai_compatible import OpenAICompatible
from loadgen.engines.sglang import SGLang
from loadgen.engines.vllm import VLLM
from loadgen.errors import UserError

KNOWN = (VLLM(), KsanaLLM(), LlamaCpp(), SGLang(), OpenAICompatible())
ENGINES: dict[str, Engine] = {engine.kind: engine for engine in KNOWN}
GENERIC = OpenAICompatible.kind


def get_engine(kind: str) -> Engine:
    """Return what is known of an engine. Raises UserError when the kind is unknown."""
    try:
        return ENGINES[kind]
    except KeyError:
        raise UserError(f"Unknown engine kind {kind!r}. Known: {', '.join(ENGINES)}.") from None


__all__ = ["ENGINES", "GENERIC", "Api", "Engine", "OpenAICompatible", "get_engine"]
