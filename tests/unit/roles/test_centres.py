"""Which authentication centre an operator's settings ask for, and where a register is that runs already."""

from dataclasses import replace
from pathlib import Path

import pytest

from firstlight.access.serving.osmo_hlr import HlrAddress, configuration, draw_loopback
from firstlight.errors import ConfigError
from firstlight.roles.party.centres import address_of
from firstlight.settings import MnoSettings, parse

SETTINGS = MnoSettings(chain="it", node="http://127.0.0.1:1", hlr="osmo")


def test_without_an_address_the_register_is_ours_to_run() -> None:
    assert address_of(SETTINGS) is None


def test_an_address_is_a_server_and_its_database() -> None:
    settings = replace(SETTINGS, hlr_server="127.0.0.2:4222", hlr_database="/var/lib/osmocom/hlr.db")
    assert address_of(settings) == HlrAddress("127.0.0.2", 4222, Path("/var/lib/osmocom/hlr.db"))


@pytest.mark.parametrize("half", [{"hlr_server": "127.0.0.2:4222"}, {"hlr_database": "/it"}])
def test_half_an_address_is_none(half: dict[str, str]) -> None:
    with pytest.raises(ConfigError) as error:
        address_of(replace(SETTINGS, **half))
    assert error.value.code == "hlr-settings"


@pytest.mark.parametrize(
    "line", ['hlr = "theirs"', 'hlr_server = "nowhere"', 'hlr_server = "a:0"', 'hlr_database = "hlr.db"', "hlr = 1"]
)
def test_other_settings_are_refused(line: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse(MnoSettings, f'chain = "it"\nnode = "http://127.0.0.1:1"\n{line}\n'.encode(), "it")
    assert error.value.code == "wrong-setting"


def test_a_register_of_ours_logs_nothing_and_listens_on_one_address_behind_a_password() -> None:
    text = configuration("127.64.1.2", "secret")
    assert text.count("127.64.1.2") == 3
    assert "127.0.0.1" not in text
    assert "logging level set-all fatal" in text
    assert text.startswith("password secret\n")
    assert "line vty\n login\n" in text


def test_a_loopback_address_of_its_own_is_outside_of_what_others_use() -> None:
    drawn = {draw_loopback() for _ in range(50)}
    assert len(drawn) > 40
    for one in drawn:
        first, second, third, fourth = map(int, one.split("."))
        assert (first, 64 <= second < 128) == (127, True)
        assert 0 <= third <= 255
        assert 0 <= fourth <= 255
