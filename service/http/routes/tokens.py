"""`POST /tokenize` and `/detokenize`, as vLLM has them: the ids that the text tower sees for a text, and back.

A model's default prompt is a part of what it sees.
"""

from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from model.errors import TextError
from service.errors import Invalid, from_model_error
from service.http import schemas
from service.http.bodies.json_object import read_json
from service.http.bodies.receive import BodyLimits
from service.http.context import RequestContext
from service.http.dialects.conversations import Message, inputs_of_messages
from service.http.dialects.dialect import Served, checked
from service.http.dialects.vllm_options import ChatOptions
from service.limits import no_text
from service.requests.parameters import check_query
from service.requests.request import TextInput
from service.requests.text_reader import TextReader

# An id that fits into 32 bits: the tokenizer takes no others.
TokenId = Annotated[int, Field(ge=0, lt=2**31)]


class TokenizeRequest(ChatOptions):
    """A text, or messages that have one."""

    model_config = ConfigDict(extra="forbid")

    model: str | None = Field(None, description="The served model's name, or one of model_aliases.")
    prompt: str | None = Field(None, description="The text.")
    messages: Annotated[list[Message], Field(fail_fast=True)] | None = Field(
        None, description="Instead of prompt: a conversation of one text."
    )
    add_special_tokens: bool | None = Field(
        None, description="Control tokens are part of what the tower sees: false is refused with a prompt."
    )
    return_token_strs: bool | None = Field(None, description="Also give the vocabulary's word for each id.")


class TokenizeAnswer(BaseModel):
    count: int = Field(description="Ids that the tower sees, padding included: what the text is charged.")
    max_model_len: int = Field(description="Most ids of a text.")
    tokens: list[int]
    token_strs: list[str] | None = None
    truncated: bool = Field(description="The text had more ids, and its end was cut off.")


class DetokenizeRequest(BaseModel):
    """The ids of a text."""

    model_config = ConfigDict(extra="forbid")

    model: str | None = Field(None, description="The served model's name, or one of model_aliases.")
    tokens: Annotated[list[TokenId], Field(fail_fast=True)] = Field(description="As /tokenize gives them.")


class DetokenizeAnswer(BaseModel):
    prompt: str = Field(description="The text, as the vocabulary writes it.")


def tokens_router(served: Served, reader: TextReader | None, limits: BodyLimits) -> APIRouter:
    """reader: None for a model without text, whose requests are refused."""
    router = APIRouter()

    async def content_of(request: Request, model: type[BaseModel]) -> tuple[TextReader, dict[str, Any]]:
        check_query(request.scope["query_string"], model.model_fields)
        content = await read_json(request, RequestContext.of(request.scope).hold, limits)
        if reader is None:
            raise Invalid(no_text(served.model.name))
        return reader, content

    @router.post(
        "/tokenize",
        responses=schemas.error_responses(),
        summary="The ids of a text",
    )
    async def tokenize(request: Request) -> TokenizeAnswer:
        found, content = await content_of(request, TokenizeRequest)
        given = checked(TokenizeRequest, content)
        served.check_name(given.model)
        prompt = served.model.text.prompt() if served.model.text else ""
        (tokens,) = await found.read([_text(given, served)], truncate=True, prompt=prompt)
        if isinstance(tokens, TextError):
            raise _named(tokens, "prompt" if given.messages is None else "messages")
        ids = tokens.ids.tolist()
        words = await found.pieces(ids) if given.return_token_strs else None
        return TokenizeAnswer(
            count=len(ids),
            max_model_len=found.context,
            tokens=ids,
            token_strs=words,
            truncated=tokens.truncated,
        )

    @router.post(
        "/detokenize",
        responses=schemas.error_responses(),
        summary="The text of ids",
    )
    async def detokenize(request: Request) -> DetokenizeAnswer:
        found, content = await content_of(request, DetokenizeRequest)
        given = checked(DetokenizeRequest, content)
        served.check_name(given.model)
        try:
            return DetokenizeAnswer(prompt=await found.text(given.tokens))
        except TextError as error:
            raise _named(error, "tokens") from None

    return router


def _text(given: TokenizeRequest, served: Served) -> str:
    """Raises `Invalid`."""
    if (given.prompt is None) == (given.messages is None):
        raise Invalid("send either prompt or messages", param="prompt")
    if given.chat_template is not None or given.chat_template_kwargs:
        raise Invalid("the model has no template for a chat", param="chat_template")
    if given.messages is None:
        if given.add_special_tokens is False:
            raise Invalid("the model was trained on texts with control tokens", param="add_special_tokens")
        return given.prompt or ""
    inputs = inputs_of_messages(given.messages, served, separate=False, max_tokens=None)
    if len(inputs) != 1 or not isinstance(inputs[0], TextInput) or not isinstance(inputs[0].content, str):
        raise Invalid("images have no ids; POST /plan tells how many tokens they take", param="messages")
    return inputs[0].content


def _named(error: TextError, param: str) -> Exception:
    named = from_model_error(error)
    named.param = param
    return named
