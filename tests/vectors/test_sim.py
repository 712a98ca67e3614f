"""The published test data of Milenage, AKA' and SUCI; each file names its source."""

import json
from pathlib import Path

import pytest

from firstlight.sim import aka, aka_prime, milenage, suci
from firstlight.sim.suci import HomeKey, Scheme, Suci

DATA = Path(__file__).parent
SCHEMES = {"A": Scheme.PROFILE_A, "B": Scheme.PROFILE_B}


def load(name: str, key: str) -> list[dict[str, str]]:
    entries: list[dict[str, str]] = json.loads((DATA / name).read_text())[key]
    return entries


def unhex(entry: dict[str, str]) -> dict[str, bytes]:
    text = ("set", "case", "identity", "network", "clause", "profile")
    return {name: bytes.fromhex(value) for name, value in entry.items() if name not in text}


MILENAGE = load("milenage_ts35208.json", "sets")


def test_all_twenty_test_sets_are_there() -> None:
    assert len({entry["set"] for entry in MILENAGE}) == 21


@pytest.mark.parametrize("entry", MILENAGE, ids=lambda entry: entry["set"])
def test_milenage(entry: dict[str, str]) -> None:
    v = unhex(entry)
    assert milenage.f1(v["k"], v["opc"], v["rand"], v["sqn"], v["amf"]) == (v["f1"], v["f1_star"])
    out = milenage.f2345(v["k"], v["opc"], v["rand"])
    assert (out.res, out.ck, out.ik, out.ak) == (v["f2"], v["f3"], v["f4"], v["f5"])
    assert milenage.f5_star(v["k"], v["opc"], v["rand"]) == v["f5_star"]


@pytest.mark.parametrize("entry", [e for e in MILENAGE if "op" in e], ids=lambda entry: entry["set"])
def test_opc(entry: dict[str, str]) -> None:
    v = unhex(entry)
    assert milenage.derive_opc(v["k"], v["op"]) == v["opc"]


@pytest.mark.parametrize("entry", MILENAGE, ids=lambda entry: entry["set"])
def test_vector_is_made_of_the_functions(entry: dict[str, str]) -> None:
    v = unhex(entry)
    vector = aka.make_vector(v["k"], v["opc"], int.from_bytes(v["sqn"]), v["rand"], amf=v["amf"])
    assert vector.autn == milenage.xor(v["sqn"], v["f5"]) + v["amf"] + v["f1"]
    assert (vector.xres, vector.ck, vector.ik) == (v["f2"], v["f3"], v["f4"])


def test_autn_of_rfc_5448_case_1_is_that_of_test_set_19() -> None:
    v = unhex(next(entry for entry in MILENAGE if entry["set"] == "35.208-19"))
    case = unhex(load("aka_prime_rfc5448.json", "cases")[0])
    vector = aka.make_vector(v["k"], v["opc"], int.from_bytes(v["sqn"]), v["rand"], amf=v["amf"])
    assert (vector.rand, vector.autn, vector.xres) == (case["rand"], case["autn"], case["res"])


@pytest.mark.parametrize("entry", load("aka_prime_rfc5448.json", "cases"), ids=lambda entry: f"case-{entry['case']}")
def test_aka_prime(entry: dict[str, str]) -> None:
    v = unhex(entry)
    ck_prime, ik_prime = aka_prime.ck_ik_prime(v["ck"], v["ik"], entry["network"].encode(), v["autn"])
    assert (ck_prime, ik_prime) == (v["ck_prime"], v["ik_prime"])
    keys = aka_prime.derive_keys(entry["identity"].encode(), ck_prime, ik_prime)
    assert keys.k_encr == v["k_encr"]
    assert keys.k_aut == v["k_aut"]
    assert keys.k_re == v["k_re"]
    assert keys.msk == v["msk"]
    assert keys.emsk == v["emsk"]


@pytest.mark.parametrize("entry", load("suci_ts33501.json", "cases"), ids=lambda entry: entry["clause"])
def test_suci(entry: dict[str, str]) -> None:
    v, scheme = unhex(entry), SCHEMES[entry["profile"]]
    key = HomeKey(scheme, 27, v["home_private"])
    assert key.public == v["home_public"]
    assert suci.protect(scheme, v["home_public"], v["plaintext"], v["ephemeral_private"]) == v["output"]
    assert suci.unprotect(scheme, v["home_private"], v["output"]) == v["plaintext"]
    if entry["clause"].endswith(".1"):
        assert suci.reveal(Suci("274", "012", "678", scheme, 27, v["output"]), key) == "274012001002086"
