"""What tests by enemies ask of an attempt: the exact code with which it is refused."""

from __future__ import annotations

from collections.abc import Callable

from firstlight.errors import FirstlightError


def refused(attempt: Callable[[], object]) -> str:
    """Return the code with which ``attempt`` is refused: ``taken`` if nobody does, and what breaks where it breaks."""
    try:
        attempt()
    except FirstlightError as error:
        return error.code
    except Exception as error:  # noqa: BLE001 - what is not refused but breaks is told from what is
        return f"broken: {error!r}"
    return "taken"
