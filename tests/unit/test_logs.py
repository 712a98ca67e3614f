import base64
import hashlib
import io
import json
import logging
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from firstlight import logs
from firstlight.errors import ConfigError, ProofError, StoreError
from firstlight.testing.clock import FakeClock


@pytest.fixture
def lines() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def log(lines: io.StringIO) -> logs.Log:
    return logs.Log("mno", FakeClock(1_800_000_000), lines)


def last(lines: io.StringIO) -> dict[str, object]:
    value = json.loads(lines.getvalue().splitlines()[-1])
    assert isinstance(value, dict)
    return value


def test_a_line_says_when_who_and_what(log: logs.Log, lines: io.StringIO) -> None:
    log.info("grant-issued", exchange=bytes(range(32)), height=7, ms=1.5, step=None)
    assert last(lines) == {
        "time": "2027-01-15T08:00:00.000000Z",
        "level": "info",
        "role": "mno",
        "code": "grant-issued",
        "exchange": "0001020304050607",
        "height": 7,
        "ms": 1.5,
    }


def test_levels_and_refusals(log: logs.Log, lines: io.StringIO) -> None:
    log.error("oops")
    assert last(lines)["level"] == "error"
    log.refusal(ProofError("bad-path", "too short"), exchange=b"\x01")
    assert last(lines) | {"time": 0} == {
        "time": 0,
        "level": "warning",
        "role": "mno",
        "code": "bad-path",
        "error": "ProofError",
        "detail": "too short",
        "exchange": "01",
    }


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("key", b"x"),
        ("salt", "x"),
        ("detail", b"secret"),
        ("height", b"\x01"),
        ("path", 3),
        ("exchange", 3),
        ("step", []),
    ],
)
def test_what_is_not_on_the_list_has_no_way_in(log: logs.Log, lines: io.StringIO, name: str, value: object) -> None:
    with pytest.raises(ConfigError) as caught:
        log.info("x", **{name: value})
    assert caught.value.code == "unloggable"
    assert lines.getvalue() == ""


def test_a_code_is_a_code(log: logs.Log) -> None:
    with pytest.raises(ConfigError):
        log.info("Not a code")


def test_no_secret_gets_through_in_text(log: logs.Log, lines: io.StringIO) -> None:
    key = hashlib.sha256(b"a key").digest()
    imsi = "001017012345678"
    for text in (
        key.hex(),
        key.hex().upper(),
        key[:16].hex(),
        imsi,
        base64.urlsafe_b64encode(key).decode().replace("-", "_"),
    ):
        log.info("x", detail=f"value {text} seen", exchange=text, url=f"http://h/{text}")
        assert text not in lines.getvalue()
    assert last(lines)["detail"] == "value … seen"


def test_identifiers_in_hexadecimal_are_cut_like_bytes(log: logs.Log, lines: io.StringIO) -> None:
    log.info("x", party="ab" * 16)
    assert last(lines)["party"] == "ab" * 8


def test_words_and_paths_stay_readable() -> None:
    for text in (
        "/srv/firstlight/state/gateway-of-the-north/gateway.toml",
        "a stable-kebab-code-of-many-many-words",
        "port 8080",
    ):
        assert logs.masked(text) == text


def test_long_text_is_cut_and_line_breaks_are_escaped(log: logs.Log, lines: io.StringIO) -> None:
    log.info("x", detail="a b\n" * 1000)
    assert len(lines.getvalue().splitlines()) == 1
    assert len(str(last(lines)["detail"])) == 240


def test_the_file_is_private_and_appended_to(tmp_path: Path) -> None:
    stderr = io.StringIO()
    for _ in range(2):
        logs.open_log(tmp_path / "state", "sp", FakeClock(), stderr=stderr).info("ready")
    path = tmp_path / "state" / "log.jsonl"
    assert len(path.read_text().splitlines()) == 2
    assert path.read_text() == stderr.getvalue()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_quiet_goes_to_the_file_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logs.open_log(tmp_path, "sp", FakeClock(), quiet=True).info("ready")
    assert capsys.readouterr().err == ""
    assert "ready" in (tmp_path / "log.jsonl").read_text()


def test_a_log_that_cannot_be_opened_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError) as caught:
        logs.open_log(tmp_path, "sp", FakeClock())
    assert caught.value.code == "file-not-written"


@pytest.fixture
def root_logger() -> Iterator[None]:
    root = logging.getLogger()
    kept, level = root.handlers[:], root.level
    yield
    root.handlers[:] = kept
    root.setLevel(level)


@pytest.mark.usefixtures("root_logger")
def test_libraries_log_into_ours(log: logs.Log, lines: io.StringIO) -> None:
    logs.adopt_libraries(log)
    logging.getLogger("lib").info("chatter")
    assert lines.getvalue() == ""
    try:
        raise ValueError("ab" * 32)
    except ValueError:
        logging.getLogger("lib").exception("failed with %s", "cd" * 32)
    assert last(lines) | {"time": 0} == {
        "time": 0,
        "level": "error",
        "role": "mno",
        "code": "library",
        "logger": "lib",
        "detail": "failed with …",
        "error": "ValueError",
    }
