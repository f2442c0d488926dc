"""A tokenizer that anyone can check by hand: one BOS token and one token for each whitespace-separated word.

A chat adds a fixed template: three tokens a message and three that open the answer. Generated tokens are the words of
`WORDS`, all of one width, so that a stream's text counts back to the tokens it was made of.
"""

from __future__ import annotations

import zlib
from typing import Any

from simulator.errors import BadRequestError

BOS = 1
TOKENS_PER_MESSAGE = 3
TOKENS_TO_ANSWER = 3
WORD_BYTES = 5
WORDS = tuple(f" w{i:03d}".encode() for i in range(1000))
VOCABULARY = 32000


def encode(text: str, *, special: bool = True) -> list[int]:
    """Return the token ids of a text; a word's id depends on the word only."""
    ids = [2 + zlib.crc32(word.encode()) % (VOCABULARY - 2) for word in text.split()]
    return [BOS, *ids] if special else ids


def count_text(text: str) -> int:
    """Return the number of tokens of a text, BOS included."""
    return 1 + len(text.split())


def _content_text(content: Any) -> str:
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, list) and all(isinstance(part, dict) for part in content):
        return " ".join(str(part.get("text", "")) for part in content)
    raise BadRequestError("a message's content must be text or a list of parts")


def count_chat(messages: Any) -> int:
    """Return the number of tokens of a chat. Raises BadRequestError when it is not a list of messages."""
    if not isinstance(messages, list) or not messages or not all(isinstance(m, dict) for m in messages):
        raise BadRequestError("messages must be a list of objects, not empty")
    words = sum(len(_content_text(message.get("content")).split()) for message in messages)
    return 1 + TOKENS_TO_ANSWER + TOKENS_PER_MESSAGE * len(messages) + words


def chat_ids(messages: Any) -> list[int]:
    """Return token ids of a chat, as many as `count_chat` says; the template's are 2 and up."""
    template = count_chat(messages) - 1
    words = [i for m in messages for i in encode(_content_text(m.get("content")), special=False)]
    return [BOS, *range(2, 2 + template - len(words)), *words]


def count_prompt(prompt: Any) -> int:
    """Return the tokens of a completion's prompt: text, or token ids. Raises BadRequestError for anything else."""
    if isinstance(prompt, str):
        return count_text(prompt)
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str | list):
        return count_prompt(prompt[0])
    if isinstance(prompt, list) and prompt and all(type(token) is int for token in prompt):
        return len(prompt)
    raise BadRequestError("prompt must be text or a list of token ids, not empty")
