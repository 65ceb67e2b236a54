"""What the served model is, and the limits that follow from it and the settings. Plain values: no torch here."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from model.encoders.gemma.frame import Frame
from model.fingerprint import difference, identity_of, is_expected, today
from model.sizing.budget import Budget, settle_budget
from model.sizing.geometry import Geometry, Strategy
from service.errors import FingerprintMismatch, Invalid
from service.int8_scale import Int8Scale
from service.settings.names import SettingsError
from service.settings.settings import Settings

if TYPE_CHECKING:
    from model.images.decode import DecodeMode

# The largest image if neither the settings nor the model bound it: a model of any grid takes any number of tokens.
_MAX_IMAGE_TOKENS = 1024
# Of a caller's own words, a message repeats so much.
_NAMED_CHARS = 100


@dataclass(frozen=True, slots=True)
class DocumentFacts:
    """How texts and images become documents of one vector.

    frame: the ids around a document and around an image in it. pooled: patches a side of a soft token. prompts: by
    their names, what stands before a text for each task. default_prompt: the name of the usual one, None for none.
    """

    frame: Frame
    pooled: int
    prompts: dict[str, str]
    default_prompt: str | None

    def prompt(self, task: str | None) -> str:
        """What stands before a text. Raises `Invalid` for a task that the model has no prompt for."""
        name = self.default_prompt if task is None else task
        if name is None:
            return ""
        if name not in self.prompts:
            known = ", ".join(self.prompts) or "none"
            raise Invalid(f"task is {name[:40]!r}; the model's tasks are {known}", param="task")
        return self.prompts[name]


@dataclass(frozen=True, slots=True)
class TextFacts:
    """The model's text tower.

    context: the most tokens of a text. preprocessing: the name of what is done to a text before its ids are looked up.
    logit_scale, logit_bias: what turns a cosine into the model's logit, `scale * cosine + bias`; CLIP has no bias.
    probability: how the model was trained to read its logits. fingerprint: of how texts become vectors; an
    index of images does not depend on it. folder, family, vocabulary: what `read_tokenizer` asks for. documents: if
    the model makes one vector of several texts and images; it then has no logits. old_fingerprints: as in `ModelFacts`.
    """

    context: int
    preprocessing: str
    logit_scale: float | None
    logit_bias: float | None
    probability: Literal["sigmoid", "softmax"] | None
    fingerprint: str
    folder: str
    family: Literal["siglip2", "siglip", "clip", "embedding_gemma2"]
    vocabulary: int
    documents: DocumentFacts | None = None
    old_fingerprints: Mapping[str, str] = field(default_factory=dict)

    def prompt(self, task: str | None = None) -> str:
        """What stands before a text; empty for a model without prompts. Raises `Invalid` for a task without one."""
        return self.documents.prompt(task) if self.documents else ""

    def described(self) -> dict[str, Any]:
        """The fields that callers may know."""
        fields = asdict(self)
        for private in ("folder", "family", "vocabulary", "documents", "old_fingerprints"):
            del fields[private]
        if self.documents is None:
            return fields
        for logits in ("logit_scale", "logit_bias", "probability"):
            del fields[logits]
        return fields | {
            "inputs": True,
            "tasks": self.documents.prompts,
            "default_task": self.documents.default_prompt,
        }


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What callers may know of the model and its device.

    dim: width of an embedding. token_dim: width of an output token's vector; it differs if a projection follows the
    pooling or features of further layers are appended to each token. default_max_tokens: an image's cap if nobody
    gives one; for a model of one grid, the tokens of that grid. fingerprint, fast_fingerprint: of the vectors of
    images decoded exactly and fast. card: the file that says what the model is good for, if there is one. text: None
    if the model takes no text. language_positions: how the model's own language model counts its tokens, None without
    one. matryoshka_dimensions: how many of its first numbers an embedding may be cut to, empty for any; None if the
    checkpoint does not say that it may be cut. int8: how embeddings become 8-bit integers.
    pooling: what an embedding is, None for a model that leaves no choice. old_fingerprints: by the fingerprints that
    earlier versions gave to these weights under any dtype and decode mode, those of today.
    """

    name: str
    dim: int
    token_dim: int
    geometry: Geometry
    default_max_tokens: int
    parameters: int
    fingerprint: str
    fast_fingerprint: str
    device: str
    dtype: str
    attention: str
    card: str | None = None
    text: TextFacts | None = None
    matryoshka_dimensions: tuple[int, ...] | None = None
    # `model.encoders` names these values, and imports torch. An engine process's message needs the type at run time.
    language_positions: Literal["mrope", "sequence", "rows"] | None = None
    int8: Int8Scale = Int8Scale()
    pooling: Literal["cls", "mean"] | None = None
    old_fingerprints: Mapping[str, str] = field(default_factory=dict)

    def fingerprint_of(self, decode: "DecodeMode") -> str:
        """By the mode that the request asked for, even for images that `fast` decodes exactly."""
        return self.fast_fingerprint if decode == "fast" else self.fingerprint

    def check_expected(self, named: str, decode: "DecodeMode") -> None:
        """named: a fingerprint, an identity, or several of them with commas between: each must be that of images or
        that of texts. Raises `FingerprintMismatch`, which names both, and `Invalid` if none is named."""
        expected = [each.strip() for each in named.split(",") if each.strip()]
        if not expected:
            raise Invalid("expect_fingerprint names no fingerprint; /info has the server's", param="expect_fingerprint")
        ours = [(self.fingerprint_of(decode), self.old_fingerprints)]
        if self.text is not None:
            ours.append((self.text.fingerprint, self.text.old_fingerprints))
        for each in expected:
            if not any(is_expected(each, *own) for own in ours):
                raise _mismatch(each, ours)

    @property
    def patch_size(self) -> int:
        return self.geometry.patch_size

    def output_tokens(self, tokens: int) -> int:
        """How many vectors `output=tokens` gives for so many tokens: fewer if the model merges them."""
        return tokens // self.geometry.merged_tokens

    @property
    def summary(self) -> str:
        """What a log says at the start."""
        texts = f"texts of up to {self.text.context} tokens" if self.text else "no texts"
        return f"{self.name} on {self.device} in {self.dtype}, attention {self.attention}, {texts}"

    def described(self) -> dict[str, Any]:
        """The fields for `/info`, with the patch size in front. `layout` stays for clients that read it."""
        text = self.text.described() if self.text else None
        fields = {name: value for name, value in asdict(self).items() if name != "old_fingerprints"}
        return {"name": self.name, "patch_size": self.patch_size} | fields | {"text": text, "layout": "packed"}


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds for one model on one device, in tokens but for the last.

    max_queue_tokens: of one HTTP process. max_batch_items: images and texts of one pack, None for as many as fit.
    max_text_tokens: the model's own; None if it takes no text. max_bulk_batch_tokens: of a pack of bulk alone, None for
    `max_batch_tokens`. bulk_share: of a pack while both classes wait. interactive_queue_share: of `max_queue_tokens`,
    what bulk cannot have. max_wait_s: how long the oldest item may wait for others.
    """

    default_max_tokens: int
    max_image_tokens: int
    max_batch_tokens: int
    max_queue_tokens: int
    max_batch_items: int | None = None
    max_text_tokens: int | None = None
    max_bulk_batch_tokens: int | None = None
    bulk_share: float = 0.25
    interactive_queue_share: float = 0.25
    max_wait_s: float = 0.0

    @classmethod
    def of(cls, settings: Settings, facts: ModelFacts) -> "Limits":
        """The settings, with what they leave open taken from the model and the device. Raises `SettingsError`."""
        batch = settings.max_batch_tokens or (16_384 if facts.device.startswith("cuda") else 4_096)
        image = settings.max_image_tokens or min(largest_image_tokens(facts.geometry), batch)
        tokens = {
            "default_max_tokens": settings.default_max_tokens or min(facts.default_max_tokens, image),
            "max_image_tokens": image,
            "max_batch_tokens": batch,
            "max_queue_tokens": settings.max_queue_tokens or 8 * batch,
        }
        whose = {"max_batch_tokens": facts.device, "max_image_tokens": facts.name}
        notes = {name: f", the default for {owner}" for name, owner in whose.items() if getattr(settings, name) is None}
        settings.check_tokens(tokens, notes=notes)
        tokens["max_queue_tokens"] //= settings.http_workers
        # The kernel that a GPU picks depends on the number of rows. Alone, an image has the same number every time.
        alone = settings.deterministic and facts.device.startswith("cuda")
        text = facts.text.context if facts.text else None
        limits = cls(
            **tokens, max_batch_items=1 if alone else None, max_text_tokens=text,
            max_bulk_batch_tokens=settings.max_bulk_batch_tokens, bulk_share=settings.bulk_share,
            interactive_queue_share=settings.interactive_queue_share, max_wait_s=settings.max_wait_ms / 1000,
        )  # fmt: skip
        limits._check_fixed(facts)
        limits._check_text(facts)
        if settings.anyres_tile or settings.anyres_pinpoints:
            limits._check_layouts(facts.geometry)
        return limits

    def _check_fixed(self, facts: ModelFacts) -> None:
        """A model of one grid cannot be given less."""
        if facts.geometry.fixed is None:
            return
        for name in ("max_batch_tokens", "max_image_tokens", "default_max_tokens"):
            if getattr(self, name) < facts.default_max_tokens:
                raise SettingsError(
                    f"{name} ({getattr(self, name)}) is under the {facts.default_max_tokens} tokens that {facts.name} "
                    "takes for any image"
                )

    def _check_text(self, facts: ModelFacts) -> None:
        """A pack must hold the longest text."""
        if self.max_text_tokens and self.max_batch_tokens < self.max_text_tokens:
            raise SettingsError(
                f"max_batch_tokens ({self.max_batch_tokens}) is under the {self.max_text_tokens} tokens that a text of "
                f"{facts.name} may take"
            )

    def _check_layouts(self, geometry: Geometry) -> None:
        """Settings that let no image be tiled are refused here; otherwise every `anyres` request would be."""
        smallest = min(geometry.layout_tokens)
        if smallest > self.max_image_tokens:
            raise SettingsError(
                f"by anyres_tile and anyres_pinpoints the smallest layout takes {smallest} tokens with its thumbnail, "
                f"which is over max_image_tokens ({self.max_image_tokens})"
            )

    @property
    def max_item_tokens(self) -> int:
        """Tokens of the largest image or text."""
        return max(self.max_image_tokens, self.max_text_tokens or 0)

    def budget(
        self,
        geometry: Geometry,
        strategy: Strategy,
        *,
        max_tokens: int | None = None,
        max_pixels: int | None = None,
        min_pixels: int | None = None,
    ) -> Budget:
        """The bounds of one image. Raises `BudgetError`."""
        return settle_budget(
            geometry=geometry,
            strategy=strategy,
            max_tokens=max_tokens,
            max_pixels=max_pixels,
            min_pixels=min_pixels,
            default_max_tokens=self.default_max_tokens,
            max_image_tokens=self.max_image_tokens,
        )


def _mismatch(expected: str, ours: Sequence[tuple[str, Mapping[str, str]]]) -> FingerprintMismatch:
    """ours: the fingerprints of images and of texts, with their old forms. One of the same identity is named, if there
    is one: it differs least."""
    alike = [own for own, old_forms in ours if identity_of(today(expected, old_forms)) == identity_of(own)]
    own, old_forms = next((each for each in ours if each[0] in alike), ours[0])
    known = today(expected, old_forms)
    named = expected[:_NAMED_CHARS] if known == expected else f"{expected}, which is {known} in today's form,"
    message = f"expect_fingerprint is {named} and the vectors of this server have {own}: {difference(known, own)}"
    if alike:
        message += f"; expect {identity_of(own)} to take any dtype and decode mode"
    return FingerprintMismatch(message, fingerprint=own)


def no_text(model: str) -> str:
    """The refusal of a text by a model that takes none."""
    return (
        f"{model} takes no texts: it has no text tower, no tokenizer, or text_tower=off; to embed texts, serve a whole "
        "SigLIP 2, SigLIP or CLIP checkpoint, such as google/siglip2-base-patch16-naflex"
    )


def largest_image_tokens(geometry: Geometry) -> int:
    """For a model whose own area is bounded, that area; for one with budgets, the largest; for a model of one grid, all
    tiles of its largest layout."""
    if geometry.native_max_pixels is not None:
        return geometry.native_max_pixels // geometry.patch_size**2
    if geometry.budgets:
        return geometry.budgets[-1]
    if geometry.fixed:
        return max(geometry.layout_tokens)
    return _MAX_IMAGE_TOKENS
