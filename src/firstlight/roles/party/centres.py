"""Who makes an operator's vectors: its settings say so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from firstlight.access.serving.authentication_centre import StoredAuthenticationCentre
from firstlight.access.serving.osmo_hlr import HlrAddress, OsmoHlr, RunningHlr
from firstlight.access.serving.osmo_hlr_centre import OsmoAuthenticationCentre
from firstlight.errors import ConfigError
from firstlight.logs import Log
from firstlight.roles.party.place import Place
from firstlight.settings import MnoSettings
from firstlight.stores import subscriber_changes
from firstlight.stores.osmo_hlr import HlrDatabase
from firstlight.stores.subscriber_changes import SubscriberChanges
from firstlight.stores.subscriptions import Subscriptions

DIRECTORY = "hlr"
"""Where a register of our own has its files, in the operator's state directory."""


def centre_of(
    place: Place[MnoSettings], store: Subscriptions, log: Log, on_first_use: Callable[[bytes], None]
) -> StoredAuthenticationCentre:
    """Return the authentication centre that the settings ask for, not started yet.

    Raises :class:`ConfigError` (``hlr-settings``), :class:`firstlight.errors.StoreError` (``database-unusable``).
    """
    settings = place.settings
    if settings.hlr == "own":
        subscriber_changes.forget(place.database)
        return StoredAuthenticationCentre(store, random=place.random, clock=place.clock, on_first_use=on_first_use)

    def report(code: str) -> None:
        log.info(code, step="hlr")

    address = address_of(settings)
    hlr = OsmoHlr(place.directory / DIRECTORY, report) if address is None else RunningHlr(address)
    return OsmoAuthenticationCentre(
        store,
        SubscriberChanges.open(place.database),
        hlr,
        lambda: HlrDatabase.open(hlr.database),
        random=place.random,
        clock=place.clock,
        on_first_use=on_first_use,
        report=report,
        exclusive=address is None,
    )


def address_of(settings: MnoSettings) -> HlrAddress | None:
    """Return where a register runs already; None if it is ours to run. Raises :class:`ConfigError` as above."""
    server, database = settings.hlr_server, settings.hlr_database
    if server is None and database is None:
        return None
    if server is None or database is None:
        hint = "set both, or none to have an osmo-hlr run as a child"
        raise ConfigError("hlr-settings", "hlr_server and hlr_database belong together", hint=hint)
    host, port = server.rsplit(":", 1)
    return HlrAddress(host, int(port), Path(database))


__all__ = ["DIRECTORY", "address_of", "centre_of"]
