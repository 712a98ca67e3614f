"""What software runs here: the measurement that a device reports and its manufacturer publishes.

Both sides measure with the one function below. The digest covers the source of the installed ``firstlight`` package:

    SHA-256("firstlight-software-1" ‖ for each module, by its path: length of path (2 bytes) ‖ path ‖ SHA-256 of file)

with paths relative to the package, in POSIX form, in bytewise order. What Python has compiled is left out: it follows
from the source and differs from machine to machine.

Measuring oneself proves nothing against somebody who has replaced the measuring code: with keys in files the hardware
claim of an appraisal never affirms.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

from firstlight.attestation.evidence import Measurement
from firstlight.errors import StoreError

COMPONENT = "firstlight"
"""The name of the one measured component."""
SECURITY_VERSION = 1
"""The security version number (svn) of this software; it rises when an older one must not be trusted any more."""
_LABEL = b"firstlight-software-1"
_PACKAGE = Path(__file__).parents[1]


def software_digest(package: Path) -> bytes:
    """Return the digest (32 bytes) of the Python source under ``package``.

    Raises :class:`StoreError` (``software-not-readable``), also if there is none.
    """
    total = hashlib.sha256(_LABEL)
    try:
        files = {path.relative_to(package).as_posix().encode(): path for path in package.rglob("*.py")}
        for name, path in sorted(files.items()):
            total.update(len(name).to_bytes(2) + name + hashlib.sha256(path.read_bytes()).digest())
    except OSError as error:
        raise StoreError("software-not-readable", f"{package}: {error.strerror or error}") from error
    if not files:
        raise StoreError("software-not-readable", f"there is no software in {package}")
    return total.digest()


@lru_cache(maxsize=1)
def measured() -> Measurement:
    """Return the measurement of the software that this process runs; errors as :func:`software_digest`."""
    return Measurement(COMPONENT, software_digest(_PACKAGE), SECURITY_VERSION)


def reference_identifier(digest: bytes) -> bytes:
    """Return the id (16 bytes) of the reference-value set for software with ``digest``; a device names its own so."""
    return hashlib.sha256(digest).digest()[:16]
