"""How far the fleet is, as the other parties' records say; a device's own word counts for nothing."""

from __future__ import annotations

from dataclasses import dataclass

from firstlight.cli.demo.world import Places
from firstlight.console.fleet import Stage
from firstlight.roles.owner.status import grants as owner_grants
from firstlight.roles.party.status import mno_status, sp_status
from firstlight.transports.client import SyncClient


@dataclass(frozen=True, slots=True)
class Counts:
    """One number for each stage that another party can vouch for."""

    discovered: int
    network_granted: int
    attached: int
    service_granted: int
    connected: int
    receipts_read: int

    def stages(self) -> dict[Stage, int]:
        """Return the numbers by stage."""
        return {
            Stage.DISCOVERED: self.discovered,
            Stage.NETWORK_GRANTED: self.network_granted,
            Stage.ATTACHED: self.attached,
            Stage.SERVICE_GRANTED: self.service_granted,
            Stage.CONNECTED: self.connected,
            Stage.RECEIPTS_READ: self.receipts_read,
        }


class Recorder:
    """Reads the parties' own records."""

    def __init__(self, places: Places) -> None:
        """Read those of the world in ``places``."""
        self._places = places

    def read(self) -> Counts:
        """Return the counts of this moment."""
        network = mno_status(self._places.mno)
        service = sp_status(self._places.sp)
        receipts = [one for one in owner_grants(self._places.owner) if one["step"] == "service-connected"]
        vouched = {(one["batch"], one["index"]) for one in receipts if one["grant"] in service.heard}
        return Counts(
            discovered=network.authenticated,
            network_granted=network.granted,
            attached=network.attached,
            service_granted=service.granted,
            connected=len(vouched),
            receipts_read=len({(one["batch"], one["index"]) for one in receipts}),
        )

    def transactions(self, node: str) -> int:
        """Return how many transactions the ledger has committed, as its node counts them."""
        with SyncClient() as client:
            return int(client.get_json(f"{node}/v1/counts")["transactions"])
