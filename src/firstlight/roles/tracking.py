"""Heads that continue the chain which was followed so far: the light client beside the witnesses.

Witnesses and the validators of the root's epoch say which head is the newest (:mod:`firstlight.discovery.verify`). That
it continues the chain that somebody has seen (validators that were announced, height and time that move forward, never
a second header of one height) is what :func:`firstlight.chain.light.verify` says, from one head to the next.

The first head, and one after a silence that is longer than the trusting period, rests upon the root's epoch alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from firstlight.chain.light import Policy, Trusted
from firstlight.discovery.verify import View
from firstlight.errors import ConfigError, ProofError
from firstlight.files import read_if_there, write_atomic
from firstlight.ports import Clock
from firstlight.roles.following import follow_now, trusted
from firstlight.roles.wire import HeaderAnswer

MEMORY = "chain.cbor"


class Ledger(Protocol):
    """Whence verified views come, and headers unverified (:class:`firstlight.roles.ledger_client.LedgerClient`)."""

    @property
    def chain(self) -> str:
        """The chain's id."""
        ...

    def view(self, *names: str) -> View:
        """Open the newest head with a fresh nonce and prove ``names`` under it."""
        ...

    def follow(self, view: View, *names: str, batch: bytes | None = None, prefix: tuple[int, int] = (0, 0)) -> View:
        """Prove more under the head that ``view`` has opened."""
        ...

    def header(self, height: int) -> HeaderAnswer:
        """Return what somebody says is the header of ``height``."""
        ...


class Followed:
    """A ledger whose every head was followed to; to be asked by one thread at a time."""

    def __init__(self, ledger: Ledger, memory: Path, *, policy: Policy, clock: Clock) -> None:
        """Go on from what the file ``memory`` says.

        Raises :class:`ConfigError` (``wrong-chain``), :class:`StoreError`, :class:`MalformedError`.
        """
        self._ledger = ledger
        self._memory = memory
        self._policy = policy
        self._clock = clock
        self._known = _remembered(memory, ledger.chain)

    def view(self, *names: str) -> View:
        """Return a view of the newest head, once it has been followed to; what is learnt is kept first.

        1. It is not below the last one (``height-back``), 2. no second one of its height (``chain-forked``), 3. has the
        header that was proven (``wrong-header``), 4. which follows (:func:`firstlight.roles.following.path`). Raises
        :class:`ProofError`, and what the ledger raises.
        """
        view = self._ledger.view(*names)
        known = None if self._known is None else self._known.header
        if known is None or view.height > known.height:
            self._keep(self._reach(view))
        elif view.height < known.height:
            raise ProofError("height-back", f"height {view.height} after {known.height}")
        elif view.header_hash != known.hash():
            raise ProofError("chain-forked", f"two headers of height {view.height}")
        return view

    def follow(self, view: View, *names: str, batch: bytes | None = None, prefix: tuple[int, int] = (0, 0)) -> View:
        """Prove more under the head that ``view`` has opened; errors as the ledger's."""
        return self._ledger.follow(view, *names, batch=batch, prefix=prefix)

    def _reach(self, view: View) -> Trusted:
        target = self._ledger.header(view.height)
        if target.header.hash() != view.header_hash:
            raise ProofError("wrong-header", f"not the header of height {view.height} that was proven")
        now, known = self._clock.now(), self._known
        if known is None or known.header.time + self._policy.trusting_period <= now:
            return trusted(target)
        return follow_now(known, target, self._ledger.header, self._policy, now)

    def _keep(self, reached: Trusted) -> None:
        write_atomic(self._memory, reached.encode())
        self._known = reached


def _remembered(path: Path, chain: str) -> Trusted | None:
    data = read_if_there(path, Trusted.LIMIT)
    if data is None:
        return None
    kept = Trusted.decode(data)
    if kept.header.chain != chain:
        raise ConfigError("wrong-chain", f"{path} is of {kept.header.chain}")
    return kept
