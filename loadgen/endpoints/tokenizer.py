"""The model's own tokenizer, of whichever kind its folder holds: tokenizer.json, a tiktoken or a sentencepiece file."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from loadgen.errors import UserError

PATTERNS = ("tokenizer.json", "*.tiktoken", "tiktoken.model", "tokenizer.model", "spiece.model", "sentencepiece*.model")
"""Files that are looked for in a folder, the first found first."""
EXTRA = "pip install 'bakeoff[tokenizers]'"

# How a text is cut before its parts are encoded is in no tiktoken file. As OpenAI's cl100k_base, Llama 3 and most later
# vocabularies have it; Qwen takes digits one by one.
CUT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN_CUT = CUT.replace(r"\p{N}{1,3}", r"\p{N}")


class ModelTokenizer:
    """Counts a model's tokens: nothing is cut off, nothing is added but what opens a prompt."""

    def __init__(self, file: str | Path) -> None:
        """Raises UserError: it cannot be read, or the package that reads it is missing."""
        self.file = Path(file)
        try:
            self._encode = _load(self.file)
        except UserError:
            raise
        except Exception as error:  # the libraries raise bare errors
            raise UserError(f"{self.file}: not a readable tokenizer: {error}") from None

    def encode(self, text: str) -> list[int]:
        """Ids of a text as a completion's prompt, special tokens included."""
        return self._encode(text, True)

    @property
    def sha256(self) -> str:
        """Of its file: the same wherever the file lies."""
        return hashlib.sha256(self.file.read_bytes()).hexdigest()

    def count(self, text: str) -> int:
        """Tokens of a text by itself."""
        return len(self._encode(text, False))


def find_tokenizer(path: str) -> Path:
    """The tokenizer's file: the one given, or that of a model's folder. Raises UserError when there is none."""
    file = Path(path)
    if file.is_dir():
        found = (match for pattern in PATTERNS for match in sorted(file.glob(pattern)))
        file = next(found, file / PATTERNS[0])
    if not file.is_file():
        raise UserError(
            f"{file}: there is no such tokenizer. Give the folder that holds the model's tokenizer.json, or its "
            "tiktoken or sentencepiece file."
        )
    return file.resolve()  # workers may run in another folder


def lacks_chat_template(file: str | Path) -> bool:
    """Whether the model's folder, if it is one, says how a prompt is wrapped, and has no template for a chat."""
    folder = Path(file).parent
    config = folder / "tokenizer_config.json"
    if not config.is_file() or any(folder.glob("chat_template*")):
        return False
    settings = _json(config)
    return not settings.get("chat_template")


def _load(file: Path) -> Callable[[str, bool], list[int]]:
    if file.suffix == ".json":
        from tokenizers import Tokenizer

        plain = Tokenizer.from_file(str(file))
        # Set where the file was saved after training; engines count what there is.
        plain.no_truncation()
        plain.no_padding()
        return lambda text, special: list(plain.encode(text, add_special_tokens=special).ids)
    ranks = _tiktoken_ranks(file.read_bytes())
    if ranks:
        return _tiktoken(file, ranks)
    try:
        from sentencepiece import SentencePieceProcessor
    except ImportError:
        raise UserError(f"{file}: to read a sentencepiece file takes a package that is missing: {EXTRA}") from None
    processor = SentencePieceProcessor(model_file=str(file))
    opens = processor.bos_id() >= 0 and _json(file.with_name("tokenizer_config.json")).get("add_bos_token") is True
    return lambda text, special: list(processor.encode(text, add_bos=special and opens))


def _tiktoken(file: Path, ranks: dict[bytes, int]) -> Callable[[str, bool], list[int]]:
    try:
        import tiktoken
    except ImportError:
        raise UserError(f"{file}: to read a tiktoken file takes a package that is missing: {EXTRA}") from None
    cut = QWEN_CUT if "qwen" in file.name.lower() else CUT
    encoding = tiktoken.Encoding(file.name, pat_str=cut, mergeable_ranks=ranks, special_tokens={})
    return lambda text, _: encoding.encode_ordinary(text)


def _tiktoken_ranks(data: bytes) -> dict[bytes, int]:
    """The vocabulary of a tiktoken file, lines of a token in base64 and its rank; empty where it is no such file."""
    try:
        pairs = [line.split() for line in data.splitlines() if line.strip()]
        return {base64.b64decode(token, validate=True): int(rank) for token, rank in pairs}
    except (ValueError, binascii.Error):
        return {}


def _json(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
