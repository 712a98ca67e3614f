"""Asking witnesses: all of them at once, over HTTP, and taking the first that are enough.

What a witness answers is verified here, so that one that is broken or dishonest spoils no bundle.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from firstlight.chain.witness import WitnessRequest, WitnessSignature, verify_witnesses
from firstlight.errors import ConfigError, FirstlightError, MalformedError, StoreError, TransportError
from firstlight.files import read_limited, write_atomic
from firstlight.logs import Log
from firstlight.roles.bundles import Head
from firstlight.transports.body import CBOR, Poster, parse_json

PATIENCE = 5.0
"""Seconds to wait until enough witnesses have signed."""
FILE = "witnesses.json"
MAX_URLS = 32
MAX_FILE = 8_192
_URL = re.compile(r"https?://[A-Za-z0-9.\-\[\]:]{1,120}(/[A-Za-z0-9._~/-]{0,120})?")


class AskedWitnesses:
    """Witness servers (:class:`firstlight.roles.bundles.Witnesses`)."""

    def __init__(
        self,
        client: Poster,
        urls: Callable[[], Sequence[str]],
        *,
        log: Log | None = None,
        patience: float = PATIENCE,
    ) -> None:
        """Ask the servers at ``urls()``, which is looked at each time; ``patience`` is in seconds."""
        self._client = client
        self._urls = urls
        self._log = log
        self._patience = patience
        self._asking: set[asyncio.Task[WitnessSignature]] = set()

    async def attest(self, head: Head, nonce_root: bytes) -> tuple[WitnessSignature, ...]:
        """Return as many signatures as the epoch of ``head`` asks for, ascending; nothing if there are not enough."""
        request = WitnessRequest(head.chain, head.height, nonce_root).encode()
        tasks = [asyncio.create_task(self._ask(url, request, head, nonce_root)) for url in self._urls()]
        self._asking.update(tasks)
        for task in tasks:
            task.add_done_callback(self._asked)
        found = await _enough(tasks, head.epoch.threshold, self._patience)
        if len(found) < head.epoch.threshold:
            if self._log is not None:
                self._log.warning("witnesses-missing", height=head.height, count=len(found))
            return ()
        return tuple(found[place] for place in sorted(found))[: head.epoch.threshold]

    async def close(self) -> None:
        """Stop waiting for those that are late."""
        for task in self._asking:
            task.cancel()
        await asyncio.gather(*self._asking, return_exceptions=True)

    async def _ask(self, url: str, request: bytes, head: Head, nonce_root: bytes) -> WitnessSignature:
        body = await self._client.post(f"{url.rstrip('/')}/v1/witness", request, content_type=CBOR)
        try:
            signature = WitnessSignature.decode(body)
        except MalformedError as error:
            raise TransportError("bad-response", f"the witness's signature: {error}") from error
        _check(signature, head, nonce_root)
        return signature

    def _asked(self, task: asyncio.Task[WitnessSignature]) -> None:
        self._asking.discard(task)
        error = None if task.cancelled() else task.exception()
        if self._log is not None and isinstance(error, FirstlightError):
            self._log.refusal(error, step="witness")


async def _enough(
    tasks: Sequence[asyncio.Task[WitnessSignature]], wanted: int, patience: float
) -> dict[int, WitnessSignature]:
    """Return signatures by the witness's place, as soon as there are as many as wanted."""
    found: dict[int, WitnessSignature] = {}
    waiting = set(tasks)
    end = asyncio.get_running_loop().time() + patience
    while waiting and len(found) < wanted:
        left = max(0.0, end - asyncio.get_running_loop().time())
        done, waiting = await asyncio.wait(waiting, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        if not done:
            break
        for task in done:
            if not task.cancelled() and task.exception() is None:
                found[task.result().witness] = task.result()
    return found


def _check(signature: WitnessSignature, head: Head, nonce_root: bytes) -> None:
    """Check one signature as if it were all that the epoch asks for; :class:`ProofError`."""
    verify_witnesses(
        [signature],
        epoch=replace(head.epoch, threshold=1),
        height=head.height,
        header_hash=head.hash,
        nonce_root=nonce_root,
    )


# --- whom to ask ------------------------------------------------------------------------------


class WitnessFile:
    """The witnesses' URLs in a file of a state directory, read again whenever it has changed; none without a file."""

    def __init__(self, state_dir: Path, always: Sequence[str] = ()) -> None:
        """Read ``witnesses.json`` in ``state_dir``, and add what is in ``always``."""
        self._path = state_dir / FILE
        self._always = tuple(always)
        self._seen: tuple[int, int] | None = None
        self._listed: tuple[str, ...] = ()

    def urls(self) -> tuple[str, ...]:
        """Return the URLs; :class:`StoreError`, :class:`ConfigError` (``bad-witnesses``)."""
        seen = self._stamp()
        if seen != self._seen:
            self._listed = () if seen is None else read_witnesses(self._path)
            self._seen = seen
        return tuple(dict.fromkeys((*self._always, *self._listed)))

    def _stamp(self) -> tuple[int, int] | None:
        """Return what tells one version of the file from another."""
        try:
            status = self._path.stat()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError("file-not-readable", f"{self._path}: {error.strerror or error}") from error
        return status.st_mtime_ns, status.st_ino


def read_witnesses(path: Path) -> tuple[str, ...]:
    """Return the URLs in a witness file; :class:`StoreError`, :class:`ConfigError` (``bad-witnesses``)."""
    try:
        value = parse_json(read_limited(path, MAX_FILE))
    except MalformedError as error:
        raise ConfigError("bad-witnesses", f"{path}: {error.detail}") from error
    if not isinstance(value, list) or len(value) > MAX_URLS or not all(_is_url(one) for one in value):
        raise ConfigError("bad-witnesses", f"{path} holds no list of at most {MAX_URLS} http URLs")
    return tuple(value)


def write_witnesses(state_dir: Path, urls: Sequence[str]) -> None:
    """Replace the witness file; :class:`StoreError`, :class:`ConfigError` (``bad-witnesses``)."""
    if len(urls) > MAX_URLS or not all(_is_url(one) for one in urls):
        raise ConfigError("bad-witnesses", f"not at most {MAX_URLS} http URLs", hint="http://HOST:PORT for each")
    write_atomic(state_dir / FILE, json.dumps(list(urls)).encode())


def _is_url(value: object) -> bool:
    return isinstance(value, str) and _URL.fullmatch(value) is not None
