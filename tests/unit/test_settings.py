import stat
from pathlib import Path

import pytest

from firstlight import settings
from firstlight.errors import ConfigError
from firstlight.settings import DeviceSettings, GatewaySettings, MnoSettings, NodeSettings, OwnerSettings

GATEWAY = GatewaySettings(
    chain="acme-1", name="north", node="http://127.0.0.1:9", witnesses=("http://w:1", "http://w:2")
)


def refused(kind: type[settings.Settings], text: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        settings.parse(kind, text.encode(), "x.toml")
    return caught.value


@pytest.mark.parametrize(
    "value",
    [
        GATEWAY,
        NodeSettings(chain="acme-1", port=4000),
        MnoSettings(chain="acme-1", node="http://127.0.0.1:9", gateway="http://127.0.0.1:8", mnc="12"),
        MnoSettings(chain="acme-1", node="http://127.0.0.1:9"),
        DeviceSettings(),
    ],
)
def test_what_is_written_reads_back(tmp_path: Path, value: settings.Settings) -> None:
    path = settings.write_initial(value, tmp_path / "state")
    assert settings.load(type(value), tmp_path / "state") == value
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.name == f"{value.ROLE}.toml"


def test_the_file_explains_itself() -> None:
    text = settings.render(GATEWAY)
    assert "# witness servers (a list of at most 32" in text
    assert 'witnesses = ["http://w:1", "http://w:2"]' in text


def test_every_role_has_its_own_class() -> None:
    names = "node witness gateway consortium manufacturer owner mno sp device"
    assert set(settings.ROLES) == set(names.split())
    for kind in settings.ROLES.values():
        assert settings._required(kind) is not None
        for hint in settings._hints(kind).values():
            assert settings.allowed(hint)
            assert settings._about(hint)


def test_an_unknown_key_names_line_and_what_is_allowed() -> None:
    error = refused(NodeSettings, 'chain = "a"\n\n# a comment\nprot = 1\n')
    assert error.code == "unknown-setting"
    assert "line 4: prot" in error.detail
    assert "port" in error.hint


def test_an_unknown_table_is_found_too() -> None:
    assert "line 2: tls" in refused(NodeSettings, 'chain = "a"\n[tls]\nkey = 1\n').detail


@pytest.mark.parametrize(
    ("line", "allowed"),
    [
        ("port = 65536", "from 0 to 65535"),
        ('port = "80"', "from 0 to 65535"),
        ("port = true", "from 0 to 65535"),
        ("port = 1.0", "from 0 to 65535"),
        ('host = "a b"', "text like"),
        ("host = []", "text like"),
    ],
)
def test_a_wrong_value_names_line_and_what_is_allowed(line: str, allowed: str) -> None:
    error = refused(NodeSettings, f'chain = "a"\n{line}\n')
    assert error.code == "wrong-setting"
    assert "x.toml, line 2" in error.detail
    assert allowed in error.hint


@pytest.mark.parametrize("value", ['["ftp://x"]', '"http://x"', "[1]", "[" + ",".join(['"http://x"'] * 33) + "]"])
def test_lists_are_checked_item_by_item(value: str) -> None:
    assert refused(OwnerSettings, f'chain = "a"\nnode = "http://n"\ngateways = {value}\n').code == "wrong-setting"


def test_missing_malformed_and_absent_have_codes(tmp_path: Path) -> None:
    assert refused(NodeSettings, "").code == "missing-setting"
    assert refused(NodeSettings, "chain = ").code == "bad-toml"
    with pytest.raises(ConfigError) as caught:
        settings.parse(NodeSettings, b"\xff", "x.toml")
    assert caught.value.code == "bad-toml"
    with pytest.raises(ConfigError) as caught:
        settings.load(NodeSettings, tmp_path)
    assert caught.value.code == "no-settings"
    assert "firstlight node init" in caught.value.hint


def test_a_device_needs_no_file(tmp_path: Path) -> None:
    assert settings.load(DeviceSettings, tmp_path) == DeviceSettings()


def test_existing_settings_are_kept(tmp_path: Path) -> None:
    settings.write_initial(GATEWAY, tmp_path)
    with pytest.raises(ConfigError) as caught:
        settings.write_initial(GATEWAY, tmp_path)
    assert caught.value.code == "settings-exist"


def test_values_that_would_not_read_back_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        settings.write_initial(NodeSettings(chain="Not A Chain"), tmp_path)
    assert caught.value.code == "wrong-setting"
    assert list(tmp_path.iterdir()) == []
