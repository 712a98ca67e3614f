"""A message is acknowledged once it has been kept: after a crash in between the device sends again."""

import asyncio
from functools import wraps

import pytest

from firstlight.access.device.service_session import connect
from firstlight.errors import AccessError


def served(test):
    """Run an async test with a running broker, whose service keeps nothing before the test says so."""

    @wraps(test)
    def wrapped(world):
        async def work():
            async with world.running():
                await world.honest()
                world.published.clear()
                world.holding = []
                await test(world)

        asyncio.run(work())

    del wrapped.__wrapped__
    return wrapped


@served
async def test_a_message_is_acknowledged_when_it_has_been_kept(world):
    session = await connect(world.access(world.device()))
    publishing = asyncio.create_task(session.publish(b"1"))
    assert [one.payload for one in await world.read(1)] == [b"1"]
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(publishing), 0.2)
    await asyncio.to_thread(world.holding[0])
    await publishing
    await session.close()


@served
async def test_acknowledgements_come_in_the_order_of_the_messages(world):
    session = await connect(world.access(world.device()))
    publishing = [asyncio.create_task(session.publish(bytes([number]))) for number in range(3)]
    await world.read(3)
    world.holding[0]()
    await publishing[0]
    assert not publishing[1].done()
    world.holding[1]()
    world.holding[2]()
    await asyncio.gather(*publishing)
    await session.close()


@served
async def test_what_is_never_kept_is_never_acknowledged(world):
    session = await connect(world.access(world.device()))
    with pytest.raises(AccessError) as caught:
        await session.publish(b"1", patience=0.2)
    assert caught.value.code == "service-timeout"
    await session.close()
    assert [one.payload for one in await world.read(1)] == [b"1"]
