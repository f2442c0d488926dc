"""A tokenizer that anyone can check by hand: one BOS token and one token for each whitespace-separated word.

A chat adds a fixed template: three tokens a message and three that open the answer. Generated tokens are the words of
`WORDS`, all of one width, so that a stream's text counts back to the tokens it was made of.
"""

from __future__ import annotations

import zlib
from typing import Any

from simulator.config import Tokens
from simulator.errors import BadRequestError

BOS = 1
TOKENS_PER_MESSAGE = 3
WORD_BYTES = 5
WORDS = tuple(f" w{i:03d}".encode() for i in range(1000))
BANGS = (b" !!!!",) * len(WORDS)
"""What an engine says that gives the same token for every token."""
VOCABULARY = 32000


class Tokenizer:
    """Counts and encodes texts and chats as configured."""

    def __init__(self, cfg: Tokens | None = None) -> None:
        cfg = cfg or Tokens()
        self._bos = [BOS] * cfg.bos
        self._template = cfg.template
        self._letters = cfg.word_letters

    def _pieces(self, text: str) -> list[str]:
        words, size = text.split(), self._letters
        if size is None:
            return words
        return [word[at : at + size] for word in words for at in range(0, len(word), size)]

    def around(self, *, chat: bool) -> int:
        """Return how many more tokens than the default stand around a prompt's words."""
        plain = Tokens()
        return len(self._bos) - plain.bos + (self._template - plain.template if chat else 0)

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """Return the token ids of a text; a word's id depends on the word only."""
        ids = [2 + zlib.crc32(word.encode()) % (VOCABULARY - 2) for word in self._pieces(text)]
        return [*self._bos, *ids] if special else ids

    def count_text(self, text: str) -> int:
        """Return the number of tokens of a text, BOS included."""
        return len(self._bos) + len(self._pieces(text))

    def count_chat(self, messages: Any) -> int:
        """Return the number of tokens of a chat. Raises BadRequestError when it is not a list of messages."""
        if not isinstance(messages, list) or not messages or not all(isinstance(m, dict) for m in messages):
            raise BadRequestError("messages must be a list of objects, not empty")
        words = sum(len(self._pieces(_content_text(message.get("content")))) for message in messages)
        return len(self._bos) + self._template + TOKENS_PER_MESSAGE * len(messages) + words

    def chat_ids(self, messages: Any) -> list[int]:
        """Return token ids of a chat, as many as `count_chat` says; the template's are 2 and up."""
        template = self.count_chat(messages) - len(self._bos)
        words = [i for m in messages for i in self.encode(_content_text(m.get("content")), special=False)]
        return [*self._bos, *range(2, 2 + template - len(words)), *words]

    def count_prompt(self, prompt: Any) -> int:
        """Return the tokens of a completion's prompt: text, or token ids. Raises BadRequestError for anything else."""
        if isinstance(prompt, str):
            return self.count_text(prompt)
        if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str | list):
            return self.count_prompt(prompt[0])
        if isinstance(prompt, list) and prompt and all(type(token) is int for token in prompt):
            return len(prompt)
        raise BadRequestError("prompt must be text or a list of token ids, not empty")

    def prompt_ids(self, prompt: Any) -> list[int]:
        """Return the token ids of a completion's prompt that `count_prompt` has counted."""
        if isinstance(prompt, list) and isinstance(prompt[0], str | list):
            return self.prompt_ids(prompt[0])
        return self.encode(prompt) if isinstance(prompt, str) else list(prompt)


def prompt_text(body: dict[str, Any], *, chat: bool) -> tuple[str, str | None]:
    """Return a request's prompt as text, and what the assistant has begun to say; ids have no text.

    Only of a body whose tokens have been counted.
    """
    if not chat:
        prompt = body["prompt"]
        while isinstance(prompt, list) and isinstance(prompt[0], str | list):
            prompt = prompt[0]
        return (prompt, None) if isinstance(prompt, str) else (" ".join(map(str, prompt)), None)
    turns = body["messages"]
    began = turns[-1].get("role") == "assistant"
    asked = "\n".join(_content_text(turn.get("content")) for turn in (turns[:-1] if began else turns))
    return asked, _content_text(turns[-1].get("content")) if began else None


def _content_text(content: Any) -> str:
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, list) and all(isinstance(part, dict) for part in content):
        return " ".join(str(part.get("text", "")) for part in content)
    raise BadRequestError("a message's content must be text or a list of parts")
