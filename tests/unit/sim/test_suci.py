import pytest

from firstlight.errors import FirstlightError
from firstlight.sim import suci
from firstlight.sim.suci import HomeKey, HomeNetwork, Scheme, Suci
from firstlight.testing.random import SeededRandom

IMSI = "001010123456789"
SCHEMES = list(Scheme)


def world(scheme: Scheme) -> tuple[HomeKey, HomeNetwork]:
    key = suci.generate(scheme, 7, SeededRandom("home"))
    return key, HomeNetwork("001", "01", "0", scheme, 7, key.public)


def code(action: object) -> str:
    with pytest.raises(FirstlightError) as caught:
        action()  # type: ignore[operator]
    return caught.value.code


@pytest.mark.parametrize("scheme", SCHEMES)
def test_an_imsi_comes_back_and_two_sucis_differ(scheme: Scheme) -> None:
    key, home = world(scheme)
    random = SeededRandom(1)
    one, two = home.conceal(IMSI, random), home.conceal(IMSI, random)
    assert one != two
    assert suci.reveal(Suci.decode(one.encode()), key) == suci.reveal(two, key) == IMSI
    assert IMSI[5:].encode() not in one.encode()


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("position", [-1, -9])
def test_a_changed_suci_is_refused(scheme: Scheme, position: int) -> None:
    key, home = world(scheme)
    concealed = home.conceal(IMSI, SeededRandom(1))
    output = bytearray(concealed.output)
    output[position] ^= 1
    changed = Suci("001", "01", "0", scheme, 7, bytes(output))
    assert code(lambda: suci.reveal(changed, key)) == "bad-suci"


@pytest.mark.parametrize(
    ("scheme", "point"), [(Scheme.PROFILE_A, bytes(32)), (Scheme.PROFILE_B, b"\x02" + b"\xff" * 32)]
)
def test_a_bad_point_is_refused(scheme: Scheme, point: bytes) -> None:
    key, _ = world(scheme)
    assert code(lambda: suci.reveal(Suci("001", "01", "0", scheme, 7, point + bytes(13)), key)) == "bad-point"


def test_an_uncompressed_point_is_refused() -> None:
    key, _ = world(Scheme.PROFILE_B)
    assert (
        code(lambda: suci.reveal(Suci("001", "01", "0", Scheme.PROFILE_B, 7, b"\x04" + bytes(77)), key)) == "bad-point"
    )


def test_a_suci_for_another_key_is_refused() -> None:
    key, home = world(Scheme.PROFILE_A)
    concealed = home.conceal(IMSI, SeededRandom(1))
    assert code(lambda: suci.reveal(concealed, HomeKey(Scheme.PROFILE_A, 8, key.private))) == "wrong-key"
    other = HomeKey(Scheme.PROFILE_A, 7, bytes(range(32)))
    assert code(lambda: suci.reveal(concealed, other)) == "bad-suci"


def test_an_imsi_of_another_network_is_not_concealed() -> None:
    _, home = world(Scheme.PROFILE_A)
    assert code(lambda: home.conceal("002020123456789", SeededRandom(1))) == "foreign-imsi"


def test_a_plaintext_that_is_no_msin_is_refused() -> None:
    key, home = world(Scheme.PROFILE_A)
    output = suci.protect(Scheme.PROFILE_A, home.key, b"\xab\xcd", bytes(range(32)))
    assert code(lambda: suci.reveal(Suci("001", "01", "0", Scheme.PROFILE_A, 7, output), key)) == "bad-msin"


def test_a_short_output_is_refused() -> None:
    assert code(lambda: suci.unprotect(Scheme.PROFILE_A, bytes(range(32)), bytes(40))) == "bad-suci"


@pytest.mark.parametrize("msin", ["1", "12", "001002086", "0123456789"])
def test_msin_digits(msin: str) -> None:
    assert suci.decode_msin(suci.encode_msin(msin)) == msin


@pytest.mark.parametrize("data", [b"", b"\xff", b"\x1f\x21", b"\x11" * 6, b"\xf1\x11"])
def test_bad_msin_digits(data: bytes) -> None:
    assert code(lambda: suci.decode_msin(data)) == "bad-msin"


def test_a_p256_private_key_is_in_range() -> None:
    draws = [b"\xff" * 32, bytes(32), bytes(31) + b"\x05"]

    class Biased:
        def bytes(self, count: int) -> bytes:
            return draws.pop(0)

    assert suci.generate(Scheme.PROFILE_B, 1, Biased()).private == bytes(31) + b"\x05"
