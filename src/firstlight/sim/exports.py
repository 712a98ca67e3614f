"""Subscriptions in the forms in which other home registers take them; each holds K and OPc.

- osmo-hlr: SQL for its database (OsmoHLR ``sql/hlr.sql``, version 6), as one transaction that may be loaded again.
- Open5GS: documents for the collection ``subscribers`` (``schema_version`` 1, as ``open5gs-dbctl add`` makes them and
  ``webui/server/models/subscriber.js`` types them), one a line in MongoDB's Extended JSON v2: ``mongoimport``.
- free5GC: bodies for its web console, ``POST /api/subscriber/<ueId>/<plmnID>`` (``AuthenticationSubscription``, after
  3GPP TS 29.505, §5.2.2.2), one a line.
- srsRAN 4G: ``user_db.csv`` of srsepc, ten columns as ``hss.cc`` reads them.

The sequence number is the first that has not been used. Slices, rates and access points are those that these programs
take by default; an operator changes them where they are his.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from firstlight.sim.aka import AMF_SEPARATION
from firstlight.sim.subscription import Credentials

_AMF = AMF_SEPARATION.hex()
_ARP = {"priority_level": 8, "pre_emption_capability": 1, "pre_emption_vulnerability": 1}
_RATES = {"downlink": {"value": 1, "unit": 3}, "uplink": {"value": 1, "unit": 3}}
"""1 Gbit/s."""
_CLEAR = {"encryptionKey": 0, "encryptionAlgorithm": 0}


@dataclass(frozen=True, slots=True)
class Exported:
    """A subscription to be exported: ``sqn`` is the first number that has not been used (48 bits)."""

    credentials: Credentials = field(repr=False)
    plmn: str
    sqn: int


def osmo_hlr(subscriptions: Iterable[Exported]) -> Iterator[str]:
    """Yield SQL for osmo-hlr."""
    yield "BEGIN IMMEDIATE;\n"
    for one in subscriptions:
        own = one.credentials
        yield (
            f"INSERT INTO subscriber (imsi, nam_cs, nam_ps) VALUES ('{own.imsi}', 0, 1) ON CONFLICT DO NOTHING;\n"  # noqa: S608
            "INSERT OR REPLACE INTO auc_3g (subscriber_id, algo_id_3g, k, op, opc, sqn, ind_bitlen)\n"
            f"  SELECT id, 5, '{own.k.hex()}', NULL, '{own.opc.hex()}', {one.sqn}, 5 FROM subscriber"
            f" WHERE imsi = '{own.imsi}';\n"
        )
    yield "COMMIT;\n"


def open5gs(subscriptions: Iterable[Exported]) -> Iterator[str]:
    """Yield documents for Open5GS."""
    for one in subscriptions:
        own = one.credentials
        session = {"name": "internet", "type": 3, "qos": {"index": 9, "arp": _ARP}, "ambr": _RATES, "pcc_rule": []}
        document = {
            "schema_version": 1,
            "imsi": own.imsi,
            "msisdn": [],
            "imeisv": [],
            "mme_host": [],
            "mm_realm": [],
            "purge_flag": [],
            "security": {
                "k": own.k.hex(),
                "op": None,
                "opc": own.opc.hex(),
                "amf": _AMF,
                "sqn": {"$numberLong": str(one.sqn)},
            },
            "ambr": _RATES,
            "slice": [{"sst": 1, "default_indicator": True, "session": [session]}],
            "access_restriction_data": 32,
            "network_access_mode": 0,
            "subscriber_status": 0,
            "subscribed_rau_tau_timer": 12,
            "__v": 0,
        }
        yield json.dumps(document) + "\n"


def free5gc(subscriptions: Iterable[Exported]) -> Iterator[str]:
    """Yield bodies for free5GC's web console."""
    for one in subscriptions:
        own = one.credentials
        body = {
            "plmnID": one.plmn,
            "ueId": f"imsi-{own.imsi}",
            "AuthenticationSubscription": {
                "authenticationMethod": "5G_AKA",
                "permanentKey": {"permanentKeyValue": own.k.hex(), **_CLEAR},
                "sequenceNumber": f"{one.sqn:012x}",
                "authenticationManagementField": _AMF,
                "milenage": {"op": {"opValue": "", **_CLEAR}},
                "opc": {"opcValue": own.opc.hex(), **_CLEAR},
            },
        }
        yield json.dumps(body) + "\n"


def srsran(subscriptions: Iterable[Exported]) -> Iterator[str]:
    """Yield lines for srsRAN 4G."""
    yield "# Name,Auth,IMSI,Key,OP_Type,OP/OPc,AMF,SQN,QCI,IP_alloc\n"
    for number, one in enumerate(subscriptions, 1):
        own = one.credentials
        yield f"ue{number},mil,{own.imsi},{own.k.hex()},opc,{own.opc.hex()},{_AMF},{one.sqn:012x},9,dynamic\n"


Form = Callable[[Iterable[Exported]], Iterator[str]]
FORMS: Mapping[str, Form] = MappingProxyType(
    {"osmo-hlr": osmo_hlr, "open5gs": open5gs, "free5gc": free5gc, "srsran": srsran}
)
