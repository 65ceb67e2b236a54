"""Texts of the command line: strings in, vectors out, in packs."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from model.errors import TextError
from model.pack import pack_texts
from service.engine.forward import have_directions
from service.errors import Invalid
from service.jobs.rows import TextVector
from service.limits import Limits, ModelFacts, TextFacts, no_text
from service.loading import tokenizer_of
from service.requests.results import normalized
from service.settings.names import SettingsError
from service.settings.settings import Settings

if TYPE_CHECKING:
    from model.running.runner import Runner
    from model.texts.tokenizer import TextTokenizer
    from model.texts.tokens import TextTokens


class TextEmbedder:
    """Embeds texts with one runner."""

    def __init__(
        self, runner: "Runner", tokenizer: "TextTokenizer", *, max_batch_tokens: int, prompt: str = ""
    ) -> None:
        """prompt: stands before every text."""
        self._runner, self._tokenizer, self._max_batch_tokens = runner, tokenizer, max_batch_tokens
        self._prompt = prompt

    @classmethod
    def of(cls, settings: Settings, runner: "Runner", model: ModelFacts, *, task: str | None = None) -> "TextEmbedder":
        """Raises `SettingsError` for a model without text, or without a prompt for the task."""
        facts = text_of(model)
        return cls(
            runner,
            tokenizer_of(settings, facts),
            max_batch_tokens=Limits.of(settings, model).max_batch_tokens,
            prompt=_prompt(model, facts, task),
        )

    def embed(self, texts: Sequence[str], *, normalize: bool = True) -> list[TextVector]:
        """One vector for each text, in order. A text that is too long is cut. Raises `TextError`."""
        read = [self._tokenizer.encode(self._prompt + text) for text in texts]
        found: list[TextVector] = []
        for pack in self._packs(read):
            pooled = self._runner.run_texts(pack_texts([text.ids for text in pack])).pooled
            if not have_directions(pooled):
                raise TextError("a text's vector is zeros or not finite in this dtype; try --dtype float32")
            for text, vector in zip(pack, normalized(pooled) if normalize else pooled, strict=True):
                found.append(TextVector(texts[len(found)], len(text.ids), text.truncated, vector))
        return found

    def _packs(self, texts: Sequence["TextTokens"]) -> Iterator[list["TextTokens"]]:
        pack: list[TextTokens] = []
        tokens = 0
        for text in texts:
            if pack and tokens + len(text.ids) > self._max_batch_tokens:
                yield pack
                pack, tokens = [], 0
            pack.append(text)
            tokens += len(text.ids)
        if pack:
            yield pack


def _prompt(model: ModelFacts, facts: TextFacts, task: str | None) -> str:
    if facts.documents is None:
        if task is not None:
            raise SettingsError(f"--task: {model.name} has no prompts")
        return ""
    try:
        return facts.documents.prompt(task)
    except Invalid as error:
        raise SettingsError(f"--task: {error.message}") from None


def text_of(model: ModelFacts) -> TextFacts:
    """Raises `SettingsError` for a model without text."""
    if model.text is None:
        raise SettingsError(no_text(model.name))
    return model.text
