"""Write a model folder without weights: few or thin layers, and a tokenizer of ASCII and a thousand words.

    python -m benchmarks.small_model FOLDER

An engine that makes weights up (vLLM: `--load-format dummy`) serves it as fast as its own scheduler and front end go,
which is what the experiments on engines' insides are about. What it says means nothing, but each token of it is text,
and none ends an answer.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel

CONTEXT_TOKENS = 16_384
UNKNOWN = "?"
LETTERS = ("bdfgklmnprstvz", "aeiou")
SPACE = "Ġ"
"""A blank, as byte-level tokenizers write it."""
THIN = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
}
"""Costs a CPU next to nothing."""
WHOLE = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 128,
}
"""Takes a GPU some milliseconds a step, as the engines' own pages were measured with."""


def tokenizer() -> Tokenizer:
    """ASCII, syllables, and words of two syllables, each one token; of any other text each byte is a question mark."""
    syllables = [a + b for a, b in itertools.product(*LETTERS)]
    words = [SPACE + a + b for a, b in itertools.product(syllables[:35], syllables[:30])]
    merges = [(one[0], one[1]) for one in syllables]
    merges += [(SPACE, one) for one in syllables[:35]]
    merges += [(word[:3], word[3:]) for word in words]
    as_text = decoders.ByteLevel()
    letters = sorted(letter for letter in ByteLevel.alphabet() if as_text.decode([letter]).isascii())
    pieces = [*letters, *("".join(pair) for pair in merges)]
    made = Tokenizer(BPE({piece: number for number, piece in enumerate(pieces)}, merges, unk_token=UNKNOWN))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = as_text
    return made


def write(folder: Path, shape: Mapping[str, int] = MappingProxyType(THIN)) -> None:
    """Write the folder's files, of a model of this shape."""
    folder.mkdir(parents=True, exist_ok=True)
    words = tokenizer()
    words.save(str(folder / "tokenizer.json"))
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "torch_dtype": "bfloat16",
        "vocab_size": words.get_vocab_size(),
        **shape,
        "max_position_embeddings": CONTEXT_TOKENS,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10_000.0,
        "hidden_act": "silu",
        "eos_token_id": None,
        "bos_token_id": None,
        "tie_word_embeddings": True,
    }
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": CONTEXT_TOKENS}
    for name, content in (("config.json", config), ("tokenizer_config.json", settings)):
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Read the arguments and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    write(parser.parse_args().folder)


if __name__ == "__main__":
    main()
