"""The soft USIM at a supplicant's control interface: answers what wpa_supplicant or eapol_test asks a card.

    CTRL-REQ-SIM-<id>:UMTS-AUTH:<rand>:<autn> ...     →  CTRL-RSP-SIM-<id>:UMTS-AUTH:<ik>:<ck>:<res>
                                                         CTRL-RSP-SIM-<id>:UMTS-AUTS:<auts>
                                                         CTRL-RSP-SIM-<id>:UMTS-FAIL

SQN is on the disk before RES leaves.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import replace

from firstlight.access.control_socket import ControlSocket
from firstlight.access.ports import SimStore
from firstlight.errors import AccessError
from firstlight.sim import aka
from firstlight.sim.aka import Accepted, SyncFailure

_ASKED = re.compile(r"CTRL-REQ-SIM-(\d{1,6}):UMTS-AUTH:([0-9a-f]{32}):([0-9a-f]{32})\b")
Separation = Callable[[bytes], bool]


class SupplicantUsim:
    """A USIM that speaks to one supplicant."""

    def __init__(self, control: ControlSocket, store: SimStore, *, separated: bool = True) -> None:
        """Answer over ``control`` with the USIM in ``store``.

        With ``separated`` it takes only challenges made for AKA' (the separation bit of AMF, TS 33.102 Annex H).
        """
        self._control = control
        self._store = store
        self._separated = separated
        self.verdicts: list[str] = []
        """What it made of each challenge: ``accepted``, ``resynchronising``, ``network-not-authentic``, …"""

    async def answer(self, event: str) -> bool:
        """Answer ``event`` if it is a question to the card, and say whether it was.

        Raises :class:`AccessError` (``daemon-silent``), :class:`firstlight.errors.StoreError`.
        """
        asked = _ASKED.match(event)
        if asked is None:
            return False
        said = await asyncio.to_thread(self._said, bytes.fromhex(asked[2]), bytes.fromhex(asked[3]))
        answer = await self._control.ask(f"CTRL-RSP-SIM-{asked[1]}:{said}")
        if answer != "OK":
            raise AccessError("daemon-refused", "the card's answer")
        return True

    def _said(self, rand: bytes, autn: bytes) -> str:
        if self._separated and not aka.separated(autn):
            return self._verdict("separation-missing", "UMTS-FAIL")
        sim = self._store.load()
        own = sim.credentials
        result = aka.answer(own.k, own.opc, sim.sequence, rand, autn)
        if isinstance(result, Accepted):
            self._store.save(replace(sim, sequence=result.sequence))
            return self._verdict("accepted", f"UMTS-AUTH:{result.ik.hex()}:{result.ck.hex()}:{result.res.hex()}")
        if isinstance(result, SyncFailure):
            return self._verdict("resynchronising", f"UMTS-AUTS:{result.auts.hex()}")
        return self._verdict("network-not-authentic", "UMTS-FAIL")

    def _verdict(self, verdict: str, said: str) -> str:
        self.verdicts.append(verdict)
        return said
