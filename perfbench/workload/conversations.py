"""What a row says turn by turn: the users' texts of a conversation, from a list of texts or from chat messages."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from perfbench.errors import Finding, ScenarioError


def turns_of(row: Mapping[str, object], column: str, *, where: str, key: str) -> tuple[list[str], str | None]:
    """(users' texts, the system message if there is one). Assistants' messages are left out: the served answers take their place.

    Raises ScenarioError for a row without the column, and for one in which nobody says anything. A CSV file holds the list as JSON text.
    """
    value = row.get(column)
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            value = None
    if isinstance(value, Mapping):
        value = value.get("messages")
    if not isinstance(value, list) or not value:
        raise _error(key, f"{where} has no list of turns in column `{column}`")
    if all(isinstance(turn, str) for turn in value):
        return [str(turn) for turn in value], None
    if not all(isinstance(turn, Mapping) and isinstance(turn.get("role"), str) and isinstance(turn.get("content"), str) for turn in value):
        raise _error(key, f"{where} has a turn in column `{column}` that is neither a text nor a message with `role` and `content`")
    return _of_messages(value, where, key)


def _of_messages(messages: Sequence[Mapping[str, str]], where: str, key: str) -> tuple[list[str], str | None]:
    users = [message["content"] for message in messages if message["role"] == "user"]
    if not users:
        raise _error(key, f"{where} has no message whose role is `user`")
    return users, next((message["content"] for message in messages if message["role"] == "system"), None)


def _error(key: str, problem: str) -> ScenarioError:
    return ScenarioError("scenario", [Finding(f"{key}.conversation.turns", f"{problem}; expected texts, or messages as {{role, content}}")])
