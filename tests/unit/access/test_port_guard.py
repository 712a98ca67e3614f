"""The table that opens and shuts wired ports: what it says, and what it refuses to say."""

import asyncio

import pytest

from firstlight.access.serving import port_guard
from firstlight.access.serving.port_guard import PortGuard
from firstlight.errors import AccessError, ConfigError

MAC = "02:00:00:00:00:01"


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    scripts: list[str] = []

    async def nft(script: str) -> None:
        scripts.append(script)

    monkeypatch.setattr(port_guard, "nft", nft)
    return scripts


def test_a_port_that_nobody_has_opened_is_shut_and_the_lobby_is_not_a_way_round(said: list[str]) -> None:
    guard = PortGuard(["p0", "p1"], lobby=["198.18.0.1:80"], destinations=["198.18.0.1:*", "198.18.0.2:443", "name:*"])
    asyncio.run(guard.shut_all())
    (table,) = said
    assert 'set ports { type ifname; elements = { "p0", "p1" }; }' in table
    assert "set open { type ifname . ether_addr; }" in table
    assert "set outward { type ifname; }" in table
    assert "elements = { 198.18.0.1 . 80 };" in table
    assert "elements = { 198.18.0.1 };" in table
    assert "elements = { 198.18.0.2 . 443 };" in table
    assert "name" not in table.replace("ifname", "")
    assert "iifname . ether saddr @open jump attached\n    drop\n  }" in table
    assert "oifname @outward accept\n    drop\n  }" in table


def test_a_port_is_open_for_one_address_until_it_is_shut(said: list[str]) -> None:
    async def main() -> None:
        guard = PortGuard(["p0"], lobby=[], destinations=[])
        await guard.open("p0", MAC)
        assert guard.is_open("p0")
        await guard.open("p0", "02:00:00:00:00:02")
        await guard.shut("p0")
        assert not guard.is_open("p0")
        await guard.shut("p0")

    asyncio.run(main())
    first, second, third = said
    assert "delete" not in first
    assert f'delete element inet firstlight_p0 open {{ "p0" . {MAC} }}' in second
    assert 'add element inet firstlight_p0 open { "p0" . 02:00:00:00:00:02 }' in second
    assert "add" not in third
    assert third.count("delete element") == 2


@pytest.mark.parametrize("ports", [[], ['p0" } ; '], ["a" * 16], ["p0", "../p1"]])
def test_what_is_no_interface_is_no_port(ports: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        PortGuard(ports, lobby=[], destinations=[])
    assert caught.value.code == "bad-port"


@pytest.mark.parametrize("mac", ["", "02:00:00:00:00", f"{MAC} }} ; flush ruleset", MAC.upper() + "A"])
def test_what_is_no_hardware_address_opens_nothing(said: list[str], mac: str) -> None:
    guard = PortGuard(["p0"], lobby=[], destinations=[])
    with pytest.raises(AccessError) as caught:
        asyncio.run(guard.open("p0", mac))
    assert caught.value.code == "guard-failed"
    assert not said
