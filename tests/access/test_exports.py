"""What `mno export` writes: osmo-hlr's is loaded into osmo-hlr and attached with, the others hold to their documents.

The documented forms: Open5GS `docs/_docs` and `webui/server/models/subscriber.js` with `misc/db/open5gs-dbctl` (the
document that `add` inserts) and MongoDB's Extended JSON v2; free5GC's web console, whose `subscribers.sh` samples post
`AuthenticationSubscription` to `/api/subscriber/<ueId>/<plmnID>`; srsRAN 4G's `srsepc/user_db.csv.example` and
`hss::read_db_file`, which takes ten columns and no others. None of the three is in Debian 12.
"""

import asyncio
import contextlib
import csv
import json
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from firstlight.access.device.eapol_test import RadiusServer, authenticate
from firstlight.access.ports import Traffic
from firstlight.access.serving.daemons import EAPOL_TEST, HOSTAPD, OSMO_HLR
from firstlight.access.serving.gsup import AskVectors, Vectors
from firstlight.access.serving.gsup_client import GsupClient
from firstlight.access.serving.network_hostapd import AkaBackend, HostapdNetwork, HostapdSettings
from firstlight.access.serving.osmo_hlr import OsmoHlr
from firstlight.errors import AccessError
from firstlight.settings import MnoSettings, write_initial
from firstlight.sim import aka
from firstlight.sim.aka import Sequence, Vector
from firstlight.sim.exports import FORMS
from firstlight.sim.subscription import Credentials, SimGrant, SoftSim, Subscription, SubscriptionStatus
from firstlight.stores.subscriptions import Subscriptions
from firstlight.testing.access_network import HOME, LONG, MemorySim
from firstlight.testing.hostapd_world import needs
from firstlight.testing.random import SeededRandom

RANDOM = SeededRandom("exports")
SQN = 77 << 5 | 13
USED = [Credentials(f"00101{number:010}", RANDOM.bytes(16), RANDOM.bytes(16)) for number in range(1, 7)]
PENDING, SUSPENDED, ENDED, LATE, PROVEN, SPENT = USED
LIVING = (PENDING, LATE, PROVEN, SPENT)


@pytest.fixture
def operator(tmp_path: Path) -> Path:
    """An operator's directory with subscriptions in every state."""
    state = tmp_path / "mno"
    write_initial(MnoSettings(chain="exports", node="http://127.0.0.1:1"), state)
    with contextlib.closing(Subscriptions.open(state / "mno.sqlite")) as store:
        for number, own in enumerate(USED):
            sqn = aka.SQN_MAX if own is SPENT else SQN
            status = SubscriptionStatus.PENDING
            store.add(Subscription(own, sqn, status, number.to_bytes(16), number.to_bytes(16)))
        store.suspend((1).to_bytes(16))
        store.end((2).to_bytes(16))
        store.note_accepted(PROVEN.imsi, 500 << 5 | 1)
    return state


def export(state: Path, form: str, output: Path) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "firstlight", "mno", "export", str(state), str(output), "--format", form, "--json"]
    return subprocess.run(words, capture_output=True, text=True, check=False)


def exported(state: Path, form: str) -> Path:
    output = state.parent / f"out.{form}"
    done = export(state, form, output)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"format": form, "subscriptions": len(LIVING), "output": str(output)}
    return output


def unused(own: Credentials) -> int:
    return {PROVEN: aka.next_sqn(500 << 5 | 1), SPENT: aka.SQN_MAX}.get(own, aka.next_sqn(SQN))


@pytest.mark.parametrize("form", FORMS)
def test_an_export_is_the_operators_alone_and_holds_those_who_may_be_served(operator: Path, form: str) -> None:
    before = Path(operator / "mno.sqlite").read_bytes()
    with contextlib.closing(Subscriptions.open(operator / "mno.sqlite")):  # as the running server has it open
        output = exported(operator, form)
    assert output.stat().st_mode & 0o777 == 0o600
    text = output.read_text("ascii")
    for own in USED:
        assert (own.k.hex() in text) == (own.opc.hex() in text) == (own.imsi in text) == (own in LIVING), own.imsi
    assert sorted(one.name for one in operator.parent.iterdir()) == ["mno", output.name]
    assert Path(operator / "mno.sqlite").read_bytes() == before


def test_no_file_is_overwritten_and_nothing_is_printed(operator: Path) -> None:
    output = exported(operator, "srsran")
    before = output.read_bytes()
    done = export(operator, "open5gs", output)
    assert done.returncode == 1
    assert json.loads(done.stderr)["code"] == "file-exists"
    assert output.read_bytes() == before
    for form, at in (("nobodys", operator.parent / "other"), ("srsran", operator / "none" / "other")):
        done = export(operator, form, at)
        assert done.returncode in (1, 2)
        assert not at.exists()
        assert not [own for own in USED if own.k.hex() in done.stdout + done.stderr]


# --- osmo-hlr -------------------------------------------------------------------------------------


class Elsewhere:
    """An operator that has its subscribers in osmo-hlr alone."""

    def __init__(self, client: GsupClient) -> None:
        self._client = client

    async def vector(self, imsi: str) -> Vector:
        return await self._ask(AskVectors(imsi))

    async def resynchronise(self, imsi: str, rand: bytes, auts: bytes) -> None:
        await self._ask(AskVectors(imsi, resync=(rand, auts)))

    async def confirm(self, imsi: str, session: bytes) -> None:
        pass

    async def ended(self, session: bytes, traffic: Traffic) -> None:
        pass

    async def _ask(self, question: AskVectors) -> Vector:
        answer = await self._client.ask(question)
        if not isinstance(answer, Vectors):
            raise AccessError("unknown-subscriber")
        return answer.vectors[0]


def test_devices_attach_at_an_osmo_hlr_that_has_loaded_the_export(operator: Path, tmp_path: Path) -> None:
    needs(HOSTAPD, EAPOL_TEST, OSMO_HLR)
    script = exported(operator, "osmo-hlr").read_text()
    outcomes: list[str] = []

    async def test() -> None:
        hlr = OsmoHlr(tmp_path / "hlr")
        client = GsupClient(hlr.dial)
        centre = Elsewhere(client)
        backend = AkaBackend(centre, outcomes.append)
        settings = HostapdSettings(tmp_path / "access")
        network = HostapdNetwork(
            settings, backend=backend, users=centre, log=centre, random=RANDOM, report=outcomes.append
        )
        try:
            await hlr.start()
            for _ in range(2):  # loading it again changes nothing
                with contextlib.closing(sqlite3.connect(hlr.database)) as database:
                    database.executescript(script)
            await client.start()
            await client.ready()
            await network.start()
            server = RadiusServer("127.0.0.1", network.radius_port, network.secret)

            async def attach(own: Credentials, used: int) -> tuple[bool, tuple[str, ...]]:
                sim = SoftSim.from_grant(SimGrant(own.imsi, HOME, "WLAN", network.endpoint), own)
                slots = tuple(used >> 5 for _ in range(aka.SLOTS))
                outcome = await authenticate(server, MemorySim(replace(sim, sequence=Sequence(slots))), own.imsi)
                return outcome.success, outcome.verdicts

            for own, used in ((PENDING, SQN), (LATE, SQN), (PROVEN, 500 << 5)):
                assert await attach(own, used) == (True, ("accepted",)), "it counts on, without resynchronisation"
            for own in (SUSPENDED, ENDED):
                assert await attach(own, SQN) == (False, ())
            thief = replace(PENDING, k=bytes(16))
            assert await attach(thief, SQN) == (False, ("network-not-authentic",))
        finally:
            await network.close()
            await client.close()
            await hlr.close()

    asyncio.run(asyncio.wait_for(test(), LONG))


# --- the others -----------------------------------------------------------------------------------

NUMBER, LONG_NUMBER, TEXT, NONE, FLAG = "number", "long", "text", "none", "flag"
RATE = {"value": NUMBER, "unit": NUMBER}
RATES = {"downlink": RATE, "uplink": RATE}
SUBSCRIBER = {
    "schema_version": NUMBER,
    "imsi": TEXT,
    **{key: [] for key in ("msisdn", "imeisv", "mme_host", "mm_realm", "purge_flag")},
    "security": {"k": TEXT, "op": NONE, "opc": TEXT, "amf": TEXT, "sqn": LONG_NUMBER},
    "ambr": RATES,
    "slice": [
        {
            "sst": NUMBER,
            "default_indicator": FLAG,
            "session": [
                {
                    "name": TEXT,
                    "type": NUMBER,
                    "qos": {
                        "index": NUMBER,
                        "arp": dict.fromkeys(
                            ("priority_level", "pre_emption_capability", "pre_emption_vulnerability"), NUMBER
                        ),
                    },
                    "ambr": RATES,
                    "pcc_rule": [],
                }
            ],
        }
    ],
    **dict.fromkeys(("access_restriction_data", "network_access_mode", "subscriber_status"), NUMBER),
    **dict.fromkeys(("subscribed_rau_tau_timer", "__v"), NUMBER),
}
"""The types in Open5GS' model of a subscriber."""


def shape(value: object) -> object:
    """Return the types of an Extended JSON v2 document."""
    if isinstance(value, dict):
        if set(value) == {"$numberLong"}:
            assert -(2**63) <= int(value["$numberLong"]) < 2**63
            return LONG_NUMBER
        return {name: shape(item) for name, item in value.items()}
    if isinstance(value, list):
        return [shape(item) for item in value]
    if isinstance(value, bool):
        return FLAG
    return {int: NUMBER, str: TEXT, type(None): NONE}[type(value)]


def test_open5gs_documents_have_the_fields_and_types_of_its_model(operator: Path) -> None:
    documents = [json.loads(line) for line in exported(operator, "open5gs").read_text().splitlines()]
    assert [one["imsi"] for one in documents] == [own.imsi for own in LIVING]
    for one, own in zip(documents, LIVING, strict=True):
        assert shape(one) == SUBSCRIBER
        security = one["security"]
        assert (security["k"], security["opc"], security["amf"]) == (own.k.hex(), own.opc.hex(), "8000")
        assert int(security["sqn"]["$numberLong"]) == unused(own)


def test_free5gc_bodies_are_those_that_its_console_takes(operator: Path) -> None:
    bodies = [json.loads(line) for line in exported(operator, "free5gc").read_text().splitlines()]
    clear = {"encryptionKey": 0, "encryptionAlgorithm": 0}
    assert bodies == [
        {
            "plmnID": "00101",
            "ueId": f"imsi-{own.imsi}",
            "AuthenticationSubscription": {
                "authenticationMethod": "5G_AKA",
                "permanentKey": {"permanentKeyValue": own.k.hex(), **clear},
                "sequenceNumber": unused(own).to_bytes(6).hex(),
                "authenticationManagementField": "8000",
                "milenage": {"op": {"opValue": "", **clear}},
                "opc": {"opcValue": own.opc.hex(), **clear},
            },
        }
        for own in LIVING
    ]


def test_srsran_reads_ten_columns_a_subscriber(operator: Path) -> None:
    """As `hss::read_db_file` does: no line but comments has another number of columns, and no name comes twice."""
    text = exported(operator, "srsran").read_bytes()
    assert text.endswith(b"\n")
    assert b"\r" not in text
    assert b"\n\n" not in text
    lines = [line for line in text.decode("ascii").splitlines() if not line.startswith("#")]
    rows = list(csv.reader(lines))
    assert {len(row) for row in rows} == {10}
    assert len({row[0] for row in rows}) == len(LIVING)
    for (_, *row), own in zip(rows, LIVING, strict=True):
        sqn = f"{unused(own):012x}"
        assert row == ["mil", own.imsi, own.k.hex(), "opc", own.opc.hex(), "8000", sqn, "9", "dynamic"]
