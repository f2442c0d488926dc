"""Turn the GGUF that llama.cpp serves into a Hugging Face folder that vLLM serves: same weights, same tokens.

Runs in vLLM's environment: `python -m stack.engines.vllm.convert GGUF FOLDER`.
The folder appears whole or not at all, and its stamp after it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from loadgen.errors import UserError
from stack.engines.stamps import expected_hf, is_intact, stamp_path, write_stamp

BOS = "<bos>"


def with_bos(tokenizer: dict[str, Any], bos_id: int) -> dict[str, Any]:
    """Make a `tokenizer.json` put BOS before every text, as llama.cpp does with this model.

    transformers' GGUF reader drops that step, and the same prompt would be a token shorter on vLLM. An existing
    post-processor is kept, after ours. Form: the tokenizers library's TemplateProcessing.
    """
    first = {"SpecialToken": {"id": BOS, "type_id": 0}}
    text_a, text_b = {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}
    return {
        **tokenizer,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [first, text_a],
            "pair": [first, text_a, first, text_b],
            "special_tokens": {BOS: {"id": BOS, "ids": [bos_id], "tokens": [BOS]}},
        },
    }


def convert(gguf: Path, folder: Path) -> None:
    """Write the model and its tokenizer from `gguf` into `folder`, which must not exist.

    Raises RuntimeError if the tokenizer written does not start a text with exactly one BOS.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.bfloat16)
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    # The weights are plain bfloat16 now; what still calls the model quantised would stop it from being saved.
    for name in ("hf_quantizer", "is_quantized", "quantization_method"):
        if hasattr(model, name):
            delattr(model, name)
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config

    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        _edit(partial / "tokenizer.json", lambda data: with_bos(data, tokenizer.bos_token_id))
        _edit(partial / "tokenizer_config.json", lambda data: {**data, "add_bos_token": True})

        text = "Hello world"
        reread = AutoTokenizer.from_pretrained(partial)
        bare = reread.encode(text, add_special_tokens=False)
        if reread.encode(text) != [tokenizer.bos_token_id, *bare]:
            raise RuntimeError(
                f"the converted tokenizer gives {reread.encode(text)} for {text!r}, without one BOS first"
            )
        partial.chmod(0o755)
        for file in partial.iterdir():
            file.chmod(0o644)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def ensure_converted(gguf: Path, folder: Path) -> Path:
    """Convert a GGUF into `folder`, unless an intact conversion of it is there: anything else there is replaced.

    Raises UserError if there is no such GGUF.
    """
    if not gguf.is_file():
        raise UserError(f"there is no model {gguf}: `make up` puts it there")
    expected = expected_hf(gguf)
    if not is_intact(folder, expected, full=False):
        print(f"converting {gguf.name} for vLLM, once", flush=True)
        stamp_path(folder).unlink(missing_ok=True)
        for left in (folder, *folder.parent.glob(f".{folder.name}-*")):
            shutil.rmtree(left, ignore_errors=True)
        os.environ["HF_HUB_OFFLINE"] = "1"
        convert(gguf.resolve(), folder)
        write_stamp(folder, expected, weights="model.safetensors")
    return folder


def _edit(path: Path, change: Any) -> None:
    """Rewrite a JSON file."""
    data = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(change(data), ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Read the arguments and convert."""
    parser = argparse.ArgumentParser(description="Convert a GGUF to a Hugging Face folder for vLLM.")
    parser.add_argument("gguf", type=Path)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    if options.folder.exists():
        sys.exit(f"{options.folder} is there already")
    ensure_converted(options.gguf, options.folder)


if __name__ == "__main__":
    main()
