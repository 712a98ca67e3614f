"""Attaching wherever a grant says: the scheme of its endpoint tells how."""

from __future__ import annotations

from collections.abc import Mapping

from firstlight.access.device.network_embedded import EmbeddedNetworkAccess
from firstlight.access.device.network_wired import WiredNetworkAccess
from firstlight.access.ports import Attachment, Naming, NetworkAccess, SimStore, TlsCredentials
from firstlight.errors import AccessError
from firstlight.ports import Random


class AnyNetworkAccess:
    """A :class:`firstlight.access.ports.NetworkAccess` that leaves it to one for the scheme of the endpoint."""

    def __init__(self, kinds: Mapping[str, NetworkAccess]) -> None:
        """Attach by ``kinds``, by scheme."""
        self._kinds = kinds

    @classmethod
    def real(cls, random: Random) -> AnyNetworkAccess:
        """Return what real devices attach with: the embedded network, and wired ports."""
        return cls({"tcp": EmbeddedNetworkAccess(random), "wired": WiredNetworkAccess(random)})

    async def attach(self, store: SimStore, naming: Naming | None = None) -> Attachment:
        """Attach; errors as the port, ``attach-malformed`` for a scheme that none is for."""
        return await self._kind(store.load().access).attach(store, naming)

    async def enter(self, own: TlsCredentials) -> Attachment:
        """Attach with a certificate; errors as the port, ``attach-malformed`` for a scheme that none is for."""
        return await self._kind(own.access).enter(own)

    def _kind(self, access: str) -> NetworkAccess:
        scheme = access.partition("://")[0]
        kind = self._kinds.get(scheme)
        if kind is None:
            raise AccessError("attach-malformed", f"no way to attach at {scheme}://")
        return kind
