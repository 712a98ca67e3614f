"""``firstlight light``: judge headers by the light client's rules."""

from __future__ import annotations

import json
import sys

import typer

from firstlight.chain.light import Invalid, NotEnoughTrust, Verdict
from firstlight.chain.rpc import MAX_INPUT, parse_question
from firstlight.errors import ConfigError, FirstlightError

app = typer.Typer(no_args_is_help=True)


@app.callback()
def group() -> None:
    """Judge headers by the light client's rules."""


@app.command()
def verify() -> None:
    """Judge an untrusted header from a trusted one, both on standard input, in the JSON forms of CometBFT's RPC.

    Input: {"trusted": {"signed_header", "next_validator_set"}, "untrusted": {"signed_header", "validator_set",
    "next_validator_set"}, "trust_level": "1/3", "trusting_period_s": 1209600, "max_clock_drift_s": 10,
    "now": "2026-11-22T12:00:00Z"}.

    Output: {"verdict": "SUCCESS" | "NOT_ENOUGH_TRUST" | "INVALID", "reason"}.

    Exit code 0 for every verdict, 2 for input that is not of this form.
    """
    try:
        question = parse_question(sys.stdin.buffer.read(MAX_INPUT + 1))
    except FirstlightError as error:
        raise ConfigError(error.code, error.detail, hint="see: firstlight light verify --help") from error
    name, reason = told(question.verdict())
    sys.stdout.write(json.dumps({"verdict": name, "reason": reason}) + "\n")
    sys.stdout.flush()


def told(verdict: Verdict) -> tuple[str, str]:
    """Return the name of a verdict and its reason; that of an invalid header begins with its stable code."""
    if isinstance(verdict, Invalid):
        return "INVALID", f"{verdict.code}: {verdict.detail}" if verdict.detail else verdict.code
    if isinstance(verdict, NotEnoughTrust):
        return "NOT_ENOUGH_TRUST", f"{verdict.signed} of {verdict.total} of the trusted power signed"
    return "SUCCESS", ""
