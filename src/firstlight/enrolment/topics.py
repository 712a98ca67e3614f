"""Who may publish and read what on a service's broker: everybody under ``devices/<name>/``, nobody elsewhere.

``name`` is the common name of the client's certificate, a random credential id. Topic names and filters are those of
MQTT 3.1.1 §4.7.
"""

from __future__ import annotations

import re

from firstlight.errors import AccessError, MalformedError

ROOT = "devices"
MAX_TOPIC = 256
"""The longest topic name or filter, in characters."""
NAME_BYTES = 16
_NAME = re.compile(r"[0-9a-f]{32}")
_LEVELS = re.compile(r"[!\"$-*,-.0-~]+(/[!\"$-*,-.0-~]+)*")
"""Levels of printable ASCII without blanks and wildcards, none of them empty."""


def credential_name(identifier: bytes) -> str:
    """Return the name of the credential with that random ``identifier`` (16 bytes): its lower-case hexadecimal.

    Raises :class:`MalformedError` (``bad-credential-name``) for another length.
    """
    if len(identifier) != NAME_BYTES:
        raise MalformedError("bad-credential-name", f"not {NAME_BYTES} bytes")
    return identifier.hex()


def is_credential_name(name: str) -> bool:
    """Tell whether ``name`` is one that :func:`credential_name` makes."""
    return _NAME.fullmatch(name) is not None


def topic_of(name: str, leaf: str) -> str:
    """Return the topic ``devices/<name>/<leaf>``; :class:`MalformedError` (``topic-malformed``) if it is none."""
    topic = f"{ROOT}/{name}/{leaf}"
    if not is_credential_name(name) or not _LEVELS.fullmatch(leaf) or len(topic) > MAX_TOPIC:
        raise MalformedError("topic-malformed", "not a credential's own topic")
    return topic


def check_publish(name: str, topic: str) -> None:
    """Let ``name`` publish to ``topic``.

    1. It is a topic name (``topic-malformed``), 2. below the client's own (``topic-not-yours``). Raises
    :class:`AccessError`.
    """
    if len(topic) > MAX_TOPIC or not _LEVELS.fullmatch(topic):
        raise AccessError("topic-malformed", "not a topic name")
    _check_own(name, topic)


def check_subscribe(name: str, pattern: str) -> None:
    """Let ``name`` subscribe to ``pattern``.

    1. It is a topic filter (``topic-malformed``), 2. below the client's own (``topic-not-yours``). Wildcards count
    below the client's own level only: ``+`` as a whole level, ``#`` as the last one. Raises :class:`AccessError`.
    """
    levels = pattern.split("/")
    literal = "/".join("x" if level == "+" or (level == "#" and last) else level for level, last in _marked(levels))
    if len(pattern) > MAX_TOPIC or not _LEVELS.fullmatch(literal):
        raise AccessError("topic-malformed", "not a topic filter")
    _check_own(name, pattern)


def _marked(levels: list[str]) -> list[tuple[str, bool]]:
    return [(level, index == len(levels) - 1) for index, level in enumerate(levels)]


def _check_own(name: str, topic: str) -> None:
    if not is_credential_name(name) or not topic.startswith(f"{ROOT}/{name}/"):
        raise AccessError("topic-not-yours", "outside the credential's own topics")
