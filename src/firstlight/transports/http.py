"""HTTP, both ends under one name; a device imports :mod:`firstlight.transports.client` alone, which is lighter."""

from __future__ import annotations

from firstlight.transports.body import CBOR, CBOR_SEQUENCE, DEFAULT_BODY, EDHOC, JSON, RemoteError
from firstlight.transports.client import HttpClient, Limits, Response, SyncClient
from firstlight.transports.endpoint import Endpoint, read_endpoint
from firstlight.transports.server import (
    Answering,
    Beside,
    answering,
    application,
    as_json,
    cbor,
    listening,
    raw,
    read_body,
    read_cbor,
    read_json,
    read_record,
    run,
    serve,
    serve_by,
    status_of,
)

__all__ = [
    "Answering",
    "Beside",
    "CBOR",
    "CBOR_SEQUENCE",
    "DEFAULT_BODY",
    "EDHOC",
    "JSON",
    "Endpoint",
    "HttpClient",
    "Limits",
    "RemoteError",
    "Response",
    "SyncClient",
    "answering",
    "application",
    "as_json",
    "cbor",
    "listening",
    "raw",
    "read_body",
    "read_cbor",
    "read_endpoint",
    "read_json",
    "read_record",
    "run",
    "serve",
    "serve_by",
    "status_of",
]
