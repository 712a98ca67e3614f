"""The one error tree of Firstlight.

    FirstlightError
    ├── MalformedError     bytes that are not what they claim to be
    ├── SignatureError     a signature, key or MAC that does not verify
    ├── ProofError         a header, commit, witness or Merkle proof that does not verify
    ├── RuleError          a transaction that a ledger rule refuses
    ├── RefusedError       a protected refusal by a party, carried in EAD_4
    ├── ExchangeError      an EDHOC exchange that ended in a plain error
    ├── AccessError        a network or a service that did not let the device in
    ├── TransportError     a peer that could not be reached, or answered nonsense
    ├── StoreError         a database or a file that cannot be read, written or locked
    └── ConfigError        a setting, a file or a command line that is wrong

Each error carries a stable ``code`` (kebab-case, never reworded), a ``detail`` for people, and where
one exists a ``hint`` that says what to do. Foreign errors are wrapped at the port where they appear.
"""

from __future__ import annotations


class FirstlightError(Exception):
    """An error with a stable code; the base of all that Firstlight raises on purpose."""

    def __init__(self, code: str, detail: str = "", *, hint: str = "") -> None:
        """Keep the stable ``code``, what happened (``detail``) and what to do (``hint``)."""
        super().__init__(code, detail, hint)
        self.code = code
        self.detail = detail
        self.hint = hint

    def __str__(self) -> str:
        """Render as ``code: detail (hint)``."""
        text = f"{self.code}: {self.detail}" if self.detail else self.code
        return f"{text} ({self.hint})" if self.hint else text


class MalformedError(FirstlightError):
    """Bytes that are not what they claim to be."""


class SignatureError(FirstlightError):
    """A signature, key or MAC that does not verify."""


class ProofError(FirstlightError):
    """A header, commit, witness statement or Merkle proof that does not verify."""


class RuleError(FirstlightError):
    """A transaction that a rule of the ledger refuses."""


class RefusedError(FirstlightError):
    """A protected refusal by a party, carried in EAD_4."""


class ExchangeError(FirstlightError):
    """An EDHOC exchange that ended in a plain, unauthenticated error."""


class AccessError(FirstlightError):
    """A network or a service that did not let the device in."""


class TransportError(FirstlightError):
    """A peer that could not be reached, or that answered nonsense."""


class StoreError(FirstlightError):
    """A database or a file that cannot be read, written or locked."""


class ConfigError(FirstlightError):
    """A setting, a file or a command line that is wrong."""
