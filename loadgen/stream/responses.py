"""Events and answers of OpenAI's Responses API in the form of chat completions, which everything else reads.

https://platform.openai.com/docs/api-reference/responses-streaming
"""

from __future__ import annotations

from typing import Any

TEXT = {
    "response.output_text.delta": "content",
    "response.refusal.delta": "refusal",
    "response.reasoning_text.delta": "reasoning_content",
    "response.reasoning_summary_text.delta": "reasoning_content",
}
ENDS = ("response.completed", "response.incomplete", "response.failed", "response.cancelled")


def as_chat(message: dict[str, Any]) -> dict[str, Any]:
    """An event or a whole answer as a chat completion's chunk or answer; anything else as it is."""
    kind = message.get("type")
    if message.get("object") == "response":
        return _whole(message)
    if not isinstance(kind, str) or not (kind.startswith("response.") or kind == "error"):
        return message
    if kind in ENDS and isinstance(message.get("response"), dict):
        return _whole(message["response"], with_text=False)
    if kind == "error":
        return message if message.get("error") else {"error": message}
    if kind == "response.function_call_arguments.delta":
        calls = [{"function": {"arguments": message.get("delta")}}]
        return {"choices": [{"index": 0, "delta": {"tool_calls": calls}}]}
    delta = {TEXT[kind]: message.get("delta")} if kind in TEXT else {}
    return {"choices": [{"index": 0, "delta": delta}]}


def _whole(response: dict[str, Any], *, with_text: bool = True) -> dict[str, Any]:
    """A response object; in a stream its text has come before it."""
    if response.get("error") or response.get("status") == "failed":
        return {"error": response.get("error") or {"message": "the response failed"}}
    details = response.get("incomplete_details")
    reason = details.get("reason") if isinstance(details, dict) else None
    finish = "length" if reason == "max_output_tokens" else reason
    status = response.get("status")
    finish = finish or ("stop" if status == "completed" else status)
    found: dict[str, Any] = {"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]}
    if with_text:
        items = response.get("output")
        parts = [
            part.get("text")
            for item in (items if isinstance(items, list) else [])
            if isinstance(item, dict) and isinstance(item.get("content"), list)
            for part in item["content"]
            if isinstance(part, dict)
        ]
        text = "".join(part for part in parts if isinstance(part, str))
        found = {"choices": [{"index": 0, "message": {"content": text}, "finish_reason": finish}]}
    usage = response.get("usage")
    if isinstance(usage, dict):
        found["usage"] = {
            **usage,
            "prompt_tokens": usage.get("input_tokens"),
            "completion_tokens": usage.get("output_tokens"),
            "prompt_tokens_details": usage.get("input_tokens_details"),
            "completion_tokens_details": usage.get("output_tokens_details"),
        }
    return found
