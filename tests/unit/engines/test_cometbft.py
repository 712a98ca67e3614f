"""The engine over a real CometBFT: its process, its home, what it does when others are away, and what it says then."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from firstlight.chain.rpc import SignedCommit
from firstlight.custody.system import SystemClock
from firstlight.engines import cometbft as engine_module
from firstlight.engines import cometbft_home
from firstlight.engines.cometbft import CometEngine
from firstlight.engines.cometbft_home import Peers, address, key_json, prepare
from firstlight.engines.cometbft_node import Running, running
from firstlight.engines.cometbft_process import find
from firstlight.engines.cometbft_rpc import Checked, Rpc
from firstlight.errors import ConfigError, FirstlightError, StoreError, TransportError
from firstlight.ledger.transaction import Kind, build, parse
from firstlight.logs import Log
from firstlight.testing.abci import Silent, driving, genesis_of
from firstlight.testing.chains import Consortium, P256Key
from firstlight.testing.clock import FakeClock
from firstlight.testing.comet import Network, network, secret_of, until
from firstlight.testing.ledgers import register_party

CONSORTIUM = Consortium.of(roots=2)
KEY = secret_of(CONSORTIUM.validators[0])


def registration(net: Network, name: str) -> bytes:
    key = P256Key(name)
    return build(
        register_party(key), chain=net.consortium.chain, sequence=1, signer=key, cosigners=[net.consortium.roots[0]]
    )


def code_of(engine: CometEngine, data: bytes) -> str:
    error = engine.submit_soon(data).exception(120)
    if error is None:
        return "ok"
    assert isinstance(error, FirstlightError)
    return error.code


@pytest.fixture(scope="module")
def net(cometbft: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    with network(tmp_path_factory.mktemp("one"), cometbft) as one:
        yield one


# --- the process ----------------------------------------------------------------------------------


def pids(net: Network) -> list[int]:
    return [json.loads(line)["pid"] for line in net.log.lines if '"code":"cometbft-started"' in line]


def gone(pid: int) -> bytes:
    return b"" if Path(f"/proc/{pid}").exists() else b"gone"


def test_one_that_is_killed_is_started_again_and_nothing_is_lost(net: Network) -> None:
    engine, before = net.engines[0], len(pids(net))
    assert engine.submit(registration(net, "before the kill")).kind is Kind.REGISTER_PARTY
    for turn in range(3):
        futures = [engine.submit_soon(registration(net, f"in flight {turn} {one}")) for one in range(5)]
        os.kill(pids(net)[-1], signal.SIGKILL)
        until(lambda turn=turn: b"up" if len(pids(net)) > before + turn else b"")  # type: ignore[misc]
        # What had only reached the mempool died with it, and is handed in again.
        assert {future.result(120).kind for future in futures} == {Kind.REGISTER_PARTY}
    assert any('"code":"cometbft-ended"' in line for line in net.log.lines)


def test_it_ends_with_the_engine(cometbft: Path, tmp_path: Path) -> None:
    with network(tmp_path, cometbft) as net:
        (pid,) = pids(net)
        assert not gone(pid)
    assert gone(pid)


def test_the_home_is_private_and_no_secret_is_said(net: Network) -> None:
    home = net.place(0) / "cometbft"
    assert home.stat().st_mode & 0o777 == 0o700
    key = home / "config" / "priv_validator_key.json"
    assert key.stat().st_mode & 0o777 == 0o600
    assert (home / "config" / "node_key.json").stat().st_mode & 0o777 == 0o600
    secret = json.loads(key.read_bytes())["priv_key"]["value"]
    said = "".join(net.log.lines) + (home / "output.log").read_text()
    assert secret not in said
    (pid,) = pids(net)[-1:]
    assert secret.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
    assert (home / "abci.sock").stat().st_mode & 0o777 == 0o600


def test_nothing_listens_for_strangers_but_the_port_for_peers(net: Network) -> None:
    (pid,) = pids(net)[-1:]
    sockets = {str(one.readlink()) for one in Path(f"/proc/{pid}/fd").iterdir() if one.is_symlink()}
    listening = [
        line.split()
        for table in ("tcp", "tcp6")
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]
    ]
    mine = [one[1] for one in listening if one[3] == "0A" and f"socket:[{one[9]}]" in sockets]
    assert [one.partition(":")[0] for one in mine] == ["0100007F"]


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (None, "cometbft-missing"),
        ("echo 0.38.24", "cometbft-version"),
        ("echo 0.39.1", "cometbft-version"),
        ("echo 1.0.1", "cometbft-version"),
        ("echo nonsense", "cometbft-version"),
        ("exit 1", "cometbft-version"),
    ],
)
def test_a_program_that_is_not_the_one(tmp_path: Path, said: str | None, code: str) -> None:
    program = tmp_path / "cometbft"
    if said is not None:
        program.write_text(f"#!/bin/sh\n{said}\n")
        program.chmod(0o755)
    with pytest.raises(ConfigError) as caught:
        find(str(program))
    assert caught.value.code == code
    assert "go install" in caught.value.hint


def test_a_newer_one_of_the_same_line_will_do(tmp_path: Path) -> None:
    program = tmp_path / "cometbft"
    program.write_text("#!/bin/sh\necho 0.38.31+abcdef\n")
    program.chmod(0o755)
    assert find(str(program)) == program


# --- the home directory ---------------------------------------------------------------------------


def test_what_was_signed_before_is_never_written_over(tmp_path: Path) -> None:
    genesis = genesis_of(CONSORTIUM)
    port = prepare(tmp_path, genesis, KEY, Peers())
    state = tmp_path / "data" / "priv_validator_state.json"
    state.write_bytes(b'{"height":"7"}')
    assert prepare(tmp_path, genesis, KEY, Peers()) == port
    assert state.read_bytes() == b'{"height":"7"}'
    state.unlink()
    (tmp_path / "data" / "blockstore.db").mkdir()
    with pytest.raises(ConfigError) as caught:
        prepare(tmp_path, genesis, KEY, Peers())
    assert caught.value.code == "sign-state-missing"
    prepare(tmp_path / "follower", genesis, None, Peers(port=5))
    assert not (tmp_path / "follower" / "config" / "priv_validator_key.json").exists()


def test_an_address_stays(tmp_path: Path) -> None:
    first = address(tmp_path, Peers())
    assert address(tmp_path, Peers()) == first
    identity, _, place = first.partition("@")
    assert len(bytes.fromhex(identity)) == 20
    assert place.startswith("127.0.0.1:")
    (tmp_path / "config" / "node_key.json").write_bytes(b"{}")
    with pytest.raises(StoreError) as caught:
        address(tmp_path, Peers())
    assert caught.value.code == "bad-key"


def test_cometbft_reads_what_we_write(cometbft: Path, tmp_path: Path) -> None:
    prepare(tmp_path, genesis_of(CONSORTIUM), KEY, Peers())

    def say(*words: str) -> str:
        command = [cometbft, *words, "--home", str(tmp_path)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    assert say("show-node-id") == address(tmp_path, Peers()).partition("@")[0]
    shown = json.loads(say("show-validator"))
    assert shown == json.loads(key_json(KEY))["pub_key"]


def test_times_in_the_genesis_are_exact() -> None:
    genesis = replace(genesis_of(CONSORTIUM), time=1_234_567_890_000_000_001)
    document = json.loads(cometbft_home.genesis_json(genesis))
    assert document["genesis_time"] == "2009-02-13T23:31:30.000000001Z"


# --- what the engine says -------------------------------------------------------------------------


class Scripted:
    """An RPC that says what a test wants."""

    def __init__(self, *answers: Checked | FirstlightError) -> None:
        self.answers = list(answers)
        self.handed: list[bytes] = []

    def broadcast(self, transaction: bytes) -> Checked:
        self.handed.append(transaction)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, FirstlightError):
            raise answer
        return answer

    def commit(self, height: int) -> SignedCommit | None:
        raise TransportError("unreachable", str(height))

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("answers", "code"),
    [
        ([Checked(0)], "commit-unknown"),
        ([Checked(4, "already-pending")], "commit-unknown"),
        ([Checked(4, "wrong-sequence", "x")], "wrong-sequence"),
        ([Checked(2, "bad-signature")], "bad-signature"),
        ([Checked(77, "strange")], "bad-response"),
        ([StoreError("ledger-busy")], "ledger-busy"),
        ([TransportError("no-answer")], "commit-unknown"),
        ([TransportError("unreachable")], "ledger-not-ready"),
        ([TransportError("unreachable"), TransportError("unreachable"), Checked(3, "x")], "x"),
    ],
)
def test_what_becomes_of_what_the_node_says(
    tmp_path: Path, answers: list[Checked | FirstlightError], code: str
) -> None:
    with driving(tmp_path, genesis_of(CONSORTIUM)) as driver:
        rpc = Scripted(*answers)
        log = Log("test", FakeClock(), Silent())
        with CometEngine(driver.replica, rpc, log, patience=0.3) as engine:
            key = P256Key("party")
            data = build(
                register_party(key),
                chain=CONSORTIUM.chain,
                sequence=1,
                signer=key,
                cosigners=[CONSORTIUM.roots[0]],
            )
            assert code_of(engine, data) == code
            assert rpc.handed
            with pytest.raises(StoreError) as caught:
                engine.head()
            assert caught.value.code == "ledger-not-ready"
            with pytest.raises(StoreError):
                engine.signed(1)
            # Whoever submits the same again is answered anew, and what was committed meanwhile is found.
            driver.block(data)
            assert code_of(engine, data) == "already-committed"


def test_who_waits_when_the_engine_closes_is_told(tmp_path: Path) -> None:
    with driving(tmp_path, genesis_of(CONSORTIUM)) as driver:
        engine = CometEngine(driver.replica, Scripted(Checked(0)), Log("test", FakeClock(), Silent()))  # type: ignore[arg-type]
        key = P256Key("party")
        data = build(
            register_party(key), chain=CONSORTIUM.chain, sequence=1, signer=key, cosigners=[CONSORTIUM.roots[0]]
        )
        future = engine.submit_soon(data)
        engine.close()
        engine.close()
        error = future.exception(60)
        assert isinstance(error, StoreError)
        assert error.code == "commit-unknown"
        assert "counts once" in error.hint


def test_many_that_wait_are_too_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "MAX_PENDING", 1)
    with driving(tmp_path, genesis_of(CONSORTIUM)) as driver:
        rpc = Scripted(Checked(0))
        with CometEngine(driver.replica, rpc, Log("test", FakeClock(), Silent())) as engine:  # type: ignore[arg-type]
            datas = []
            for name in ("one", "two"):
                key = P256Key(name)
                datas.append(
                    build(
                        register_party(key),
                        chain=CONSORTIUM.chain,
                        sequence=1,
                        signer=key,
                        cosigners=[CONSORTIUM.roots[0]],
                    )
                )
            engine.submit_soon(datas[0])
            assert code_of(engine, datas[1]) == "ledger-busy"


def test_a_full_mempool_is_said_to_be_full(net: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    """CometBFT's own words for it, and for what it has seen, are understood."""
    rpc = net.engines[0]._rpc
    answers = {
        "mempool is full: number of txs 1 (max: 1), total txs bytes 2 (max: 3)": "ledger-busy",
        "mempool is still rechecking after a new committed block, so it is considered as full": "ledger-busy",
        "something else": "bad-response",
    }
    for text, code in answers.items():
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "error": {"code": -32603, "message": "x", "data": text}})
        monkeypatch.setattr(Rpc, "_ask", lambda *_, body=body, **__: body.encode())
        with pytest.raises((StoreError, TransportError)) as caught:
            rpc.broadcast(b"x")
        assert caught.value.code == code
    monkeypatch.undo()
    data = registration(net, "twice through the mempool")
    assert rpc.broadcast(data) == Checked(0)
    assert rpc.broadcast(data).code in (0, 4)


def test_validators_come_over_the_rpc_as_well(net: Network) -> None:
    rpc = net.engines[0]._rpc
    assert rpc.validators(1) == net.consortium.validator_set
    assert rpc.validators(10**9) is None
    assert rpc.commit(10**9) is None


def test_a_node_whose_state_is_another_stops_answering(cometbft: Path, tmp_path: Path) -> None:
    """An application that has gone wrong, by a bug or a bad disk, is left behind by the others' headers."""
    with network(tmp_path, cometbft) as net:
        net.engines[0].submit(registration(net, "one"))
        net.stop(0)
        with sqlite3.connect(net.place(0) / "ledger.sqlite") as connection:
            connection.execute("DELETE FROM records WHERE name LIKE 'party/%'")
        connection.close()
        with pytest.raises(StoreError) as caught:
            net.start(0)
        assert caught.value.code == "state-differs"


# --- four validators ------------------------------------------------------------------------------


def test_two_of_four_stop_the_chain_and_it_recovers(cometbft: Path, tmp_path: Path) -> None:
    with network(tmp_path, cometbft, 4) as net:
        net.engines[0].submit(registration(net, "all"))
        net.stop(3)
        assert code_of(net.engines[0], registration(net, "three of four")) == "ok"
        net.stop(2)
        net.engines[0]._patience = 2.0
        data = registration(net, "two of four")
        assert code_of(net.engines[0], data) == "commit-unknown"
        assert code_of(net.engines[0], data) == "commit-unknown"
        net.start_soon(2)
        net.start_soon(3)
        net.engines[0]._patience = 60.0
        assert code_of(net.engines[0], data) in {"ok", "already-committed"}
        for number in (2, 3):
            assert net.engines[number].wait_ready(60)
        net.agree()
        found = {number: engine.status(parse(data).id) for number, engine in net.engines.items()}
        assert len({one for one in found.values() if one is not None}) == 1
        assert len(found) == 4
        counts = {one.counts().transactions[Kind.REGISTER_PARTY] for one in net.engines.values()}
        assert counts == {3}


# --- a CometBFT that runs already -----------------------------------------------------------------


def test_a_cometbft_that_runs_already_is_joined(cometbft: Path, tmp_path: Path) -> None:
    """Its operator has written its home; it looks for the application at a TCP address, and answers RPC there too."""
    genesis = replace(genesis_of(CONSORTIUM), time=SystemClock().now())
    home = tmp_path / "theirs"
    prepare(home, genesis, KEY, Peers())
    ports = [cometbft_home._free_port(0) for _ in range(2)]
    path = home / "config" / "config.toml"
    text = path.read_text().replace("unix://abci.sock", f"tcp://127.0.0.1:{ports[0]}")
    path.write_text(text.replace("unix://rpc.sock", f"tcp://127.0.0.1:{ports[1]}"))
    output = (tmp_path / "output").open("wb")
    theirs = subprocess.Popen([cometbft, "start", "--home", str(home)], stdout=output, stderr=output)
    how = Running(f"http://127.0.0.1:{ports[1]}", f"127.0.0.1:{ports[0]}")
    clock = SystemClock()
    try:
        with running(
            tmp_path, tmp_path / "ledger.sqlite", genesis, how, clock=clock, log=Log("test", clock, Silent())
        ) as engine:
            assert engine.wait_ready(60)
            key = P256Key("party")
            data = build(
                register_party(key), chain=CONSORTIUM.chain, sequence=1, signer=key, cosigners=[CONSORTIUM.roots[0]]
            )
            assert code_of(engine, data) == "ok"
            assert engine.head().state.value("governance") is not None
    finally:
        theirs.terminate()
        theirs.wait(60)
        output.close()


def test_an_address_that_cannot_be_had(tmp_path: Path) -> None:
    clock = SystemClock()
    log = Log("test", clock, Silent())
    genesis = genesis_of(CONSORTIUM)
    for abci in ("127.0.0.1:x", "256.0.0.1:1", f"unix:{tmp_path}/none/abci.sock"):
        how = Running("http://127.0.0.1:1", abci)
        with (
            pytest.raises(ConfigError) as caught,
            running(tmp_path, tmp_path / "ledger.sqlite", genesis, how, clock=clock, log=log),
        ):
            pass
        assert caught.value.code == "cannot-listen"
