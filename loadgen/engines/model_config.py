"""What of a model's config.json decides the size of its attention: what launchers record of it, and reports read.

Standard library only, as is all of `loadgen/engines/`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

KEYS = (
    *("model_type", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim", "hidden_size"),
    *("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "index_topk"),
    *("layer_types", "sliding_window", "use_sliding_window", "sliding_window_pattern", "max_window_layers"),
    *("dtype", "torch_dtype"),
)


def attention_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Those keys of a config that it has; of the text model where there are several models."""
    inner = config.get("text_config")
    inner = inner if isinstance(inner, Mapping) else {}
    return {key: value for key in KEYS if (value := inner.get(key, config.get(key))) is not None}


def read_config(model: str) -> dict[str, Any]:
    """The config.json of a model's folder; empty where there is none, or it cannot be read."""
    try:
        config = json.loads((Path(model) / "config.json").read_text(encoding="utf-8")) if model else {}
    except (OSError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}
