"""Writing an operator's subscriptions into a file that another home register loads."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from firstlight.files import write_pieces
from firstlight.roles.party.status import database_of
from firstlight.settings import MnoSettings, load
from firstlight.sim import aka
from firstlight.sim.exports import FORMS, Exported
from firstlight.stores.subscriptions import Subscriptions


def export(state_dir: Path, form: str, output: Path) -> int:
    """Write all subscriptions that may be used now to the new file ``output`` (0600); return how many.

    The server may run or not. Raises :class:`firstlight.errors.ConfigError` of the settings,
    :class:`firstlight.errors.StoreError` (``file-exists``, ``file-not-written``, ``database-unusable``).
    """
    settings = load(MnoSettings, state_dir)
    count = 0

    def counted(store: Subscriptions) -> Iterator[Exported]:
        nonlocal count
        for one in store.all_usable():
            used = max(one.sqn, store.accepted(one.credentials.imsi) or 0)
            count += 1
            yield Exported(one.credentials, settings.mcc + settings.mnc, _unused(used))

    with contextlib.closing(Subscriptions.open(database_of(MnoSettings, state_dir))) as store:
        write_pieces(output, (piece.encode("ascii") for piece in FORMS[form](counted(store))), exclusive=True)
    return count


def _unused(used: int) -> int:
    """Return the first number after ``used``; of a subscription whose numbers are used up, the last one."""
    try:
        return aka.next_sqn(used)
    except OverflowError:
        return used
