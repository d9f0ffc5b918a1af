"""Kong's ProtoBuf:1 messages for Google's protobuf library: the oracle for the hand-written codec.

Strings are declared as bytes, which look the same on the wire, because Google's library refuses
text that is not UTF-8. Maps are declared as the repeated entries that they are on the wire.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message

# name: fields as "number name type", `*` repeated; types with a capital are messages
_MESSAGES = {
    "Empty": (),
    "Value": (
        "1 null_value int64",
        "2 number_value double",
        "3 string_value bytes",
        "4 bool_value bool",
        "5 struct_value Struct",
        "6 list_value ListValue",
    ),
    "Entry": ("1 key bytes", "2 value Value"),
    "Struct": ("1 fields *Entry",),
    "ListValue": ("1 values *Value",),
    "KV": ("1 k bytes", "2 v Value"),
    "Bool": ("1 v bool",),
    "Int": ("1 v int32",),
    "Number": ("1 v double",),
    "String": ("1 v bytes",),
    "ByteString": ("1 v bytes",),
    "ExitArgs": ("1 status int32", "2 body bytes", "3 headers Struct"),
    "Key": ("1 id bytes",),
    "RawBodyResult": ("1 content bytes", "2 body_filepath bytes", "3 error bytes"),
    "Capture": ("1 key bytes", "2 value bytes"),
    "UriCapturesResult": ("1 unnamed *bytes", "2 named *Capture"),
    "Route": (
        "1 id bytes",
        "2 created_at int64",
        "3 updated_at int64",
        "4 name bytes",
        "5 protocols *bytes",
        "6 methods *bytes",
        "7 hosts *bytes",
        "8 paths *bytes",
        "9 headers *bytes",
        "10 https_redirect_status_code int32",
        "11 regex_priority int32",
        "12 strip_path bool",
        "13 preserve_host bool",
        "14 snis *bytes",
        "15 sources *bytes",
        "16 destinations *bytes",
        "17 tags *bytes",
        "18 service Key",
    ),
    "Service": (
        "1 id bytes",
        "2 created_at int64",
        "3 updated_at int64",
        "4 name bytes",
        "5 retries int32",
        "6 protocol bytes",
        "7 host bytes",
        "8 port int32",
        "9 path bytes",
        "10 connect_timeout int32",
        "11 write_timeout int32",
        "12 read_timeout int32",
        "13 tags *bytes",
        "14 client_certificate Key",
    ),
    "Target": ("1 host bytes", "2 port int32"),
    "ConsumerSpec": ("1 id bytes", "2 by_username bool"),
    "Consumer": (
        "1 id bytes",
        "2 created_at int64",
        "3 username bytes",
        "4 custom_id bytes",
        "5 tags *bytes",
    ),
    "Credential": ("1 id bytes", "2 consumer_id bytes"),
    "AuthenticateArgs": ("1 consumer Consumer", "2 credential Credential"),
    "DictStats": ("1 allocated_slabs int64", "2 capacity int64"),
    "Dicts": ("1 kong DictStats", "2 kong_db_cache DictStats"),
    "WorkerVm": ("1 http_allocated_gc int64", "2 pid int64"),
    "MemoryStats": ("1 lua_shared_dicts Dicts", "2 workers_lua_vms *WorkerVm"),
    "Named": ("1 name bytes",),
    "StartInstance": ("1 name bytes", "2 config bytes"),
    "OfInstance": ("1 instance_id int32",),
    "HandleEvent": ("1 instance_id int32", "2 event_name bytes"),
    "RpcCall": (
        "1 sequence int64",
        "31 cmd_get_plugin_names Empty",
        "32 cmd_get_plugin_info Named",
        "33 cmd_start_instance StartInstance",
        "34 cmd_get_instance_status OfInstance",
        "35 cmd_close_instance OfInstance",
        "36 cmd_handle_event HandleEvent",
    ),
    "PluginNames": ("1 names *bytes",),
    "PluginInfo": (
        "1 name bytes",
        "2 updated_at int64",
        "3 loaded_at int64",
        "4 phases *bytes",
        "5 version bytes",
        "6 priority int32",
        "7 schema bytes",
    ),
    "InstanceStatus": (
        "1 name bytes",
        "2 instance_id int32",
        "3 config Value",
        "4 started_at int64",
    ),
    "RpcReturn": (
        "1 sequence int64",
        "31 plugin_names PluginNames",
        "32 plugin_info PluginInfo",
        "33 instance_status InstanceStatus",
    ),
}


def _build() -> dict[str, type[Message]]:
    file = descriptor_pb2.FileDescriptorProto(
        name="oracle.proto", package="oracle", syntax="proto2"
    )
    kinds = descriptor_pb2.FieldDescriptorProto
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for row in fields:
            number, field_name, kind = row.split()
            field = message.field.add(name=field_name, number=int(number))
            repeated = kind.startswith("*")
            kind = kind.removeprefix("*")
            field.label = kinds.LABEL_REPEATED if repeated else kinds.LABEL_OPTIONAL
            if kind[0].isupper():
                field.type, field.type_name = kinds.TYPE_MESSAGE, f".oracle.{kind}"
            else:
                field.type = kinds.Type.Value(f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"oracle.{name}"))
        for name in _MESSAGES
    }


MESSAGES = _build()

ARGUMENTS = {
    "none": "Empty",
    "text": "String",
    "int": "Int",
    "bool": "Bool",
    "bytes": "ByteString",
    "pair": "KV",
    "map": "Struct",
    "list": "ListValue",
    "target": "Target",
    "exit": "ExitArgs",
    "consumer": "ConsumerSpec",
    "authenticate": "AuthenticateArgs",
}
"""The message of each argument shape in the table of methods."""

RESULTS = {
    "text": "String",
    "text or none": "String",
    "int": "Int",
    "int or none": "Int",
    "number": "Number",
    "bool": "Bool",
    "bytes": "ByteString",
    "value": "Value",
    "headers": "Struct",
    "raw body": "RawBodyResult",
    "captures": "UriCapturesResult",
    "route": "Route",
    "service": "Service",
    "consumer": "Consumer",
    "credential": "Credential",
    "memory": "MemoryStats",
}
"""The message of each result shape in the table of methods."""


def parse(name: str, payload: bytes) -> Message:
    """Decode strictly: a field that the message does not have is an error."""
    message = MESSAGES[name].FromString(payload)
    assert message.ByteSize() == len(payload), f"{name}: unknown fields in {payload!r}"
    return message


def meaning(message: Message) -> Any:
    """A message as plain data in which the order of map entries does not show."""
    name = message.DESCRIPTOR.name
    fields: dict[str, Any] = {}
    for field, value in message.ListFields():
        if field.message_type is None:
            fields[field.name] = list(value) if field.is_repeated else value
        elif field.is_repeated:
            fields[field.name] = [meaning(item) for item in value]
        else:
            fields[field.name] = meaning(value)
    if name == "Struct":
        return {entry["key"]: entry.get("value") for entry in fields.get("fields", ())}
    if name == "UriCapturesResult" and "named" in fields:
        fields["named"] = {entry["key"]: entry["value"] for entry in fields["named"]}
    return fields


def value_of(plain: Any) -> Message:
    """A Value message of plain data: text as bytes, mappings, lists, numbers, bools, None."""
    message: Any = MESSAGES["Value"]()
    if plain is None:
        message.null_value = 0
    elif isinstance(plain, bool):
        message.bool_value = plain
    elif isinstance(plain, (int, float)):
        message.number_value = plain
    elif isinstance(plain, str):
        message.string_value = plain.encode("utf-8", "surrogateescape")
    elif isinstance(plain, bytes):
        message.string_value = plain
    elif isinstance(plain, list):
        message.list_value.SetInParent()
        message.list_value.values.extend(value_of(item) for item in plain)
    else:
        message.struct_value.CopyFrom(struct_of(plain))
    return message  # type: ignore[no-any-return]


def struct_of(plain: dict[str, Any]) -> Message:
    """A Struct message of plain data."""
    message: Any = MESSAGES["Struct"]()
    message.SetInParent()
    for key, value in plain.items():
        entry = message.fields.add(key=key.encode("utf-8", "surrogateescape"))
        entry.value.CopyFrom(value_of(value))
    return message  # type: ignore[no-any-return]
