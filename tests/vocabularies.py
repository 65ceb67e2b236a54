"""Folders with a tokenizer, made on the spot: small vocabularies of the three families' kinds."""

import json
from functools import cache
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

_ROOT = Path(__file__).parent.parent
_GEMMA_CONTROL = ["<pad>", "<eos>", "<bos>", "<unk>"]
# What Gemma's own has as symbols that are no control tokens.
_GEMMA_SYMBOLS = ["<mask>", "\n", "\n\n", "▁▁", "▁▁▁", "<table>"]
_GEMMA_CONFIG = {
    "tokenizer_class": "GemmaTokenizer",
    "add_bos_token": False,
    "add_eos_token": True,
    "padding_side": "right",
    "model_max_length": 64,
    "pad_token": "<pad>",
    "eos_token": "<eos>",
    "bos_token": "<bos>",
    "unk_token": "<unk>",
    "mask_token": "<mask>",
}


@cache
def corpus() -> list[str]:
    """Lines of English with code and numbers between: the project's own documents."""
    paths = sorted([*_ROOT.glob("*.md"), *(_ROOT / "docs").glob("*.md")])
    return [line for path in paths for line in path.read_text().splitlines()] + [
        "çåéñ ümläut ЖИЗНЬ жизнь 語彙 😀😀"
    ] * 40


IMAGE_TOKENS = ("<|image>", "<|image|>", "<image|>")
"""Gemma 4's: what begins an image in a text, what stands for each of its soft tokens, what ends it."""


def write_gemma(
    folder: Path,
    *,
    model_type: str = "siglip2",
    size: int = 1500,
    images: bool = False,
    config: dict[str, object] | None = None,
) -> Path:
    """Gemma's kind, for SigLIP 2: BPE with byte fallback, no prefix space, symbols for runs of spaces and lines.

    images: with the tokens of Gemma 4 around images. config: of tokenizer_config.json.
    """
    model = _trained_on_words(size)
    first = [*_GEMMA_CONTROL, *_GEMMA_SYMBOLS, *(f"<0x{byte:02X}>" for byte in range(256))]
    learnt = sorted(model["vocab"], key=model["vocab"].__getitem__)
    pieces = list(dict.fromkeys([*first, *(IMAGE_TOKENS if images else ()), "▁", *learnt]))
    merges = [("▁", "▁"), ("▁▁", "▁"), *(tuple(merge) for merge in model["merges"])]
    vocabulary = {piece: id for id, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    control = [*_GEMMA_CONTROL, *(IMAGE_TOKENS if images else ())]
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in control])
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in _GEMMA_SYMBOLS])
    tokenizer.post_processor = processors.TemplateProcessing(single="$A <eos>", special_tokens=[("<eos>", 1)])
    return _write(folder, tokenizer, config or _GEMMA_CONFIG, model_type)


@cache
def _trained_on_words(size: int) -> dict[str, Any]:
    """The model of Gemma's kind. Trained once in a process: it takes 0.2 s, and many tests need it."""
    scratch = Tokenizer(models.BPE())
    scratch.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    scratch.train_from_iterator(corpus(), trainers.BpeTrainer(vocab_size=size, show_progress=False))
    model: dict[str, Any] = json.loads(scratch.to_str())["model"]
    return model


def write_clip(folder: Path, *, size: int = 1500) -> Path:
    """CLIP's kind, as vocab.json and merges.txt: byte-level BPE whose words end in `</w>`."""
    return write_clip_merges(folder, _trained_on_bytes(size))


@cache
def _trained_on_bytes(size: int) -> list[tuple[str, str]]:
    """Merges of CLIP's kind."""
    scratch = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    scratch.normalizer = normalizers.Lowercase()
    scratch.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    trainer = trainers.BpeTrainer(vocab_size=size, end_of_word_suffix="</w>", show_progress=False)
    scratch.train_from_iterator(corpus(), trainer)
    return [tuple(merge) for merge in json.loads(scratch.to_str())["model"]["merges"]]


def write_clip_merges(folder: Path, merges: list[tuple[str, str]]) -> Path:
    """In the order of OpenAI's own vocabulary."""
    letters = [*map(chr, (*range(33, 127), *range(161, 173), *range(174, 256))), *map(chr, range(256, 324))]
    pieces = [*letters, *(f"{letter}</w>" for letter in letters), *(left + right for left, right in merges)]
    vocabulary = {piece: id for id, piece in enumerate([*pieces, "<|startoftext|>", "<|endoftext|>"])}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    lines = ["#version: 0.2", *(f"{left} {right}" for left, right in merges), ""]
    (folder / "merges.txt").write_text("\n".join(lines))
    (folder / "config.json").write_text(json.dumps({"model_type": "clip"}))
    return folder


def write_unigram(folder: Path, *, size: int = 500) -> Path:
    """SigLIP 1's kind: Unigram pieces with `</s>` as end and padding."""
    return _write(folder, _unigram(size), {"tokenizer_class": "SiglipTokenizer"}, "siglip")


@cache
def _unigram(size: int) -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=size, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False
    )
    # Of a tenth of the lines: with all of them it takes two seconds of processor time, ten times as much as BPE.
    tokenizer.train_from_iterator(corpus()[::10], trainer)
    return tokenizer


def _write(folder: Path, tokenizer: Tokenizer, config: dict[str, object], model_type: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    return folder
