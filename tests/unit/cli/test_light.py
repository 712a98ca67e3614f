import io
import json
import sys

import pytest
from tests.unit.chain.test_rpc import changed, form

from firstlight.cli import main


def ask(monkeypatch: pytest.MonkeyPatch, text: bytes) -> int:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
    return main.run(["light", "verify"])


@pytest.mark.parametrize(
    ("question", "verdict", "reason"),
    [
        (form(), "SUCCESS", ""),
        (changed("trusting_period_s", 1), "INVALID", "trusted-expired: "),
        (
            changed(
                "untrusted.signed_header.commit.signatures",
                form()["untrusted"]["signed_header"]["commit"]["signatures"][:1],
            ),
            "NOT_ENOUGH_TRUST",
            "10 of 40 ",
        ),
    ],
)
def test_verdicts_are_printed_and_are_no_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], question: object, verdict: str, reason: str
) -> None:
    assert ask(monkeypatch, json.dumps(question).encode()) == 0
    answer = json.loads(capsys.readouterr().out)
    assert set(answer) == {"verdict", "reason"}
    assert answer["verdict"] == verdict
    assert answer["reason"].startswith(reason)


@pytest.mark.parametrize(
    ("text", "code"),
    [(b"", "not-json"), (b"{}", "bad-form"), (json.dumps(changed("trust_level", "1/5")).encode(), "bad-trust-level")],
)
def test_input_of_another_form_is_wrong_usage(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], text: bytes, code: str
) -> None:
    assert ask(monkeypatch, text) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert code in captured.err
