"""What peers are given beside the URL: a tokenizer that counts as the simulator does, and prompts."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit

from benchmarks.client.loads import PROMPT_TOKENS

WORDS = [f"w{number:03d}" for number in range(1000)]
SPECIAL = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}


def write_tokenizer(folder: Path) -> Path:
    """Write a tokenizer folder as transformers reads it: one token a word, the words being the simulator's."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = {word: number for number, word in enumerate([*SPECIAL.values(), *WORDS])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token=SPECIAL["unk_token"]))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    tokenizer.add_special_tokens(list(SPECIAL.values()))
    tokenizer.save(str(folder / "tokenizer.json"))
    about = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 131072, **SPECIAL}
    (folder / "tokenizer_config.json").write_text(json.dumps(about), encoding="utf-8")
    # Without a model's configuration transformers looks for one, and waits.
    (folder / "config.json").write_text(json.dumps({"model_type": "gpt2"}), encoding="utf-8")
    return folder


def write_prompts(path: Path, count: int, output_tokens: int) -> Path:
    """Write JSON lines of `prompt` and `output_tokens_count`: `count` prompts of `PROMPT_TOKENS` words."""
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            words = [WORDS[(7 * number + place) % len(WORDS)] for place in range(PROMPT_TOKENS)]
            file.write(json.dumps({"prompt": " ".join(words), "output_tokens_count": output_tokens}) + "\n")
    return path
