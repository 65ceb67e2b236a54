"""Fields that vLLM, infinity and NIM add to OpenAI's requests: what they ask for, and which of them change nothing.

A field that would change a vector, and that this server does not do, is refused by name.
"""

import sys
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from service.errors import Invalid
from service.http.dialects.dialect import INPUT_TYPE, Served
from service.priority import Priority, named
from service.requests.parameters import EmbedParameters
from service.requests.request import ImageBounds, ImageInput, Input, TextInput, parts_of
from service.requests.vectors import Element, Endianness, VectorFormat, check_dimensions

_NOTHING = "Taken, and changes nothing."
_EXPECTED = "The fingerprint that the vectors must have, as in `POST /embed`."
_ELEMENTS: dict[str, Element] = {"float32": "float", "float16": "float16", "bfloat16": "bfloat16"}


class ProcessorSize(BaseModel):
    """The area of an image as Qwen's processors have it: pixels, not edges."""

    model_config = ConfigDict(extra="forbid")

    shortest_edge: int | None = Field(None, description="Fewest pixels of an image, as min_pixels.")
    longest_edge: int | None = Field(None, description="Most pixels of an image, as max_pixels.")


class ProcessorOptions(BaseModel):
    """Options of the image processor that are budgets."""

    model_config = ConfigDict(extra="forbid")

    max_pixels: int | None = Field(None, description="Most pixels of an image after resizing.")
    min_pixels: int | None = Field(None, description="Fewest pixels of an image after resizing. For native sizes.")
    max_soft_tokens: int | None = Field(None, description="Most output tokens of an image: fewer if they are merged.")
    max_num_patches: int | None = Field(None, description="Most tokens of an image, as max_tokens.")
    size: ProcessorSize | None = Field(None, description="For Qwen's towers.")


class RequestOptions(BaseModel):
    """Fields of every request that vLLM reads."""

    model_config = ConfigDict(extra="forbid")

    model: str | None = Field(None, description="The served model's name, or one of model_aliases.")
    user: str | None = Field(None, description=_NOTHING)
    request_id: str | None = Field(None, max_length=256, description="Comes back as the id of the answer.")
    priority: int | Priority | None = Field(
        None, description="0, the default, or less: interactive. More: bulk, which goes later. Or one of these words."
    )
    cache_salt: str | None = Field(None, description=_NOTHING)
    expect_fingerprint: str | None = Field(None, description=_EXPECTED)
    max_tokens: int | None = Field(None, description="Most tokens of an image.")
    max_pixels: int | None = Field(None, description="Most pixels of an image after resizing.")
    min_pixels: int | None = Field(None, description="Fewest pixels of an image after resizing. For native sizes.")
    mm_processor_kwargs: ProcessorOptions | None = Field(None, description="Budgets as the image processor names them.")
    truncate_prompt_tokens: int | None = Field(
        None, ge=-1, description="-1 or at least the model's own length: a text is cut there. Fewer are refused."
    )
    truncation_side: Literal["left", "right"] | None = Field(None, description="right: the end of a text is cut off.")
    truncate: Literal["END", "NONE", "START"] | None = Field(
        None, description="As NIM has it. END: cut the end of a text that is too long. NONE: refuse it."
    )
    padding: Literal["max_length", "do_not_pad"] | None = Field(
        None,
        description="How texts are filled up. Refused if the model was trained otherwise and a vector would change.",
    )
    add_special_tokens: bool | None = Field(None, description="false is refused for texts.")
    input_type: str | None = Field(None, description=INPUT_TYPE)

    @property
    def answer_id(self) -> dict[str, str]:
        """The answer's `id`; empty if the request has none."""
        return {} if self.request_id is None else {"id": self.request_id}


class VectorOptions(BaseModel):
    """How vLLM lets a caller choose what an embedding is written as."""

    encoding_format: Literal["float", "base64", "bytes", "bytes_only"] = Field(
        "float",
        description="base64: of little-endian float32, if the other fields do not say otherwise. bytes: the numbers "
        "of all vectors as the body, and the rest of the answer in the header `metadata`. bytes_only: without it.",
    )
    embed_dtype: Literal["float32", "float16", "bfloat16"] = Field(
        "float32", description="The type of numbers in base64 and bytes. Numbers in JSON are float32."
    )
    endianness: Literal["native", "little", "big"] | None = Field(
        None, description="The byte order of base64 and bytes."
    )
    embed_endianness: Literal["native", "little", "big"] | None = Field(None, description="The same as endianness.")
    embedding_type: Literal["float"] | None = Field(None, description="NIM's other types are refused.")
    dimensions: int | None = Field(
        None, ge=0, description="Cut embeddings to this width and normalise them again. 0: do not cut them."
    )
    use_activation: bool | None = Field(None, description="false: embeddings are not scaled to length 1.")
    normalize: bool | None = Field(None, description="The same as use_activation, as vLLM named it before.")

    @property
    def normalizes(self) -> bool:
        """Raises `Invalid` if the two names contradict one another."""
        if None not in (self.use_activation, self.normalize) and self.use_activation != self.normalize:
            raise Invalid("use_activation and normalize contradict one another; send one of them", param="normalize")
        return self.use_activation is not False and self.normalize is not False

    def format(self, served: Served) -> VectorFormat:
        """Raises `Invalid`."""
        check_dimensions(self.dimensions or None, served.model.dim, served.model.matryoshka_dimensions)
        if None not in (self.endianness, self.embed_endianness) and self.endianness != self.embed_endianness:
            raise Invalid(
                "endianness and embed_endianness contradict one another; send one of them", param="embed_endianness"
            )
        as_numbers = self.encoding_format == "float"
        return VectorFormat(
            element="float" if as_numbers else _ELEMENTS[self.embed_dtype],
            dimensions=self.dimensions or None,
            normalize=self.normalizes,
            base64=self.encoding_format == "base64",
            endianness=_order(self.endianness or self.embed_endianness),
        )


class ChatOptions(BaseModel):
    """Fields of a request that brings messages. The models that are served have no template for a chat."""

    add_generation_prompt: bool | None = Field(None, description=_NOTHING)
    continue_final_message: bool | None = Field(None, description=_NOTHING)
    chat_template: str | None = Field(None, description="Changes no image. Refused for texts.")
    chat_template_kwargs: dict[str, Any] | None = Field(None, description="Changes no image. Refused for texts.")
    media_io_kwargs: dict[str, dict[str, Any]] | None = Field(
        None, description="Options for `video` and `audio` change nothing; those for `image` are refused."
    )


def parameters_of(options: RequestOptions, served: Served, vectors: VectorFormat | None = None) -> EmbedParameters:
    """The parameters of the whole request. vectors: None for numbers as they are. Raises `Invalid`."""
    # Queries and documents of a score have prompts of their own, and one field names one.
    task = None if vectors is None else served.task(options.input_type)
    vectors = vectors or VectorFormat()
    bounds = _bounds(options, served)
    return EmbedParameters(
        embedding_type="float16" if vectors.element == "float16" else "float",
        dimensions=vectors.dimensions,
        max_tokens=bounds.max_tokens,
        max_pixels=bounds.max_pixels,
        min_pixels=bounds.min_pixels,
        normalize=vectors.normalize,
        truncate="error" if options.truncate == "NONE" else "end",
        task=task,
        decode=served.decode,
        expect_fingerprint=options.expect_fingerprint,
        priority=named(options.priority or 0),
    )


def check_inputs(options: RequestOptions, inputs: Sequence[Input], served: Served) -> None:
    """Raises `Invalid` for a field that would change one of the inputs in a way that is not done here."""
    parts = [part for each in inputs for part in parts_of(each)]
    if any(isinstance(part, ImageInput) for part in parts) and isinstance(options, ChatOptions):
        for kind, given in (options.media_io_kwargs or {}).items():
            if given and kind not in ("video", "audio"):
                raise Invalid(
                    f"media_io_kwargs.{kind[:40]} would change how an image is read; it is not done here",
                    param="media_io_kwargs",
                )
    texts = [part for part in parts if isinstance(part, TextInput)]
    if texts and served.model.text is not None:
        pads = served.model.text.family in ("siglip", "siglip2")
        prompts_ids = served.task(options.input_type) is not None and any(
            isinstance(each.content, list) for each in texts
        )
        _check_texts(options, served.model.text.context, pads=pads, prompts_ids=prompts_ids)


def _check_texts(options: RequestOptions, context: int, *, pads: bool, prompts_ids: bool) -> None:
    """context: the most tokens of a text. pads: the model was trained on texts that are filled up to that length.
    prompts_ids: whether a prompt is asked for before the ids of a text."""
    whole = options.truncate_prompt_tokens in (None, -1) or (options.truncate_prompt_tokens or 0) >= context
    # CLIP reads a text at its end token, and nothing behind that counts.
    refused = {
        "truncate_prompt_tokens": (not whole, f"texts are cut to the model's {context} tokens, which -1 says too"),
        "truncation_side": (options.truncation_side == "left", "the end of a text is cut off, never its beginning"),
        "truncate": (options.truncate == "START", "the end of a text is cut off (END), never its beginning"),
        "padding": (pads and options.padding == "do_not_pad", f"the model was trained on texts of {context} tokens"),
        "input_type": (prompts_ids, "its prompt stands before a text, and not before ids; send the text"),
        "add_special_tokens": (options.add_special_tokens is False, "the model was trained on texts that have them"),
    }
    if isinstance(options, ChatOptions):
        unused = "the model has no template for a chat; send the text as it is to be read"
        refused["chat_template"] = (options.chat_template is not None, unused)
        refused["chat_template_kwargs"] = (bool(options.chat_template_kwargs), unused)
    for name, (wrong, why) in refused.items():
        if wrong:
            raise Invalid(f"{name} would change the vectors of texts: {why}", param=name)


def _bounds(options: RequestOptions, served: Served) -> ImageBounds:
    """The bounds of every image. Raises `Invalid` for one given twice, or a size that the model does not have."""
    asked = options.mm_processor_kwargs or ProcessorOptions()
    size = asked.size or ProcessorSize()
    geometry = served.model.geometry
    if asked.size is not None and (geometry.default_strategy != "native" or geometry.shrink):
        raise Invalid(
            "mm_processor_kwargs.size is an area for Qwen's towers; this model takes max_tokens or max_pixels",
            param="mm_processor_kwargs",
        )
    soft = asked.max_soft_tokens
    return ImageBounds(
        max_tokens=_one(
            max_tokens=options.max_tokens,
            max_num_patches=asked.max_num_patches,
            max_soft_tokens=None if soft is None else soft * geometry.merged_tokens,
        ),
        max_pixels=_one(
            max_pixels=options.max_pixels,
            **{"mm_processor_kwargs.max_pixels": asked.max_pixels, "size.longest_edge": size.longest_edge},
        ),
        min_pixels=_one(
            min_pixels=options.min_pixels,
            **{"mm_processor_kwargs.min_pixels": asked.min_pixels, "size.shortest_edge": size.shortest_edge},
        ),
    )


def _one(**named: int | None) -> int | None:
    """The one that is given. Raises `Invalid` for several."""
    given = {name: value for name, value in named.items() if value is not None}
    if len(given) > 1:
        raise Invalid(f"{' and '.join(given)} are one bound; send one of them", param=min(given))
    return next(iter(given.values()), None)


def _order(named: Literal["native", "little", "big"] | None) -> Endianness:
    return named if named in ("little", "big") else ("little" if sys.byteorder == "little" else "big")
