"""Every verifier numbers its checks, each check has an id of its own, and no refusal stands outside of them."""

from __future__ import annotations

from collections import Counter

import pytest
from scripts.checks import Check, checks, strays

ALL = checks()

NO_REFUSAL = {"onboarding.party.16": "what is committed, and how: nothing is refused there"}

OUTSIDE = {
    "peers": "what a peer that is away, busy or talks nonsense does to whoever called it: there is nothing to let in",
    "bounds": "bounds on how much is taken on at once, tested under load",
    "misuse": "a program's own mistake, not an enemy's: no bytes from outside lead there",
    "inside": "becomes another code one step further up, where it is a check",
}
"""Why a refusal can stand outside all numbered checks."""

STRAYS = {
    "access.control_socket.ControlSocket.__init__": "peers",
    "access.control_socket.ControlSocket._send": "peers",
    "access.control_socket.ControlSocket.ask": "peers",
    "access.control_socket.ControlSocket.attach": "peers",
    "access.device.eapol_test._drive": "peers",
    "access.device.network_any.AnyNetworkAccess._kind": "peers",
    "access.device.network_embedded.EmbeddedNetworkAccess.attach": "peers",
    "access.device.network_embedded._Run._answer": "peers",
    "access.device.network_embedded._Run._receive": "peers",
    "access.device.network_embedded._host_port": "peers",
    "access.device.network_wired.WiredNetworkAccess.attach": "peers",
    "access.device.network_wired._refused": "peers",
    "access.device.service_dial._negotiate": "peers",
    "access.device.service_dial.closed_on_failure": "peers",
    "access.device.service_dial.ask_forwarder": "peers",
    "access.device.service_dial.socks_address": "peers",
    "access.device.service_session.connect": "peers",
    "access.device.service_session.client_context": "misuse",
    "access.device.service_session._secure": "peers",
    "access.device.service_session._greet": "peers",
    "access.device.service_session.Session.publish": "peers",
    "access.device.service_session.Session._listen": "peers",
    "access.device.service_wire.publish": "misuse",
    "access.device.service_wire.Decoder.feed": "peers",
    "access.device.usim_supplicant.SupplicantUsim.answer": "peers",
    "access.serving.aka_socket.AkaSocket.start": "misuse",
    "access.serving.daemons.Daemon._death": "peers",
    "access.serving.daemons.Daemon._wait_ready": "peers",
    "access.serving.daemons.Daemon.start": "misuse",
    "access.serving.daemons.Program.find": "misuse",
    "access.serving.forwarder.Forwarder._serve": "bounds",
    "access.serving.forwarder.Forwarder._forward": "peers",
    "access.serving.forwarder.Forwarder._associate": "peers",
    "access.serving.forwarder.Forwarder._counted": "bounds",
    "access.serving.gsup_client.GsupClient._exchange": "peers",
    "access.serving.gsup_client.GsupClient._lost": "peers",
    "access.serving.gsup_client.GsupClient.ask": "peers",
    "access.serving.gsup_client.GsupClient.ready": "peers",
    "access.serving.hostapd.EapServer.daemon": "misuse",
    "access.serving.hostapd.configured": "misuse",
    "access.serving.network_embedded.EmbeddedNetwork.start": "misuse",
    "access.serving.network_embedded.EmbeddedNetwork._admitted": "bounds",
    "access.serving.network_hostapd.HostapdNetwork.server": "misuse",
    "access.serving.osmo_hlr.OsmoHlr._run": "peers",
    "access.serving.osmo_hlr.OsmoHlr.pid": "misuse",
    "access.serving.osmo_hlr_centre.OsmoAuthenticationCentre._tell": "peers",
    "access.serving.osmo_hlr_centre.OsmoAuthenticationCentre._try": "peers",
    "access.serving.osmo_hlr_centre.OsmoAuthenticationCentre.resynchronise": "peers",
    "access.serving.osmo_hlr_centre.OsmoAuthenticationCentre.vector": "peers",
    "access.serving.port_guard.PortGuard.open": "misuse",
    "access.serving.port_guard.nft": "misuse",
    "access.serving.radius_front.RadiusFront._forget_idle": "bounds",
    "access.serving.radius_front.RadiusFront.start": "misuse",
    "access.serving.service_broker.EmbeddedBroker.endpoint": "misuse",
    "access.serving.service_broker.EmbeddedBroker.start": "misuse",
    "access.device.eap_tls.tls_settings": "misuse",
    "access.device.network_embedded.EmbeddedNetworkAccess.enter": "peers",
    "access.device.network_wired.WiredNetworkAccess._attached": "peers",
    "access.device.network_wired._Line.renew": "peers",
    "access.serving.eap_tls.HostapdTls.daemon": "misuse",
    "access.serving.eap_tls.FreeradiusTls.daemon": "misuse",
    "access.serving.network_tls.TlsBackend.subscriber": "inside",
    "access.serving.service_mosquitto._lock": "peers",
    "access.serving.service_mosquitto.MosquittoBroker.endpoint": "misuse",
    "access.serving.service_mosquitto.MosquittoBroker.pid": "misuse",
    "access.serving.service_mosquitto.MosquittoBroker.reload_crl": "peers",
    "access.serving.service_mosquitto._free_port": "misuse",
    "access.serving.service_subscriber.Entrance.enter": "peers",
    "access.serving.service_subscriber.Subscriber.start": "peers",
    "access.serving.service_subscriber.Subscriber._took": "peers",
    "access.serving.service_tls.server_context": "misuse",
    "access.serving.wired_ports.WiredPorts.daemon": "misuse",
    "access.serving.wired_ports._raise_interface": "misuse",
    "chain.ed25519.verify": "inside",
    "chain.light.Policy.__post_init__": "misuse",
    "chain.witness.nonce_proofs": "misuse",
    "chain.witness.witness": "misuse",
    "discovery.bundle.prove_state": "bounds",
    "discovery.machine.Discovery.receive": "misuse",
    "discovery.machine.Discovery._move": "misuse",
    "discovery.verify.verify_follow_up": "misuse",
    "engines.abci_state.Replica.check": "inside",
    "engines.cometbft.CometEngine.submit_soon": "inside",
    "engines.cometbft.CometEngine.view": "bounds",
    "engines.embedded.EmbeddedEngine._check": "misuse",
    "engines.embedded.EmbeddedEngine.view": "bounds",
    "engines.embedded.EmbeddedEngine._apply": "inside",
    "engines.embedded._apply_one": "inside",
    "enrolment.signing.SignerKey.sign": "misuse",
    "enrolment.signing._kept": "misuse",
    "identity.manifest._narrow": "misuse",
    "ledger.rules.holding.next_number": "bounds",
    "ledger.rules.holding._counts_as.test": "inside",
    "ledger.state.genesis_records": "misuse",
    "ledger.tenure.Standing.key": "inside",
    "ledger.tenure._read": "inside",
    "onboarding.edhoc.keys.unseal": "inside",
    "onboarding.token.seal_token": "misuse",
    "plan.claims.new_plan": "misuse",
    "plan.claims.opening": "misuse",
    "roles.device.exchange.Exchange._finish": "peers",
    "roles.device.finding.find": "peers",
    "roles.device.finding.acted_on": "inside",
    "roles.device.journey.Journey._hand_over": "peers",
    "roles.device.journey.Journey._until_lost.lost": "peers",
    "roles.device.network.Network.attach": "misuse",
    "roles.device.network.Network._exchange": "misuse",
    "roles.device.network.Network._store": "peers",
    "roles.device.proving.prove": "peers",
    "roles.device.service.Service._exchange": "misuse",
    "roles.device.service.Service._access": "peers",
    "roles.device.service.Service._stay": "peers",
    "roles.device.service._endpoint": "peers",
    "roles.device.unit.Unit.acting": "inside",
    "roles.gateway.deposits._tenures": "bounds",
    "roles.gateway.ledger.GatewayLedger.records": "bounds",
    "roles.gateway.ledger._remembered": "misuse",
    "roles.ledger_client.LedgerClient.submit": "peers",
    "roles.owner.collect.Collector._key": "misuse",
    "roles.owner.deploy._Run._whole": "misuse",
    "roles.owner.deploy._Run._part": "misuse",
    "roles.owner.orders.order": "misuse",
    "roles.party.view.Head.value": "misuse",
    "roles.party.view.PartyView.at": "bounds",
    "roles.party.view.PartyView._own": "inside",
    "roles.party.view._owned": "inside",
    "roles.party.workers.Workers.answering": "misuse",
    "roles.survey.survey": "misuse",
    "roles.survey._Walk._standing": "inside",
    "roles.trade.newest_tenure": "misuse",
    "roles.witness.Witness._conflict": "inside",
    "stores.subscriptions.Subscriptions.allocate": "bounds",
}
"""The functions that refuse outside all numbered checks, and why they may."""


def test_each_check_has_an_id_of_its_own() -> None:
    twice = [one for one, count in Counter(check.id for check in ALL).items() if count > 1]
    assert not twice
    assert len(ALL) > 250


@pytest.mark.parametrize("check", [one for one in ALL if one.id not in NO_REFUSAL], ids=lambda check: check.id)
def test_each_check_says_how_it_refuses(check: Check) -> None:
    assert check.ways, f"name the code, or the function that makes the check: {check.text}"
    assert len(set(check.ways)) == len(check.ways)


def test_checks_are_numbered_without_a_gap() -> None:
    by_verifier: dict[str, list[int]] = {}
    for check in ALL:
        by_verifier.setdefault(check.verifier, []).append(check.number)
    assert not {name: found for name, found in by_verifier.items() if found != list(range(1, len(found) + 1))}


def test_no_refusal_stands_outside_the_numbered_checks() -> None:
    found = {name: codes for name, codes in strays().items() if not name.startswith(("bench.", "cli.", "testing."))}
    more = {name: codes for name, codes in found.items() if name not in STRAYS}
    assert not more, "number the check in its verifier's docstring, or say why it is none"
    assert set(STRAYS) == set(found), "these refuse no more, or within a check"
    assert set(STRAYS.values()) == set(OUTSIDE)
