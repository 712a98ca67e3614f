import asyncio

from firstlight.access.transport import abort


class ClosedTwice(asyncio.WriteTransport):
    """As CPython 3.11.2 leaves a TLS transport after a second ``close``."""

    def abort(self) -> None:
        raise AttributeError("'NoneType' object has no attribute '_abort'")


class Open(asyncio.WriteTransport):
    aborted = False

    def abort(self) -> None:
        self.aborted = True


def test_a_transport_that_was_closed_twice_is_no_error() -> None:
    abort(ClosedTwice())


def test_an_open_transport_is_aborted() -> None:
    transport = Open()
    abort(transport)
    assert transport.aborted
