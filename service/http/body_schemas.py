"""What `/docs` says of the bodies that requests bring. Schemas for readers: nothing is validated by them."""

from collections.abc import Mapping
from functools import cache
from typing import Any

from pydantic import BaseModel

from service.requests.parameters import HEADERS, OF_VECTORS, EmbedParameters

_FILE = {"type": "string", "format": "binary"}
_FORM_IMAGES = {
    "type": "array",
    "items": _FILE,
    "description": "Parts named images, file, files, or one of these four with [], are images too.",
}
_IMAGE_TEXT = {
    "description": "A base64 string, a base64 data URI, a URL if the server fetches it, or an object with one "
    "of them as its only value.",
    "anyOf": [
        {"type": "string"},
        *(
            {
                "type": "object",
                "required": [name],
                "properties": {name: {"type": "string"}},
                "additionalProperties": False,
            }
            for name in ("url", "image")
        ),
    ],
}
_TEXTS = {
    "type": "array",
    "items": {"type": "string"},
    "description": "Texts, beside images or alone, if the model takes text. Their items come after the images'.",
}


_INPUTS = {
    "type": "array",
    "items": {
        "type": "array",
        "minItems": 1,
        "items": {
            "anyOf": [
                {
                    "type": "object",
                    "required": [name],
                    "properties": {name: {"type": "string"}},
                    "additionalProperties": False,
                }
                for name in ("text", "image")
            ]
        },
    },
    "description": "Texts and images that become one vector each, in place of images and texts, if the model fuses "
    "them. An image is base64, a data URI, or a URL if the server fetches it.",
}


def embed_body() -> dict[str, Any]:
    """The three forms of a body of `POST /embed`, and its query."""
    parameters = EmbedParameters.model_json_schema()["properties"]
    inputs = {
        "images": {"type": "array", "items": _IMAGE_TEXT, "description": "Several images."},
        "image": _IMAGE_TEXT,
        "texts": _TEXTS,
        "inputs": _INPUTS,
    }
    form = {"type": "object", "required": ["image"], "properties": {"image": _FORM_IMAGES, **parameters}}
    return {
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": {"schema": form},
                "image/*": {"schema": _FILE},
                "application/json": {
                    "schema": {
                        "type": "object",
                        "properties": inputs | {name: _or_null(schema) for name, schema in parameters.items()},
                        "anyOf": [{"required": [name]} for name in inputs],
                        "not": {"required": ["images", "image"]},
                    }
                },
            },
        },
        "parameters": [
            *(
                {"in": "query", "name": name, "required": False, "schema": schema}
                for name, schema in parameters.items()
            ),
            *header_parameters(HEADERS)["parameters"],
        ],
    }


def classify_body(model: type[BaseModel]) -> dict[str, Any]:
    """The body of `POST /embed` with `model`'s fields beside the images. A raw image has no place for labels."""
    body = embed_body()
    content = body["requestBody"]["content"]
    del content["image/*"]
    body["parameters"] = [parameter for parameter in body["parameters"] if parameter["name"] not in OF_VECTORS]
    own = model.model_json_schema()
    form, json = content["multipart/form-data"]["schema"], content["application/json"]["schema"]
    del json["properties"]["texts"], json["properties"]["inputs"], json["anyOf"], json["not"]
    json["oneOf"] = [{"required": [name]} for name in ("images", "image")]
    nullable = {
        name: schema if name in own["required"] else _or_null(schema) for name, schema in own["properties"].items()
    }
    for schema, fields in ((form, own["properties"]), (json, nullable)):
        for name in OF_VECTORS:
            del schema["properties"][name]
        schema["properties"] |= fields
        schema["required"] = [*schema.get("required", ()), *own["required"]]
    return body


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of an optional field of JSON: null means that it is left out."""
    if {"type": "null"} in schema.get("anyOf", ()):
        return schema
    about = {name: value for name, value in schema.items() if name in ("title", "description", "default")}
    return about | {"anyOf": [{name: schema[name] for name in schema if name not in about}, {"type": "null"}]}


def json_body(*models: type[BaseModel]) -> dict[str, Any]:
    """A body that one of `models` reads."""
    schemas = [_resolved(model) for model in models]
    schema = schemas[0] if len(schemas) == 1 else {"anyOf": schemas}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def header_parameters(headers: Mapping[str, str]) -> dict[str, Any]:
    """Headers that a request may have, with what each does."""
    return {
        "parameters": [
            {"in": "header", "name": name, "required": False, "description": does, "schema": {"type": "string"}}
            for name, does in headers.items()
        ]
    }


def form_body(model: type[BaseModel]) -> dict[str, Any]:
    """A form that `model` reads, with an image among its parts."""
    schema = _resolved(model)
    form = schema | {"properties": schema.get("properties", {}) | {"image": _FILE}}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": form}}}}


@cache
def _resolved(model: type[BaseModel]) -> dict[str, Any]:
    """A model's schema, with every reference replaced by what it refers to. It is shared: nobody may change it.

    It takes milliseconds to make, and several paths read the same model."""
    schema = model.model_json_schema()
    definitions = schema.pop("$defs", {})

    def resolve(node: Any) -> Any:
        if isinstance(node, list):
            return [resolve(item) for item in node]
        if not isinstance(node, dict):
            return node
        if "$ref" in node:
            return resolve(definitions[node["$ref"].rpartition("/")[2]])
        resolved = {key: resolve(value) for key, value in node.items()}
        if node.get("type") == "object":
            fields = resolved.get("properties", {})
            resolved["properties"] = {
                name: field if name in node.get("required", ()) else _or_null(field) for name, field in fields.items()
            }
        return resolved

    resolved: dict[str, Any] = resolve(schema)
    return resolved
