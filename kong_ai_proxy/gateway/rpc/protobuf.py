"""Kong's side of ProtoBuf:1: messages and methods, encoded with Google's protobuf.

Names, fields and numbers are those of Kong's kong/include/kong/pluginsocket.proto. The messages
are built at import from the tables below. They differ from the public definition in what does not
show on the wire: every field has presence, since Kong writes a false but no 0 and no ""; strings
are bytes, since Kong does not check that they are UTF-8; maps are lists of their entries.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError

from kong_ai_proxy.gateway.pdk import Call, LuaError, invoke
from kong_ai_proxy.gateway.pdk.base import lua_type
from kong_ai_proxy.gateway.rpc.connection import RpcError

_SCALARS = {
    "bytes": FieldDescriptor.TYPE_BYTES,
    "bool": FieldDescriptor.TYPE_BOOL,
    "int32": FieldDescriptor.TYPE_INT32,
    "int64": FieldDescriptor.TYPE_INT64,
    "double": FieldDescriptor.TYPE_DOUBLE,
}
# message: field=number:type, a star for repeated. `|` before the fields: they form a oneof.
_MESSAGES = """
Empty:
CmdGetPluginInfo: name=1:bytes
CmdStartInstance: name=1:bytes config=2:bytes
CmdGetInstanceStatus: instance_id=1:int32
CmdCloseInstance: instance_id=1:int32
CmdHandleEvent: instance_id=1:int32 event_name=2:bytes
RpcCall: sequence=1:int64 cmd_get_plugin_names=31:Empty cmd_get_plugin_info=32:CmdGetPluginInfo
  cmd_start_instance=33:CmdStartInstance cmd_get_instance_status=34:CmdGetInstanceStatus
  cmd_close_instance=35:CmdCloseInstance cmd_handle_event=36:CmdHandleEvent
PluginNames: names=1:bytes*
PluginInfo: name=1:bytes updated_at=2:int64 loaded_at=3:int64 phases=4:bytes* version=5:bytes
  priority=6:int32 schema=7:bytes
InstanceStatus: name=1:bytes instance_id=2:int32 config=3:Value started_at=4:int64
RpcReturn: sequence=1:int64 plugin_names=31:PluginNames plugin_info=32:PluginInfo
  instance_status=33:InstanceStatus
Value: | null_value=1:int32 number_value=2:double string_value=3:bytes bool_value=4:bool
  struct_value=5:Struct list_value=6:ListValue
StructEntry: key=1:bytes value=2:Value
Struct: fields=1:StructEntry*
ListValue: values=1:Value*
KV: k=1:bytes v=2:Value
Bool: v=1:bool
Int: v=1:int32
Number: v=1:double
String: v=1:bytes
ByteString: v=1:bytes
ExitArgs: status=1:int32 body=2:bytes headers=3:Struct
RawBodyResult: | content=1:bytes body_filepath=2:bytes error=3:bytes
BytesEntry: key=1:bytes value=2:bytes
UriCapturesResult: unnamed=1:bytes* named=2:BytesEntry*
ServiceKey: id=1:bytes
CertificateKey: id=1:bytes
Route: id=1:bytes created_at=2:int64 updated_at=3:int64 name=4:bytes protocols=5:bytes*
  methods=6:bytes* hosts=7:bytes* paths=8:bytes* headers=9:bytes*
  https_redirect_status_code=10:int32 regex_priority=11:int32 strip_path=12:bool
  preserve_host=13:bool snis=14:bytes* sources=15:bytes* destinations=16:bytes* tags=17:bytes*
  service=18:ServiceKey
Service: id=1:bytes created_at=2:int64 updated_at=3:int64 name=4:bytes retries=5:int32
  protocol=6:bytes host=7:bytes port=8:int32 path=9:bytes connect_timeout=10:int32
  write_timeout=11:int32 read_timeout=12:int32 tags=13:bytes* client_certificate=14:CertificateKey
Target: host=1:bytes port=2:int32
ConsumerSpec: id=1:bytes by_username=2:bool
Consumer: id=1:bytes created_at=2:int64 username=3:bytes custom_id=4:bytes tags=5:bytes*
AuthenticatedCredential: id=1:bytes consumer_id=2:bytes
AuthenticateArgs: consumer=1:Consumer credential=2:AuthenticatedCredential
DictStats: allocated_slabs=1:int64 capacity=2:int64
LuaSharedDicts: kong=1:DictStats kong_db_cache=2:DictStats
WorkerLuaVm: http_allocated_gc=1:int64 pid=2:int64
MemoryStats: lua_shared_dicts=1:LuaSharedDicts workers_lua_vms=2:WorkerLuaVm*
"""
# argument result: the methods, `kong.` left out
_SERVICE = """
Empty String: client.get_ip client.get_forwarded_ip nginx.get_tls1_version_str
  nginx.get_subsystem node.get_id log.serialize response.get_source request.get_scheme
  request.get_host request.get_forwarded_scheme request.get_forwarded_host request.get_method
  request.get_path request.get_path_with_query request.get_raw_query
Empty Int: client.get_port client.get_forwarded_port request.get_port request.get_forwarded_port
  response.get_status service.response.get_status
Empty Number: nginx.req_start_time request.get_http_version
Empty AuthenticatedCredential: client.get_credential
Empty Consumer: client.get_consumer
Empty MemoryStats: node.get_memory_stats
Empty RawBodyResult: request.get_raw_body
Empty UriCapturesResult: request.get_uri_captures
Empty Route: router.get_route
Empty Service: router.get_service
Empty ByteString: service.response.get_raw_body
ConsumerSpec Consumer: client.load_consumer
AuthenticateArgs Empty: client.authenticate
Bool String: client.get_protocol
KV Empty: ctx.shared.set log.set_serialize_value response.set_header response.add_header
  service.request.set_header service.request.add_header
KV String: nginx.set_ctx
String Value: ctx.shared.get nginx.get_ctx
String Bool: ip.is_trusted service.set_upstream
String String: nginx.get_var request.get_query_arg request.get_header response.get_header
  service.response.get_header
String Empty: response.clear_header service.request.set_scheme service.request.set_path
  service.request.set_raw_query service.request.set_method service.request.clear_header
ListValue Empty: log.alert log.crit log.err log.warn log.notice log.info log.debug
Int Struct: request.get_query request.get_headers response.get_headers
  service.response.get_headers
Int Empty: response.set_status
Struct Empty: response.set_headers service.request.set_query service.request.set_headers
ExitArgs Empty: response.exit
Target Empty: service.set_target
ByteString Empty: service.request.set_raw_body
"""
_PACKAGE = "kong_ai_proxy.gateway.rpc"

Fields = list[tuple[str, str, bool]]  # name, type, repeated
FIELDS: dict[str, Fields] = {}


def _lines(table: str) -> list[tuple[str, list[str]]]:
    """`head: words` of each line of a table; indented lines continue the one before."""
    joined = table.strip().replace("\n  ", " ").split("\n")
    return [(head, rest.split()) for head, _, rest in (line.partition(":") for line in joined)]


def _field(message: descriptor_pb2.DescriptorProto, word: str) -> None:
    name, _, rest = word.partition("=")
    number, _, kind = rest.partition(":")
    repeated = kind.endswith("*")
    kind = kind.rstrip("*")
    FIELDS[message.name].append((name, kind, repeated))
    proto = descriptor_pb2.FieldDescriptorProto
    field = message.field.add(name=name, number=int(number))
    field.label = proto.LABEL_REPEATED if repeated else proto.LABEL_OPTIONAL
    if kind in _SCALARS:
        field.type = proto.Type.ValueType(_SCALARS[kind])
    else:
        field.type_name = f".{_PACKAGE}.{kind}"
        field.type = proto.TYPE_MESSAGE
    if message.oneof_decl:
        field.oneof_index = 0


def _build() -> dict[str, Callable[..., Any]]:
    """The message classes by name."""
    file = descriptor_pb2.FileDescriptorProto(name="pluginsocket", package=_PACKAGE)
    file.syntax = "proto2"  # presence for every field
    for name, words in _lines(_MESSAGES):
        message = file.message_type.add(name=name)
        FIELDS[name] = []
        if words[:1] == ["|"]:
            message.oneof_decl.add(name="kind")
        for word in words:
            if word != "|":
                _field(message, word)
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    found = {name: pool.FindMessageTypeByName(f"{_PACKAGE}.{name}") for name in FIELDS}
    return {name: message_factory.GetMessageClass(kind) for name, kind in found.items()}


MESSAGES = _build()


def _raw(value: str) -> bytes:
    return value.encode("utf-8", "surrogateescape")


def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")


# --- Lua values as google.protobuf.Value and back, with what Kong's conversion loses


def lua_value(message: Any) -> object:
    """A Value as Kong's Lua code has it. A false is lost (nil); null becomes a text."""
    kind = message.WhichOneof("kind")
    if kind == "string_value":
        return _text(message.string_value)
    if kind == "number_value":
        number: float = message.number_value
        return int(number) if number.is_integer() else number
    if kind == "bool_value":
        return True if message.bool_value else None
    if kind == "struct_value":
        return lua_struct(message.struct_value)
    if kind == "list_value":
        return lua_list(message.list_value)
    if kind == "null_value":
        return message.null_value or "NULL_VALUE"
    return None


def lua_struct(message: Any) -> dict[str, object]:
    found = ((_text(entry.key), lua_value(entry.value)) for entry in message.fields)
    return {key: value for key, value in found if value is not None}


def lua_list(message: Any) -> list[object]:
    return [lua_value(value) for value in message.values]


def value_fields(value: object) -> dict[str, object]:
    """The fields of the Value that Kong writes for a Lua value: null as 1, an empty list as an
    empty struct, a list up to its first nil.
    """
    if isinstance(value, str):
        return {"string_value": _raw(value)}
    if value is None:
        return {"null_value": 1}
    if isinstance(value, bool):
        return {"bool_value": value}
    if isinstance(value, int | float):
        return {"number_value": value}
    if isinstance(value, bytes):
        return {"string_value": value}
    if isinstance(value, list) and value and value[0] is not None:
        found = value[: value.index(None)] if None in value else value
        return {"list_value": {"values": [value_fields(item) for item in found]}}
    return {"struct_value": struct_fields(value if isinstance(value, Mapping) else {})}


def struct_fields(table: Mapping[str, object]) -> dict[str, object]:
    """The fields of the Struct for a table."""
    found = []
    for key, value in table.items():
        fields = {"string_value": _raw(value)} if type(value) is str else value_fields(value)
        found.append({"key": _raw(key), "value": fields})
    return {"fields": found}


# --- arguments: bytes to the values that Kong's Lua function gets


def _parse(kind: str, data: bytes) -> Any:
    message = MESSAGES[kind]()
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        raise LuaError(f"bad argument #2 to 'decode' ({kind}: {error})") from None
    return message


def _table(kind: str, message: Any) -> dict[str, object]:
    """A message as the table that Kong's decoder makes, with proto3's defaults."""
    found: dict[str, object] = {}
    for name, field, repeated in FIELDS[kind]:
        value = getattr(message, name)
        if repeated:
            found[name] = [_text(item) for item in value]
        else:
            found[name] = _text(value) if field == "bytes" else value
    return found


def _empty_argument(data: bytes) -> tuple[object, ...]:
    if data:
        _parse("Empty", data)
    return ()


def _kv_argument(data: bytes) -> tuple[object, ...]:
    message = _parse("KV", data)
    return (_text(message.k), lua_value(message.v) if message.HasField("v") else None)


def _exit_argument(data: bytes) -> tuple[object, ...]:
    message = _parse("ExitArgs", data)
    headers = lua_struct(message.headers) if message.HasField("headers") else None
    return (message.status, message.body, headers)


def _target_argument(data: bytes) -> tuple[object, ...]:
    message = _parse("Target", data)
    return (_text(message.host), message.port)


def _consumer_argument(data: bytes) -> tuple[object, ...]:
    message = _parse("ConsumerSpec", data)
    return (_text(message.id), message.by_username)


def _authenticate_argument(data: bytes) -> tuple[object, ...]:
    message = _parse("AuthenticateArgs", data)
    kinds = {"consumer": "Consumer", "credential": "AuthenticatedCredential"}
    return tuple(
        _table(kind, getattr(message, name)) if message.HasField(name) else None
        for name, kind in kinds.items()
    )


_ARGUMENTS: dict[str, Callable[[bytes], tuple[object, ...]]] = {
    "Empty": _empty_argument,
    "Bool": lambda data: (_parse("Bool", data).v,),
    "Int": lambda data: (_parse("Int", data).v,),
    "String": lambda data: (_text(_parse("String", data).v),),
    "ByteString": lambda data: (_parse("ByteString", data).v,),
    "Struct": lambda data: (lua_struct(_parse("Struct", data)),),
    "ListValue": lambda data: tuple(lua_list(_parse("ListValue", data))),
    "KV": _kv_argument,
    "ExitArgs": _exit_argument,
    "Target": _target_argument,
    "ConsumerSpec": _consumer_argument,
    "AuthenticateArgs": _authenticate_argument,
}


# --- results: what the Lua function returned to bytes


def _wrong(field: str, wanted: str, value: object) -> LuaError:
    text = f"{wanted} expected for field '{field}', got {lua_type(value)}"
    return LuaError(f"bad argument #2 to 'encode' ({text})")


def _bytes_field(name: str, value: object) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return _raw(value)
    raise _wrong(name, "string", value)


def _fill(kind: str, message: Any, table: Mapping[str, object]) -> None:
    """Set a message's fields from a table: no 0 and no "", but a false, as Kong's encoder does."""
    for name, field, repeated in FIELDS[kind]:
        value = table.get(name)
        if value is None:
            continue
        if repeated:
            _fill_list(field, name, getattr(message, name), value)
        elif field == "bytes":
            if found := _bytes_field(name, value):
                setattr(message, name, found)
        elif field == "bool" or (field in _SCALARS and value):
            setattr(message, name, value)
        elif field not in _SCALARS and isinstance(value, Mapping):
            getattr(message, name).SetInParent()
            _fill(field, getattr(message, name), value)


def _fill_list(kind: str, name: str, target: Any, value: object) -> None:
    if not isinstance(value, list | tuple):  # a map has no list part: a Route's `headers`
        return
    for item in value:
        if kind == "bytes":
            target.append(_bytes_field(name, item))
        else:
            _fill(kind, target.add(), item)


def _one(kind: str) -> Callable[[Call, object], bytes]:
    def encode(call: Call, value: object) -> bytes:
        message = MESSAGES[kind]()
        _fill(kind, message, {"v": value})
        return bytes(message.SerializeToString())

    return encode


def _entity(kind: str) -> Callable[[Call, object], bytes]:
    def encode(call: Call, value: object) -> bytes:
        if not isinstance(value, Mapping):
            return b""
        message = MESSAGES[kind]()
        _fill(kind, message, value)
        return bytes(message.SerializeToString())

    return encode


def _value_result(call: Call, value: object) -> bytes:
    return bytes(MESSAGES["Value"](**value_fields(value)).SerializeToString())


def _struct_result(call: Call, value: object) -> bytes:
    table = value if isinstance(value, dict) else {}
    return bytes(MESSAGES["Struct"](**struct_fields(table)).SerializeToString())


def _body_result(call: Call, value: object) -> bytes:
    """The content, or the file that nginx has put it into."""
    file = call.ctx.client.body.file
    if value is not None:
        message = MESSAGES["RawBodyResult"](content=_bytes_field("content", value))
    elif file is not None:
        message = MESSAGES["RawBodyResult"](body_filepath=_raw(str(file)))
    else:
        message = MESSAGES["RawBodyResult"](error=b"Can't read request body")
    return bytes(message.SerializeToString())


def _captures_result(call: Call, value: object) -> bytes:
    """Captures from 1 on: a Lua list has no 0, where the whole match is."""
    ctx = call.ctx
    message = MESSAGES["UriCapturesResult"](unnamed=[_raw(text) for text in ctx.captures_unnamed])
    for name, text in ctx.captures_named.items():
        message.named.add(key=_raw(name), value=_raw(text))
    return bytes(message.SerializeToString())


_RESULTS: dict[str, Callable[[Call, object], bytes]] = {
    "Empty": lambda call, value: b"",
    "Value": _value_result,
    "Struct": _struct_result,
    "RawBodyResult": _body_result,
    "UriCapturesResult": _captures_result,
    **{kind: _one(kind) for kind in ("String", "ByteString", "Bool", "Int", "Number")},
    **{
        kind: _entity(kind)
        for kind in ("Route", "Service", "Consumer", "AuthenticatedCredential", "MemoryStats")
    },
}


class ServiceMethod(NamedTuple):
    """A method of Kong's service: its PDK name, its codec, and its result's message."""

    name: str
    decode: Callable[[bytes], tuple[object, ...]]
    encode: Callable[[Call, object], bytes]
    result: str


def _methods() -> dict[bytes, ServiceMethod]:
    found = {}
    for head, names in _lines(_SERVICE):
        argument, result = head.split()
        for name in names:
            entry = ServiceMethod(f"kong.{name}", _ARGUMENTS[argument], _RESULTS[result], result)
            found[entry.name.encode()] = entry
    return found


SERVICE = _methods()
"""By method name as it comes in a frame."""


def call_pdk(call: Call, name: bytes, argument: bytes) -> bytes:
    """Answer one pair of frames. RpcError for a method Kong does not have, else as `invoke`."""
    entry = SERVICE.get(name)
    if entry is None:
        text = _text(name).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\\n")
        raise RpcError(f'method "{text}" not found')
    return entry.encode(call, invoke(call, entry.name, entry.decode(argument)))


# --- the calls around the events


def start_instance(sequence: int, name: str, config: bytes) -> bytes:
    call = MESSAGES["RpcCall"](sequence=sequence)
    call.cmd_start_instance.name = _raw(name)
    call.cmd_start_instance.config = config
    return bytes(call.SerializeToString())


def close_instance(sequence: int, instance: int) -> bytes:
    call = MESSAGES["RpcCall"](sequence=sequence)
    call.cmd_close_instance.instance_id = instance
    return bytes(call.SerializeToString())


def handle_event(sequence: int, instance: int, phase: str) -> bytes:
    call = MESSAGES["RpcCall"](sequence=sequence)
    call.cmd_handle_event.instance_id = instance
    call.cmd_handle_event.event_name = _raw(phase)
    return bytes(call.SerializeToString())


def rpc_return(data: bytes) -> Any:
    """A RpcReturn; LuaError when it is none."""
    return _parse("RpcReturn", data)
