"""The published model-based test cases of CometBFT's and tendermint-rs' light clients; each names its source."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from firstlight.chain.rpc import parse_question
from firstlight.cli.light import told

CASES: list[dict[str, Any]] = json.loads((Path(__file__).parent / "light_client_mbt.json").read_text())["cases"]


def steps(case: dict[str, Any]) -> list[dict[str, Any]]:
    return case["input"]


def question(case: dict[str, Any], trusted: dict[str, Any], step: dict[str, Any]) -> bytes:
    form = {
        "trusted": {name: trusted[name] for name in ("signed_header", "next_validator_set")},
        "untrusted": step["block"],
        "trust_level": "1/3",
        "trusting_period_s": int(case["initial"]["trusting_period"]) / 10**9,
        "max_clock_drift_s": case["max_clock_drift_s"],
        "now": step["now"],
    }
    return json.dumps(form).encode()


def test_there_are_enough_and_of_every_verdict() -> None:
    counts = Counter(step["verdict"] for case in CASES for step in steps(case))
    assert len(CASES) >= 30
    assert counts["SUCCESS"] >= 30
    assert counts["NOT_ENOUGH_TRUST"] >= 30
    assert counts["INVALID"] >= 10


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['source'].split()[0]} {case['file']}")
def test_every_step_gets_the_published_verdict(case: dict[str, Any]) -> None:
    trusted = case["initial"]
    for step in steps(case):
        verdict, reason = told(parse_question(question(case, trusted, step)).verdict())
        assert verdict == step["verdict"], reason
        if verdict == "SUCCESS":
            trusted = step["block"]
