"""CometBFT's RPC, as far as the engine needs it: hand in a transaction, fetch headers, commits and validators.

Nothing that it says of blocks is believed here; who asks verifies it.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx

from firstlight.chain.commit import MAX_VALIDATORS, Validator, ValidatorSet
from firstlight.chain.rpc import SignedCommit, parse_commit, parse_result, parse_validators
from firstlight.errors import MalformedError, StoreError, TransportError

SECONDS = 10.0
CONNECT_SECONDS = 3.0
PAGE = 100
_T = TypeVar("_T")
_KNOWN = "tx already exists in cache"
_FULL = ("mempool is full", "mempool is still rechecking")


@dataclass(frozen=True, slots=True)
class Checked:
    """What a node says to a transaction: nothing against it (``code`` 0), or the code with which it is refused."""

    code: int
    codespace: str = ""
    detail: str = ""


class Rpc:
    """The RPC of one CometBFT node. Any thread may call any method.

    All raise :class:`TransportError`: ``unreachable`` (nothing was sent), ``no-answer``, ``bad-response``.
    """

    def __init__(self, address: str) -> None:
        """Ask at ``address``: an ``http://`` URL, or ``unix:`` and the path of a socket."""
        path = address.removeprefix("unix:")
        unix = path != address
        self._url = "http://cometbft" if unix else address
        self._client = httpx.Client(
            transport=httpx.HTTPTransport(uds=path if unix else None),
            timeout=httpx.Timeout(SECONDS, connect=CONNECT_SECONDS),
            trust_env=False,
        )

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def broadcast(self, transaction: bytes) -> Checked:
        """Hand in a transaction; one that is there already is no error.

        Raises :class:`StoreError` (``ledger-busy``): too many wait.
        """
        body = self._ask("broadcast_tx_sync", tx=base64.b64encode(transaction).decode())
        try:
            result = parse_result(body)
        except MalformedError as error:
            if _KNOWN in error.detail:
                return Checked(0)
            if any(one in error.detail for one in _FULL):
                raise StoreError("ledger-busy", "the mempool is full", hint="submit it again later") from error
            raise TransportError("bad-response", error.detail) from error
        code, codespace, detail = result.get("code"), result.get("codespace"), result.get("log")
        if type(code) is not int or not isinstance(codespace, str) or not isinstance(detail, str):
            raise TransportError("bad-response", "an answer to a transaction that is none")
        return Checked(code, codespace, detail)

    def commit(self, height: int) -> SignedCommit | None:
        """Return the header at ``height`` and its commit; nothing if the node does not have them."""
        return self._at(height, "commit", parse_commit)

    def validators(self, height: int) -> ValidatorSet | None:
        """Return the validators of ``height``, in their order; nothing if the node does not know them."""
        found: list[Validator] = []
        total = 1
        while len(found) < total:
            page = self._at(
                height, "validators", parse_validators, page=str(len(found) // PAGE + 1), per_page=str(PAGE)
            )
            if page is None:
                return None
            some, total = page
            if not some or total > MAX_VALIDATORS:
                raise TransportError("bad-response", f"{total} validators, and {len(some)} on a page")
            found += some
        return ValidatorSet.ordered(found)

    def _at(self, height: int, method: str, parse: Callable[[bytes], _T], **parameters: str) -> _T | None:
        body = self._ask(method, height=str(height), **parameters)
        try:
            return parse(body)
        except MalformedError as error:
            # What CometBFT says of a height that it does not have yet, or any more, begins with one of these.
            if error.code == "rpc-error" and error.detail.startswith(("height ", "could not find ")):
                return None
            raise TransportError("bad-response", f"CometBFT: {error}") from error

    def _ask(self, method: str, **parameters: Any) -> bytes:
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": parameters})
        try:
            return self._client.post(self._url, content=body, headers={"content-type": "application/json"}).content
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise TransportError("unreachable", f"CometBFT: {error}") from error
        except httpx.HTTPError as error:
            raise TransportError("no-answer", f"CometBFT: {type(error).__name__} {error}") from error


def socket_address(path: Path) -> str:
    """Return the address of an RPC on the socket at ``path``."""
    return f"unix:{path}"
