"""Where a manufacturer or an owner works: a state directory with settings, genesis and what is known of the ledger."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from firstlight.custody.system import SystemClock, SystemRandom
from firstlight.engines.port import Genesis
from firstlight.errors import ConfigError
from firstlight.ports import Clock, Random
from firstlight.roles.ledger_client import MEMORY, Http, LedgerClient
from firstlight.roles.registration import GENESIS, keep_genesis, read_genesis
from firstlight.settings import ManufacturerSettings, OwnerSettings, load, write_initial
from firstlight.transports.client import SyncClient

SECOND = 1_000_000_000
_SPAN = re.compile(r"([0-9]{1,6})([smhd])")
_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
Kind = type[ManufacturerSettings] | type[OwnerSettings]


@dataclass(frozen=True, slots=True)
class Workplace:
    """A state directory, opened; ``http`` replaces the network in tests."""

    directory: Path
    settings: ManufacturerSettings | OwnerSettings
    genesis: Genesis
    clock: Clock
    random: Random
    http: Http | None = None

    @property
    def chain(self) -> str:
        """The chain's id."""
        return self.genesis.chain

    @property
    def gateways(self) -> tuple[str, ...]:
        """The gateways' URLs, which are also the names under which locators are computed."""
        return tuple(plain_url(url) for url in self.settings.gateways)

    def now(self) -> int:
        """Return Unix time in seconds."""
        return self.clock.now() // SECOND

    @contextlib.contextmanager
    def web(self) -> Iterator[Http]:
        """Give an HTTP client for gateways and parties while the block runs."""
        http: Http = self.http or SyncClient()
        try:
            yield http
        finally:
            http.close()

    def ledger(self) -> LedgerClient:
        """Return access to the ledger, to be closed."""
        memory = self.directory / MEMORY
        return LedgerClient(self.settings.node, self.genesis, memory, random=self.random, http=self.http)


def open_workplace(kind: Kind, directory: Path) -> Workplace:
    """Open the state directory of a manufacturer or an owner.

    Raises :class:`ConfigError` of :mod:`firstlight.settings`, ``wrong-chain`` if settings and genesis disagree, and
    what :func:`read_genesis` raises.
    """
    settings = load(kind, directory)
    genesis = read_genesis(directory / GENESIS)
    if settings.chain != genesis.chain:
        raise ConfigError("wrong-chain", f"settings say {settings.chain}, the genesis {genesis.chain}")
    return Workplace(directory, settings, genesis, SystemClock(), SystemRandom())


def make_workplace(kind: Kind, directory: Path, *, genesis: Path, node: str, gateways: tuple[str, ...]) -> Workplace:
    """Make a state directory with settings and genesis, and open it.

    Raises :class:`ConfigError` (``settings-exist``, ``wrong-setting``) and what :func:`keep_genesis` raises.
    """
    chain = keep_genesis(genesis, directory).chain
    urls = tuple(plain_url(url) for url in gateways)
    write_initial(kind(chain=chain, node=plain_url(node), gateways=urls), directory)
    return open_workplace(kind, directory)


def plain_url(url: str) -> str:
    """Return a URL without a slash at its end."""
    return url.rstrip("/")


def seconds_of(span: str) -> int:
    """Return the seconds in a span like ``90d``, ``12h``, ``30m`` or ``45s``; :class:`ConfigError` (``bad-span``)."""
    found = _SPAN.fullmatch(span)
    if not found or int(found[1]) == 0:
        raise ConfigError("bad-span", f"{span!r} is no span of time", hint="a number with s, m, h or d, such as 90d")
    return int(found[1]) * _UNITS[found[2]]


def identifier_of(text: str, what: str, size: int = 16) -> bytes:
    """Return the bytes of an id written in hexadecimal; :class:`ConfigError` (``bad-identifier``)."""
    if not re.fullmatch(f"[0-9a-fA-F]{{{2 * size}}}", text):
        raise ConfigError("bad-identifier", f"{text!r:.80} is no {what}", hint=f"{2 * size} hexadecimal digits")
    return bytes.fromhex(text)
