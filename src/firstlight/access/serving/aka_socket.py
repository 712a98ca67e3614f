"""The authentication centre as hostapd asks for it: lines over a UNIX datagram socket.

    hostapd                                              authentication centre
      | -- AKA-REQ-AUTH <name> --------------------------------> |
      | <-- AKA-RESP-AUTH <name> <rand> <autn> <ik> <ck> <res> - |   or AKA-RESP-AUTH <name> FAILURE
      | -- AKA-AUTS <name> <auts> <rand> ----------------------> |   no answer; a new request follows

A name is what an EAP identity holds between its first digit and the realm: an IMSI, or what stands for one. The socket
lies in a directory of the operator's alone; whoever can write to it could use up sequence numbers, no more.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from firstlight.access.control_socket import reachable
from firstlight.access.ports import AuthenticationCentre, Names
from firstlight.access.serving.copies import CopyWatch
from firstlight.access.serving.network_port import Report
from firstlight.errors import AccessError, FirstlightError, MalformedError
from firstlight.sim.aka import Vector

_LONGEST = 512
_MOST_WAITING = 1_024
_MOST_RUNS = 16_384
_REQUEST = re.compile(r"AKA-REQ-AUTH ([0-9]{1,20})")
_AUTS = re.compile(r"AKA-AUTS ([0-9]{1,20}) ([0-9a-f]{28}) ([0-9a-f]{32})")


class PlainNames(Names):
    """Names that are IMSIs: nothing is concealed."""

    async def imsi(self, name: str) -> str:
        """Return the name itself."""
        return name

    async def used(self, name: str, where: str) -> None:
        """Take no note: an IMSI may be used wherever its card is."""


@dataclass(frozen=True, slots=True)
class _Run:
    """What one authentication was given last, and how far the search for a copy is."""

    vector: Vector | None
    probing: bool
    probed: bool


class AkaSocket:
    """Answers for ``centre`` on a socket; requests for one name are answered one after the other."""

    def __init__(
        self,
        path: Path,
        centre: AuthenticationCentre,
        names: Names,
        report: Report,
        *,
        copies: CopyWatch | None = None,
    ) -> None:
        """Answer at ``path`` once started; ``report`` is told what became of each request.

        ``copies`` looks for subscriptions that a second device has too.
        """
        self._copies = copies
        self._runs: OrderedDict[str, _Run] = OrderedDict()
        self._path = path
        self._centre = centre
        self._names = names
        self._report = report
        self._socket: socket.socket | None = None
        self._last: dict[str, asyncio.Task[None]] = {}

    def start(self) -> None:
        """Listen; :class:`AccessError` (``port-unavailable``)."""
        one = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            self._path.unlink(missing_ok=True)
            with reachable(self._path) as name:
                one.bind(name)
        except OSError as error:
            one.close()
            raise AccessError("port-unavailable", f"{self._path.name}: {error.strerror or error}") from error
        self._socket = one
        asyncio.get_running_loop().add_reader(one, self._read)

    async def close(self) -> None:
        """Stop listening, and finish what was begun."""
        if self._socket is None:
            return
        asyncio.get_running_loop().remove_reader(self._socket)
        if self._last:
            await asyncio.wait(tuple(self._last.values()))
        self._socket.close()
        self._socket = None
        with contextlib.suppress(OSError):
            self._path.unlink()

    def _read(self) -> None:
        assert self._socket is not None
        with contextlib.suppress(OSError):
            while True:
                data, sender = self._socket.recvfrom(_LONGEST)
                text = data.decode("ascii", errors="replace").strip("\0\n ")
                request, auts = _REQUEST.fullmatch(text), _AUTS.fullmatch(text)
                if request is not None:
                    name = request[1]
                    self._after(name, partial(self._answer, name, sender))
                elif auts is not None:
                    name, given, rand = auts[1], bytes.fromhex(auts[2]), bytes.fromhex(auts[3])
                    self._after(name, partial(self._resynchronise, name, rand, given))
                else:
                    self._report("aka-request-malformed")

    def _after(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        """Begin ``work`` once what was asked for ``name`` before is done."""
        if len(self._last) >= _MOST_WAITING:
            self._report("network-busy")
            return
        before = self._last.get(name)

        async def run() -> None:
            if before is not None:
                await asyncio.wait([before])
            await work()

        task = asyncio.get_running_loop().create_task(run())
        self._last[name] = task
        task.add_done_callback(lambda done: self._last.pop(name) if self._last.get(name) is done else None)

    async def _answer(self, name: str, sender: object) -> None:
        try:
            vector = await self._next(name, await self._names.imsi(name))
        except FirstlightError as error:
            self._report(error.code)
            self._send(f"AKA-RESP-AUTH {name} FAILURE", sender)
            return
        self._report("vector")
        self._send(f"AKA-RESP-AUTH {name} {_shown(vector)}", sender)

    async def proven(self, name: str, imsi: str) -> None:
        """Take it that the device has answered what it was given last.

        1. It was given something (``unknown-subscriber``). 2. That was no number that its USIM has used up already
        (``subscription-copied``). Raises :class:`AccessError`.
        """
        run = self._runs.pop(name, None)
        if run is None or run.vector is None:
            raise AccessError("unknown-subscriber", "nothing was asked of this device")
        if self._copies is None:
            return
        if run.probing:
            await self._copies.copied(imsi)
            raise AccessError("subscription-copied", "two USIMs have accepted the same sequence number")
        await self._copies.accepted(imsi, run.vector)

    async def _next(self, name: str, imsi: str) -> Vector:
        """Return what the device is challenged with next: a number used up, if it has one, then the real one."""
        run = self._runs.get(name)
        probe = None
        if self._copies is not None and not (run is not None and run.probed):
            probe = await self._copies.probe(imsi)
        vector = probe or await self._centre.vector(imsi)
        self._runs[name] = _Run(vector, probe is not None, probed=False)
        self._runs.move_to_end(name)
        while len(self._runs) > _MOST_RUNS:
            self._runs.popitem(last=False)
        return vector

    async def _resynchronise(self, name: str, rand: bytes, auts: bytes) -> None:
        try:
            await self._centre.resynchronise(await self._names.imsi(name), rand, auts)
        except FirstlightError as error:
            self._report(error.code)
            self._look_no_further(name, error)
            return
        run = self._runs.get(name)
        if run is not None and run.probing and run.vector is not None and run.vector.rand == rand:
            self._runs[name] = _Run(None, probing=False, probed=True)
            self._report("usim-known")
        else:
            self._report("resynchronised")

    def _look_no_further(self, name: str, error: FirstlightError) -> None:
        """Ask for a real challenge next, which fails as this did, where it was not the device that failed."""
        run = self._runs.get(name)
        if run is not None and run.probing and error.code != "bad-auts":
            self._runs[name] = replace(run, probed=True)

    def _send(self, text: str, sender: object) -> None:
        if self._socket is None or not isinstance(sender, str | bytes):
            return
        with contextlib.suppress(OSError):
            self._socket.sendto(text.encode("ascii"), sender)


def _shown(vector: Vector) -> str:
    if not 4 <= len(vector.xres) <= 16:
        raise MalformedError("bad-vector", "a RES has 4 to 16 bytes")
    return " ".join(one.hex() for one in (vector.rand, vector.autn, vector.ik, vector.ck, vector.xres))
