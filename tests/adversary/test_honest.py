"""The honest journey through the same fixture that every attack uses."""

from __future__ import annotations

from firstlight.testing.lab import Lab


def test_a_device_connects_through_an_honest_gateway(lab: Lab) -> None:
    outcome = lab.connects(lab.device())
    print(outcome.lines, outcome.log)
