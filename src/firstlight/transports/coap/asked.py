"""What a request asks, as its options say (RFC 7252 §5.4, §5.10)."""

from __future__ import annotations

from dataclasses import dataclass

from firstlight.errors import MalformedError
from firstlight.transports.coap.codes import BAD_OPTION, BAD_REQUEST, METHODS, NO_PROXY, type_of
from firstlight.transports.coap.message import Block, Message, Option

_LENGTHS: dict[int, tuple[int, int]] = {
    Option.URI_HOST: (1, 255),
    Option.ETAG: (1, 8),
    Option.URI_PORT: (0, 2),
    Option.URI_PATH: (0, 255),
    Option.CONTENT_FORMAT: (0, 2),
    Option.MAX_AGE: (0, 4),
    Option.URI_QUERY: (0, 255),
    Option.ACCEPT: (0, 2),
    Option.BLOCK2: (0, 3),
    Option.BLOCK1: (0, 3),
    Option.SIZE2: (0, 4),
    Option.SIZE1: (0, 4),
    Option.ECHO: (1, 40),
    Option.REQUEST_TAG: (0, 8),
}
_REPEATABLE = frozenset({Option.URI_PATH, Option.URI_QUERY, Option.ETAG, Option.REQUEST_TAG})


class AskedError(MalformedError):
    """A request that is not passed on: ``bad-option``, ``bad-block``, ``bad-path``, ``no-proxy``, ``wrong-method``."""

    def __init__(self, code: str, detail: str, answer: int) -> None:
        """Remember which CoAP code answers it."""
        super().__init__(code, detail)
        self.answer = answer


@dataclass(frozen=True, slots=True)
class Asked:
    """A request's method, target and types, and where in a block-wise transfer it stands."""

    method: str
    path: str
    query: str
    content_type: str | None
    accept: str | None
    block1: Block | None
    block2: Block | None
    size1: int
    tags: tuple[bytes, ...]

    @property
    def key(self) -> tuple[object, ...]:
        """What all messages of one block-wise transfer have in common (RFC 7959 §2.5, RFC 9175 §3.3)."""
        return self.method, self.path, self.query, self.content_type, self.accept, self.tags


def understand(message: Message) -> Asked:
    """Return what ``message`` asks; :class:`AskedError`."""
    options = _known(message)
    method = METHODS.get(message.code)
    if method is None:
        raise AskedError("wrong-method", "no such method", 4 * 32 + 5)
    path = "/" + "/".join(_text(value, "/") for value in options.get(Option.URI_PATH, ()))
    query = "&".join(_text(value, "&#") for value in options.get(Option.URI_QUERY, ()))
    return Asked(
        method,
        path,
        query,
        _type(options, Option.CONTENT_FORMAT),
        _type(options, Option.ACCEPT),
        _block(options, Option.BLOCK1),
        _block(options, Option.BLOCK2),
        int.from_bytes(options.get(Option.SIZE1, [b""])[0]),
        tuple(options.get(Option.REQUEST_TAG, ())),
    )


def type_in(message: Message, number: Option) -> str | None:
    """Return the media type that an option names."""
    value = message.value(number)
    return None if value is None else type_of(int.from_bytes(value[:2]))


def _known(message: Message) -> dict[int, list[bytes]]:
    """Return the options that are understood; a critical one that is not is refused, others are passed over."""
    found: dict[int, list[bytes]] = {}
    for number, value in message.options:
        if number in (Option.PROXY_URI, Option.PROXY_SCHEME):
            raise AskedError("no-proxy", "this is no proxy", NO_PROXY)
        low, high = _LENGTHS.get(number, (1, 0))
        again = number in found and number not in _REPEATABLE
        if low <= len(value) <= high and not again:
            found.setdefault(number, []).append(value)
        elif number & 1:
            raise AskedError("bad-option", f"option {number} is not understood", BAD_OPTION)
    return found


def _text(value: bytes, forbidden: str) -> str:
    """Return a segment; none may stand for more than one, or for what HTTP would take for something else."""
    try:
        text = value.decode("ascii")
    except UnicodeDecodeError as error:
        raise AskedError("bad-path", "not ASCII", BAD_REQUEST) from error
    if text in {"", ".", ".."} or not text.isprintable() or any(one in text for one in forbidden + "?%\\ "):
        raise AskedError("bad-path", "a segment that is no name", BAD_REQUEST)
    return text


def _type(options: dict[int, list[bytes]], number: Option) -> str | None:
    values = options.get(number)
    return None if values is None else type_of(int.from_bytes(values[0]))


def _block(options: dict[int, list[bytes]], number: Option) -> Block | None:
    values = options.get(number)
    if values is None:
        return None
    try:
        return Block.decode(values[0])
    except MalformedError as error:
        raise AskedError(error.code, error.detail, BAD_REQUEST) from error
