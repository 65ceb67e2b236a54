"""Reads the tokenizer of a checkpoint's folder, and finds the rule that its weights were trained with.

Like Transformers, it takes vocabulary and merges from the file and sets up everything else itself.
"""

from dataclasses import replace
from pathlib import Path
from typing import Literal

from tokenizers import AddedToken, Tokenizer
from tokenizers.models import BPE, Unigram

from model.errors import CheckpointError
from model.texts.rules import CLIP, GEMMA, SIGLIP1, SIGLIP2, Cleaning, TextRule, clip_cleaned_as_openai
from model.texts.tokenizer import TextTokenizer

Family = Literal["siglip2", "siglip", "clip", "embedding_gemma2"]
# What a checkpoint may have of a tokenizer. The last cannot be read, but the error names it.
FILES = ["tokenizer.json", "vocab.json", "merges.txt", "spiece.model"]
MAX_CHARS = 32_768
Around = tuple[tuple[int, ...], tuple[int, ...]]


def read_tokenizer(
    folder: Path,
    *,
    family: Family,
    context: int,
    vocabulary: int,
    cleaning: Cleaning = "transformers",
    max_chars: int = MAX_CHARS,
    around: Around | None = None,
) -> TextTokenizer:
    """family: `model_type` of the checkpoint. context: positions of its text tower. vocabulary: rows of its table.

    cleaning: for CLIP only. around: the ids before and behind a text, one or none each, in place of the rule's. Raises
    `CheckpointError`.
    """
    path, stored = _read(folder, family)
    rule = _rule(stored, family, cleaning, path)
    if around is not None:
        start, end = (stored.id_to_token(ids[0]) if ids else None for ids in around)
        rule = replace(rule, start=start, end=end)
    added = stored.get_added_tokens_decoder()
    tokenizer = _set_up(stored, rule, added)
    control = [tokenizer.token_to_id(token) for token in (rule.start, rule.end) if token]
    if None in control:
        raise CheckpointError(f"{path} has no {rule.end}, or no {rule.start}")
    pieces = stored.get_vocab(with_added_tokens=False)
    # Other control tokens are never found in a text.
    symbols = {token.content: id for id, token in added.items() if not token.special}
    if (highest := max([*pieces.values(), *symbols.values(), *filter(None, control)])) >= vocabulary:
        raise CheckpointError(f"{path} has id {highest}, but the text tower has only {vocabulary} embeddings")
    return TextTokenizer(
        tokenizer,
        rule,
        context=context,
        max_chars=max_chars,
        # The other rules split a text into words before they look for pieces.
        vocabulary=vocabulary,
        words_apart=_words_apart([*symbols] if rule.pre_tokenizer() else [*symbols, *pieces]),
    )


def _read(folder: Path, family: Family) -> tuple[Path, Tokenizer]:
    path = folder / "tokenizer.json"
    vocabulary, merges = folder / "vocab.json", folder / "merges.txt"
    try:
        if path.exists():
            return path, Tokenizer.from_file(str(path))
        if family == "clip" and vocabulary.exists() and merges.exists():
            path = vocabulary
            return path, _clip_of_two_files(vocabulary, merges)
    except Exception as error:
        # `tokenizers` raises bare exceptions.
        raise CheckpointError(
            f"{path} is not a tokenizer that can be read; text_tower=off serves images alone"
        ) from error
    if (folder / "spiece.model").exists():
        raise CheckpointError(
            f"{folder} has its vocabulary only in spiece.model, which is not read: make a tokenizer.json beside it by "
            f'`T5Tokenizer.from_pretrained("{folder}", extra_ids=0).save_pretrained("{folder}")` of transformers, '
            "or serve images alone with text_tower=off"
        )
    raise CheckpointError(f"{folder} has no tokenizer.json, and its text tower cannot be served without one")


def _clip_of_two_files(vocabulary: Path, merges: Path) -> Tokenizer:
    model = BPE.from_file(str(vocabulary), str(merges), unk_token=CLIP.end, end_of_word_suffix="</w>")
    return Tokenizer(model)


def _rule(stored: Tokenizer, family: Family, cleaning: Cleaning, path: Path) -> TextRule:
    """The rule of a family. Both SigLIPs say `siglip` in their configuration, but their vocabularies differ."""
    model = stored.model
    if family == "clip":
        if isinstance(model, BPE) and model.end_of_word_suffix == "</w>":
            return clip_cleaned_as_openai() if cleaning == "openai" else CLIP
        raise CheckpointError(f"{path} is not CLIP's tokenizer: byte-level BPE whose words end in </w>")
    if isinstance(model, BPE) and model.byte_fallback:
        if (stored.token_to_id("<pad>"), stored.token_to_id("<eos>")) == (0, 1):
            return GEMMA if family == "embedding_gemma2" else SIGLIP2
    elif family == "siglip" and isinstance(model, Unigram) and stored.token_to_id("</s>") == 1:
        return SIGLIP1
    raise CheckpointError(
        f"{path} is neither Gemma's tokenizer (BPE with byte fallback, <pad> 0, <eos> 1) nor SigLIP 1's "
        "(Unigram, </s> 1): what the weights were trained with is unknown"
    )


def _set_up(stored: Tokenizer, rule: TextRule, added: dict[int, AddedToken]) -> Tokenizer:
    """The stored vocabulary under the rule, without padding and truncation, which are state of a tokenizer."""
    model = stored.model
    if isinstance(model, BPE):
        model.dropout = None
        model.ignore_merges = False
        model.fuse_unk = model.byte_fallback
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = rule.normalizer(stored.normalizer)
    tokenizer.pre_tokenizer = rule.pre_tokenizer()
    tokenizer.add_tokens([added[id] for id in sorted(added)])
    # Control tokens that someone typed are text.
    tokenizer.encode_special_tokens = True
    return tokenizer


def _words_apart(pieces: list[str]) -> bool:
    """Whether no piece reaches from one word into the next."""
    return not any("▁" in piece.lstrip("▁") or " " in piece for piece in pieces)
