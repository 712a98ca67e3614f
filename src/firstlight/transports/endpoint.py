"""Where a server listens, as it says in the file ``endpoint`` of its state directory."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from firstlight.errors import MalformedError
from firstlight.files import private_directory, read_limited, write_atomic
from firstlight.transports.body import parse_json

ENDPOINT = "endpoint"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a server listens, and which process it is."""

    url: str
    pid: int
    coap: str | None = None

    @property
    def urls(self) -> tuple[str, ...]:
        """Where it is reached, over HTTP first."""
        return (self.url,) if self.coap is None else (self.url, self.coap)


def write_endpoint(state_dir: Path, endpoint: Endpoint) -> None:
    """Write an endpoint file, atomically; :class:`~firstlight.errors.StoreError` of :mod:`firstlight.files`."""
    fields = {"url": endpoint.url, "pid": endpoint.pid} | ({"coap": endpoint.coap} if endpoint.coap else {})
    value = json.dumps(fields).encode()
    write_atomic(private_directory(state_dir) / ENDPOINT, value)


def remove_endpoint(state_dir: Path) -> None:
    """Remove an endpoint file, if it is there."""
    (state_dir / ENDPOINT).unlink(missing_ok=True)


def read_endpoint(state_dir: Path) -> Endpoint:
    """Return what the server of a state directory wrote.

    Raises :class:`~firstlight.errors.StoreError` (``file-missing``: it does not run) or :class:`MalformedError`
    (``bad-endpoint``, ``not-json``).
    """
    value = parse_json(read_limited(state_dir / ENDPOINT, 4096))
    if not isinstance(value, dict) or not isinstance(value.get("url"), str) or type(value.get("pid")) is not int:
        raise MalformedError("bad-endpoint", f"{state_dir / ENDPOINT} is no endpoint file")
    coap = value.get("coap")
    return Endpoint(value["url"], value["pid"], coap if isinstance(coap, str) else None)
