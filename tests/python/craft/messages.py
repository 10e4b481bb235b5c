# SPDX-License-Identifier: Apache-2.0
"""Checkpoint messages, built at run time in a private descriptor pool.

The pool is private because the process may also hold TensorFlow's descriptors of the same names.
Text fields are declared as bytes (same wire format), so that names can be any bytes.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_PACKAGE = "craft"
_SCALARS = {
    "int32": 5, "int64": 3, "bool": 8, "bytes": 12, "fixed32": 7, "float": 2, "double": 1,
    "enum": 5,
}  # fmt: skip

# message -> [(field, number, type, label)]; label: "*" repeated, "+" packed too, "1" in a oneof.
_VALUES = [
    ("float_val", 5, "float"), ("double_val", 6, "double"), ("int_val", 7, "int32"),
    ("scomplex_val", 9, "float"), ("int64_val", 10, "int64"), ("bool_val", 11, "bool"),
    ("dcomplex_val", 12, "double"), ("half_val", 13, "int32"),
]  # fmt: skip
_TENSOR_HEAD = [("dtype", 1, "enum", ""), ("shape", 2, "TensorShape", ""),
                ("tensor_content", 4, "bytes", ""), ("string_val", 8, "bytes", "*")]  # fmt: skip
_SCHEMA: dict[str, list[tuple[str, int, str, str]]] = {
    "Version": [("producer", 1, "int32", ""), ("min_consumer", 2, "int32", ""),
                ("bad_consumers", 3, "int32", "+")],
    "BundleHeader": [("num_shards", 1, "int32", ""), ("endianness", 2, "enum", ""),
                     ("version", 3, "Version", "")],
    "Dim": [("size", 1, "int64", ""), ("name", 2, "bytes", "")],
    "TensorShape": [("dim", 2, "Dim", "*"), ("unknown_rank", 3, "bool", "")],
    "Extent": [("start", 1, "int64", ""), ("length", 2, "int64", "1")],
    "TensorSlice": [("extent", 1, "Extent", "*")],
    "BundleEntry": [("dtype", 1, "enum", ""), ("shape", 2, "TensorShape", ""),
                    ("shard_id", 3, "int32", ""), ("offset", 4, "int64", ""),
                    ("size", 5, "int64", ""),
                    ("crc32c", 6, "fixed32", ""), ("slices", 7, "TensorSlice", "*")],
    "Tensor": _TENSOR_HEAD + [(n, i, t, "+") for n, i, t in _VALUES],
    "UnpackedTensor": _TENSOR_HEAD + [(n, i, t, "*") for n, i, t in _VALUES],
    "SavedSliceMeta": [("name", 1, "bytes", ""), ("shape", 2, "TensorShape", ""),
                       ("type", 3, "enum", ""), ("slice", 4, "TensorSlice", "*")],
    "SavedMeta": [("tensor", 1, "SavedSliceMeta", "*"), ("versions", 2, "Version", "")],
    "SavedSlice": [("name", 1, "bytes", ""), ("slice", 2, "TensorSlice", ""),
                   ("data", 3, "Tensor", "")],
    "SavedTensorSlices": [("meta", 1, "SavedMeta", ""), ("data", 2, "SavedSlice", "")],
    "Child": [("node_id", 1, "int32", ""), ("local_name", 2, "bytes", "")],
    "Attribute": [("name", 1, "bytes", ""), ("full_name", 2, "bytes", ""),
                  ("checkpoint_key", 3, "bytes", "")],
    "SlotVariable": [("original_variable_node_id", 1, "int32", ""), ("slot_name", 2, "bytes", ""),
                     ("slot_variable_node_id", 3, "int32", "")],
    "TrackableObject": [("children", 1, "Child", "*"), ("attributes", 2, "Attribute", "*"),
                        ("slot_variables", 3, "SlotVariable", "*")],
    "TrackableObjectGraph": [("nodes", 1, "TrackableObject", "*")],
}  # fmt: skip


def _file() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(name="craft.proto", package=_PACKAGE, syntax="proto3")
    for message_name, fields in _SCHEMA.items():
        message = file.message_type.add(name=message_name)
        for name, number, kind, label in fields:
            field = message.field.add(name=name, number=number)
            field.label = 3 if label in ("*", "+") else 1
            if kind in _SCALARS:
                field.type = _SCALARS[kind]  # type: ignore[assignment]
                if label == "*" and kind != "bytes":
                    field.options.packed = False
            else:
                field.type = 11  # type: ignore[assignment]
                field.type_name = f".{_PACKAGE}.{kind}"
            if label == "1":
                message.oneof_decl.add(name=f"has_{name}")
                field.oneof_index = 0
    return file


_POOL = descriptor_pool.DescriptorPool()
_POOL.AddSerializedFile(_file().SerializeToString())


def _message(name: str) -> Any:
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"{_PACKAGE}.{name}"))


BundleHeader = _message("BundleHeader")
BundleEntry = _message("BundleEntry")
TensorShape = _message("TensorShape")
TensorSlice = _message("TensorSlice")
Tensor = _message("Tensor")
UnpackedTensor = _message("UnpackedTensor")
SavedTensorSlices = _message("SavedTensorSlices")
TrackableObjectGraph = _message("TrackableObjectGraph")
