"""Selling and buying: what a buyer takes is proven, device by device."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from firstlight.errors import ConfigError, FirstlightError, ProofError, RuleError, TransportError
from firstlight.identity.manifest import Manifest
from firstlight.ledger.records import TenureState
from firstlight.roles.holdings import Holding, find_holding, holdings, read_selection, selection_of
from firstlight.roles.ledger_client import LedgerClient
from firstlight.roles.survey import Guess, survey
from firstlight.roles.trade import Purchase, Sale, Terms, accept, read_purchase, request, sell, withdraw
from firstlight.roles.workplace import Workplace
from firstlight.sealing.stream import manifest_info, seal_stream
from firstlight.trees.ownership import Selection

from .trading import Market, quick_disk

__all__ = ["quick_disk"]


@pytest.fixture
def market(tmp_path: Path) -> Market:
    return Market.open(tmp_path)


def makers(market: Market) -> Holding:
    return find_holding(market.maker.directory, market.made.batch, 1)


def test_devices_pass_through_a_distributor_to_an_owner(market: Market) -> None:
    distributor, owner = market.owner("distributor"), market.owner("owner")
    first = market.hand_over(market.maker, makers(market), distributor)
    second = market.hand_over(distributor, first.holding, owner, "2-5,9")
    ledger = market.node.ledger
    assert (first.holding.origin, second.holding.origin) == (2, 3)
    assert ledger.owners(market.made.batch) == [2, 2, 3, 3, 3, 3, 2, 2, 2, 3, 2, 2]
    manifest = second.holding.manifest()
    assert list(manifest.indices()) == [2, 3, 4, 5, 9]
    manifest.verify(ledger.batch(market.made.batch).leaves, 12)
    record = ledger.tenure(market.made.batch, 3)
    assert record.key == second.holding.owner().public
    recovery = second.holding.directory / "recovery.pem"
    assert recovery.exists()
    assert record.recovery is not None
    assert record.recovery != hashlib.sha256(record.key or b"").digest()


def test_all_that_is_left_is_sold(market: Market) -> None:
    market.hand_over(market.maker, makers(market), market.owner("a"), "0-3,8")
    rest = market.hand_over(market.maker, makers(market), market.owner("b"))
    assert list(rest.holding.manifest().indices()) == [4, 5, 6, 7, 9, 10, 11]
    with pytest.raises(ConfigError) as caught:
        market.offer(market.maker, makers(market), market.owner("c"))
    assert caught.value.code == "nothing-to-sell"


def test_a_sale_is_sealed_to_its_buyer(market: Market) -> None:
    _, sale = market.offer(market.maker, makers(market), market.owner("buyer"))
    data = sale.read_bytes()
    for entry in makers(market).manifest().entries():
        assert entry.mailbox not in data
        assert entry.identity not in data
    with pytest.raises(ConfigError) as caught:
        accept(market.owner("thief"), sale, delay=0)
    assert caught.value.code == "not-our-purchase"


def forged(market: Market, sale: Path, manifest: Manifest, buyer: Purchase) -> None:
    """Put another manifest into a sale, properly sealed."""
    data = sale.read_bytes()
    head = data[: 4 + int.from_bytes(data[:4])]
    sealed = seal_stream(
        manifest.chunks(), buyer.manifest_key, info=manifest_info(market.maker.chain, market.made.batch)
    )
    sale.write_bytes(head + b"".join(sealed))


def refused(market: Market, place: Workplace, sale: Path) -> str:
    """Return the code with which a sale is not accepted, having checked that nothing has changed."""
    before = market.node.ledger.state.root
    with pytest.raises(FirstlightError) as caught:
        accept(place, sale, delay=0)
    assert market.node.ledger.state.root == before
    assert list(holdings(place.directory)) == []
    return caught.value.code


@pytest.mark.parametrize(
    ("offered", "handed", "code"),
    [
        ("0-3", [0, 1, 2], "wrong-count"),
        ("0-3", [0, 1, 2, 3, 4], "wrong-count"),
        ("0-3", [0, 1, 2, 4], "wrong-manifest"),
        ("1,5,9", [1, 5, 10], "wrong-manifest"),
        ("0-11", list(range(11)), "wrong-count"),
    ],
)
def test_a_manifest_of_other_devices_is_refused(market: Market, offered: str, handed: list[int], code: str) -> None:
    buyer = market.owner("buyer")
    _, sale = market.offer(market.maker, makers(market), buyer, offered)
    purchase = read_purchase(market.root / "buyer.purchase", buyer.chain)
    forged(market, sale, makers(market).manifest().subset(handed), purchase)
    assert refused(market, buyer, sale) == code
    sell(market.maker, makers(market), Terms(read_selection(offered), None, 60), purchase, sale)
    assert accept(buyer, sale, delay=0).holding.record.count == len(list(selection(offered).indices()))


def selection(text: str) -> Selection:
    found = read_selection(text)
    assert found is not None
    return found


def test_a_manifest_with_another_key_is_refused(market: Market) -> None:
    buyer = market.owner("buyer")
    _, sale = market.offer(market.maker, makers(market), buyer, "0-3")
    honest = makers(market).manifest().subset(range(4))
    rows = honest.rows[:20] + honest.rows[180 + 20 : 180 + 84] + honest.rows[84:]
    swapped = Manifest(honest.chain, honest.batch, honest.size, honest.model, rows, honest.proof)
    forged(market, sale, swapped, read_purchase(market.root / "buyer.purchase", buyer.chain))
    assert refused(market, buyer, sale) == "not-in-batch"


@pytest.mark.parametrize("cut", [1, 17, 4_000])
def test_a_sale_that_is_cut_is_refused(market: Market, cut: int) -> None:
    buyer = market.owner("buyer")
    _, sale = market.offer(market.maker, makers(market), buyer)
    data = sale.read_bytes()
    sale.write_bytes(data[:-cut])
    assert refused(market, buyer, sale) in {"truncated", "cannot-open", "not-cbor", "wrong-shape"}
    sale.write_bytes(data)
    accept(buyer, sale, delay=0)


def test_an_offer_that_was_withdrawn_or_has_expired_is_refused(market: Market) -> None:
    first, second = market.owner("first"), market.owner("second")
    sold, sale = market.offer(market.maker, makers(market), first, "0-3")
    withdraw(market.maker, None, sold.tenure)
    assert refused(market, first, sale) == "offer-ended"
    _, sale = market.offer(market.maker, makers(market), second, "0-3")
    assert refused(market, market.later(second, 4_000), sale) == "offer-expired"


def test_an_offer_to_another_key_is_not_ours(market: Market) -> None:
    buyer, rival = market.owner("buyer"), market.owner("rival")
    _, sale = market.offer(market.maker, makers(market), buyer, "0-3")
    other, _ = market.offer(market.maker, makers(market), rival, "4-5")
    data = sale.read_bytes()
    length = int.from_bytes(data[:4])
    head = Sale.decode(data[4 : 4 + length])
    moved = Sale(head.chain, head.offer, head.batch, other.tenure, head.buyer).encode()
    sale.write_bytes(len(moved).to_bytes(4) + moved + data[4 + length :])
    assert refused(market, buyer, sale) == "offer-not-ours"


@pytest.mark.parametrize("lost", [1, 2])
def test_accepting_goes_on_when_its_answer_was_lost(market: Market, lost: int) -> None:
    buyer = market.owner("buyer")
    _, sale = market.offer(market.maker, makers(market), buyer)
    for _ in range(lost):
        market.node.cut.append("/v1/transactions")
        with pytest.raises(TransportError):
            accept(buyer, sale, delay=0)
    assert market.node.ledger.tenure(market.made.batch, 2).state is TenureState.ACTIVE
    done = accept(buyer, sale, delay=0)
    assert accept(buyer, sale, delay=0).holding == done.holding
    assert [one.origin for one in holdings(buyer.directory)] == [2]


def test_selling_goes_on_when_its_answer_was_lost(market: Market) -> None:
    buyer, out = market.owner("buyer"), market.root / "x.sale"
    request(buyer, market.root / "x.purchase")
    purchase = read_purchase(market.root / "x.purchase", buyer.chain)
    terms = Terms(read_selection("0-5"), None, 60)
    market.node.cut.append("/v1/transactions")
    with pytest.raises(TransportError):
        sell(market.maker, makers(market), terms, purchase, out)
    assert not out.exists()
    sold = sell(market.maker, makers(market), terms, purchase, out)
    assert (sold.tenure, market.node.ledger.batch(market.made.batch).tenures) == (2, 2)
    accept(buyer, out, delay=0)
    with pytest.raises(ConfigError) as caught:
        sell(market.maker, makers(market), Terms(read_selection("6"), None, 60), purchase, out)
    assert caught.value.code == "purchase-used"


def test_what_the_ledger_refuses_is_told_by_its_code(market: Market) -> None:
    market.offer(market.maker, makers(market), market.owner("a"), "0-3")
    with pytest.raises(RuleError) as caught:
        market.offer(market.maker, makers(market), market.owner("b"), "3-4")
    assert caught.value.code == "offer-live"


# --- surveys ----------------------------------------------------------------------------------


def client(market: Market) -> LedgerClient:
    return market.maker.ledger()


def test_a_random_pick_out_of_one_owners_batch_costs_few_questions(tmp_path: Path) -> None:
    market = Market.open(tmp_path, devices=300)
    picked = ",".join(str(one) for one in range(1, 300, 7))
    done = market.hand_over(market.maker, makers(market), market.owner("buyer"), picked)
    assert done.holding.record.count == 43
    assert done.questions <= 3


def test_a_survey_says_who_owns_each_device(tmp_path: Path) -> None:
    market = Market.open(tmp_path, devices=37)
    for name, select in (("a", "0-3,9,20-30"), ("b", "4,6,8"), ("c", "36")):
        market.hand_over(market.maker, makers(market), market.owner(name), select)
    with client(market) as ledger:
        for guess in (Guess(1, 1), Guess(2, 1), Guess(3, 2), Guess(9, 8)):
            found = survey(ledger, market.made.batch, Selection.of([(0, 37)]), guess)
            owners = [region.number for region in found.regions for _ in range(region.count)]
            assert owners == market.node.ledger.owners(market.made.batch)
            trie = market.node.ledger.trie(market.made.batch)
            for region in found.regions:
                assert trie.covering_prefix(region.start)[1] == region.prefix_length


def test_a_survey_beyond_the_batch_is_refused(market: Market) -> None:
    with client(market) as ledger, pytest.raises(ProofError) as caught:
        survey(ledger, market.made.batch, Selection.of([12]), Guess(1, 1))
    assert caught.value.code == "index-beyond-batch"


def test_selections_are_read_as_people_write_them(tmp_path: Path) -> None:
    (tmp_path / "list").write_text("3\n0-1\n\n7, 9\n")
    assert read_selection("all") is None
    assert selection("0-2,5").runs() == [(0, 3), (5, 1)]
    assert selection(str(tmp_path / "list")).runs() == [(0, 2), (3, 1), (7, 1), (9, 1)]
    assert selection_of(iter([0, 1, 4, 6, 7])).runs() == [(0, 2), (4, 1), (6, 2)]
    for wrong in ("", "5-3", "1,1", "0-4,2", "-3", "a", "1--2", str(tmp_path)):
        with pytest.raises(FirstlightError) as caught:
            read_selection(wrong)
        assert caught.value.code in {"bad-selection", "file-not-readable"}, wrong


def test_a_selection_that_no_file_can_be_named_is_refused() -> None:
    """Found by fuzzing: a name of more than 255 bytes is an error of the system's own."""
    with pytest.raises(ConfigError) as caught:
        read_selection("x" * 5000)
    assert caught.value.code == "bad-selection"
