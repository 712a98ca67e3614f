"""The onboarding benchmark on a few devices: both stages of both legs, against servers that really run."""

from __future__ import annotations

import asyncio

import pytest

from firstlight.bench import legs, onboarding
from firstlight.bench.onboarding import Site
from firstlight.testing.lab import Lab

COUNT, WARM = 3, 1


@pytest.fixture(scope="module")
def site(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """The laboratory as a site, with devices that nobody else will use."""
    devices = tmp_path_factory.mktemp("devices")
    for _ in range(COUNT + WARM):
        device = lab.device()
        device.rename(devices / device.name)
    pids = {child.name: child.pid for child in lab.family.children}
    return Site(devices, lab.places.mno, pids["mno"], lab.places.sp, pids["sp"])


@pytest.mark.parametrize("leg", onboarding.LEGS)
def test_a_leg_is_measured_inside_and_over_http(site: Site, leg: str) -> None:
    task = site.task(leg, COUNT, WARM)
    inside, outside = legs.core(task), asyncio.run(legs.load(task))
    figures = onboarding.figures(inside, outside)
    assert figures["core_ratio"] > 1
    assert figures["ratio"] > 0
    assert 500 < figures["message_3_bytes"] <= onboarding.AT_MOST["message_3_bytes"]
    assert figures["bytes_up"] > figures["message_3_bytes"]
    assert figures["bytes_down"] > 200
