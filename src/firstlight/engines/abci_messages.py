"""The messages of ABCI 2.0, as CometBFT v0.38 sends and expects them, in a package and descriptor pool of our own.

The field numbers are those of CometBFT's ``abci/types.proto`` and of what it imports. Messages of methods that this
application does not have (vote extensions) and fields that it never reads are left out: proto3 passes over them.
Enumerations are numbers here; their values stand beside those who use them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError, Message

from firstlight.errors import MalformedError

PACKAGE = "firstlight.abci"

_DEFINITIONS = """
Timestamp           seconds:int64=1 nanos:int32=2
PublicKey           ed25519:bytes=1 secp256k1:bytes=2
Validator           address:bytes=1 power:int64=3
ValidatorUpdate     pub_key:PublicKey=1 power:int64=2
VoteInfo            validator:Validator=1 block_id_flag:int32=3
CommitInfo          round:int32=1 votes:VoteInfo*=2
Misbehavior         type:int32=1 validator:Validator=2 height:int64=3 time:Timestamp=4 total_voting_power:int64=5
Snapshot            height:uint64=1 format:uint32=2 chunks:uint32=3 hash:bytes=4 metadata:bytes=5
ProofOp             type:string=1 key:bytes=2 data:bytes=3
ProofOps            ops:ProofOp*=1
ExecTxResult        code:uint32=1 data:bytes=2 log:string=3 codespace:string=8

RequestEcho         message:string=1
RequestFlush
RequestInfo         version:string=1 block_version:uint64=2 p2p_version:uint64=3 abci_version:string=4
RequestInitChain    time:Timestamp=1 chain_id:string=2 validators:ValidatorUpdate*=4 app_state_bytes:bytes=5 \
initial_height:int64=6
RequestQuery        data:bytes=1 path:string=2 height:int64=3 prove:bool=4
RequestCheckTx      tx:bytes=1 type:int32=2
RequestCommit
RequestListSnapshots
RequestOfferSnapshot        snapshot:Snapshot=1 app_hash:bytes=2
RequestLoadSnapshotChunk    height:uint64=1 format:uint32=2 chunk:uint32=3
RequestApplySnapshotChunk   index:uint32=1 chunk:bytes=2 sender:string=3
RequestPrepareProposal      max_tx_bytes:int64=1 txs:bytes*=2 misbehavior:Misbehavior*=4 height:int64=5 time:Timestamp=6
RequestProcessProposal      txs:bytes*=1 proposed_last_commit:CommitInfo=2 misbehavior:Misbehavior*=3 hash:bytes=4 \
height:int64=5 time:Timestamp=6
RequestExtendVote
RequestVerifyVoteExtension
RequestFinalizeBlock        txs:bytes*=1 decided_last_commit:CommitInfo=2 misbehavior:Misbehavior*=3 hash:bytes=4 \
height:int64=5 time:Timestamp=6

ResponseException   error:string=1
ResponseEcho        message:string=1
ResponseFlush
ResponseInfo        data:string=1 version:string=2 app_version:uint64=3 last_block_height:int64=4 \
last_block_app_hash:bytes=5
ResponseInitChain   validators:ValidatorUpdate*=2 app_hash:bytes=3
ResponseQuery       code:uint32=1 log:string=3 key:bytes=6 value:bytes=7 proof_ops:ProofOps=8 height:int64=9 \
codespace:string=10
ResponseCheckTx     code:uint32=1 data:bytes=2 log:string=3 codespace:string=8
ResponseCommit      retain_height:int64=3
ResponseListSnapshots       snapshots:Snapshot*=1
ResponseOfferSnapshot       result:int32=1
ResponseLoadSnapshotChunk   chunk:bytes=1
ResponseApplySnapshotChunk  result:int32=1 refetch_chunks:uint32*=2 reject_senders:string*=3
ResponsePrepareProposal     txs:bytes*=1
ResponseProcessProposal     status:int32=1
ResponseFinalizeBlock       tx_results:ExecTxResult*=2 validator_updates:ValidatorUpdate*=3 app_hash:bytes=5
"""
_REQUESTS = """
echo=1 flush=2 info=3 init_chain=5 query=6 check_tx=8 commit=11 list_snapshots=12 offer_snapshot=13
load_snapshot_chunk=14 apply_snapshot_chunk=15 prepare_proposal=16 process_proposal=17 extend_vote=18
verify_vote_extension=19 finalize_block=20
"""
_RESPONSES = """
exception=1 echo=2 flush=3 info=4 init_chain=6 query=7 check_tx=9 commit=12 list_snapshots=13 offer_snapshot=14
load_snapshot_chunk=15 apply_snapshot_chunk=16 prepare_proposal=17 process_proposal=18 finalize_block=21
"""
_Field = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "bool": _Field.TYPE_BOOL,
    "bytes": _Field.TYPE_BYTES,
    "int32": _Field.TYPE_INT32,
    "int64": _Field.TYPE_INT64,
    "string": _Field.TYPE_STRING,
    "uint32": _Field.TYPE_UINT32,
    "uint64": _Field.TYPE_UINT64,
}


def _file() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(name="firstlight/abci.proto", package=PACKAGE, syntax="proto3")
    for line in _DEFINITIONS.split("\n"):
        if line:
            name, *fields = line.split()
            message = file.message_type.add(name=name)
            message.field.extend(_field(one) for one in fields)
    for name, listed in (("Request", _REQUESTS), ("Response", _RESPONSES)):
        message = file.message_type.add(name=name)
        message.oneof_decl.add(name="value")
        message.field.extend(_choices(name, listed))
    return file


def _field(text: str) -> Any:
    """Return the field that ``name:type=number`` says; a star after the type says that it is repeated."""
    name, _, rest = text.partition(":")
    kind, _, number = rest.partition("=")
    label = _Field.LABEL_REPEATED if kind.endswith("*") else _Field.LABEL_OPTIONAL
    kind = kind.removesuffix("*")
    if kind in _SCALARS:
        return _Field(name=name, number=int(number), label=label, type=_SCALARS[kind])
    return _Field(name=name, number=int(number), label=label, type=_Field.TYPE_MESSAGE, type_name=f".{PACKAGE}.{kind}")


def _choices(prefix: str, listed: str) -> Iterator[Any]:
    for one in listed.split():
        name = one.partition("=")[0]
        field = _field(f"{name}:{prefix}{''.join(part.capitalize() for part in name.split('_'))}={one.split('=')[1]}")
        field.oneof_index = 0
        yield field


_POOL = descriptor_pool.DescriptorPool()
_POOL.Add(_file())


def kind(name: str) -> Any:
    """Return the class of the messages of that name."""
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"{PACKAGE}.{name}"))


Request = kind("Request")
Response = kind("Response")


def read(data: bytes) -> tuple[str, Any]:
    """Return the name of a request's method and its message.

    Raises :class:`MalformedError`: ``not-protobuf``, ``unknown-method`` (none, or one that there is not).
    """
    request = Request()
    try:
        request.ParseFromString(data)
    except DecodeError as error:
        raise MalformedError("not-protobuf", str(error)) from error
    method = request.WhichOneof("value")
    if method is None:
        raise MalformedError("unknown-method", f"a request of {len(data)} bytes that names no method of ABCI 2.0")
    return method, getattr(request, method)


def write(method: str, message: Message) -> bytes:
    """Return the response to ``method`` that holds ``message``."""
    return bytes(Response(**{method: message}).SerializeToString())


def nanoseconds(stamp: Any) -> int:
    """Return the Unix nanoseconds of a ``Timestamp``."""
    return int(stamp.seconds) * 1_000_000_000 + int(stamp.nanos)


def timestamp(time: int) -> Any:
    """Return the ``Timestamp`` of Unix nanoseconds."""
    seconds, nanos = divmod(time, 1_000_000_000)
    return kind("Timestamp")(seconds=seconds, nanos=nanos)
