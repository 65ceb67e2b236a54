"""How fast text towers run, compared with Transformers' models of the same weights.

| family | what both compute |
|---|---|
| siglip | SigLIP's base tower: 64 positions of every text, padding included, as it was trained |
| clip | ViT-B/32's tower: captions of 5 to 20 tokens; Transformers pads them to 77, or to the longest of the batch |

Ours is `TextRunner`, from ids to vectors on the host; Transformers uses SDPA. All share a process and its threads, and
take turns in alternating order. Figures are medians over rounds; a ratio is the median of the ratios of the rounds.
Weights are random. The bench stops if vectors differ.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from model.pack import PackedTexts

Row = dict[str, object]
Forward = Callable[[], NDArray[np.float32]]

_DTYPES = ("bfloat16", "float32")
_FEWEST, _MOST = 5, 20  # tokens of a caption
# Least cosines: Transformers rounds in other places.
_AGREE = {"bfloat16": 0.998, "float32": 0.999999}


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=7, help="measurements of each (default: 7)")
    parser.add_argument("--batch", type=int, default=32, help="texts of a forward (default: 32)")
    parser.add_argument("--families", nargs="+", choices=("siglip", "clip"), default=["siglip", "clip"])
    parser.add_argument("--dtypes", nargs="+", choices=_DTYPES, default=list(_DTYPES))
    parser.add_argument("--threads", type=int, help="PyTorch's threads (default: PyTorch's)")


def measure(options: argparse.Namespace) -> list[Row]:
    """A row for each family and dtype. Raises `RuntimeError` if vectors differ."""
    import torch

    if options.threads:
        torch.set_num_threads(options.threads)
    return [
        _measure(family, dtype, options.batch, options.rounds)
        for family in options.families
        for dtype in options.dtypes
    ]


def _measure(family: str, dtype: str, batch: int, rounds: int) -> Row:
    import torch

    random = np.random.default_rng(0)
    lengths = random.integers(_FEWEST, _MOST + 1, batch)
    model = _model(family)
    texts = _texts(model.config, lengths, random)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        forwards = {"packed": _packed(folder, dtype, texts)}
        forwards |= _references(model.to(getattr(torch, dtype)), texts)
        _check_agreement(forwards, _AGREE[dtype])
        seconds = _timed(forwards, rounds)
    packed = seconds["packed"]
    row: Row = {
        "family": family,
        "dtype": dtype,
        "texts": batch,
        "tokens": int(lengths.sum()),
        "texts_per_s": round(batch / statistics.median(packed), 1),
    }
    for name in forwards.keys() - {"packed"}:
        ratios = [theirs / ours for theirs, ours in zip(seconds[name], packed, strict=True)]
        row[f"{name}_texts_per_s"] = round(batch / statistics.median(seconds[name]), 1)
        row[f"{name}_over_packed"] = round(statistics.median(ratios), 2)
    return row


def _model(family: str) -> Any:
    import torch
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection, SiglipTextConfig, SiglipTextModel

    torch.manual_seed(0)
    if family == "siglip":
        return SiglipTextModel._from_config(SiglipTextConfig(), attn_implementation="sdpa").eval()
    return CLIPTextModelWithProjection._from_config(CLIPTextConfig(), attn_implementation="sdpa").eval()


def _texts(config: Any, lengths: NDArray[np.int64], random: np.random.Generator) -> "PackedTexts":
    """Ids of captions; as many positions as there are, for a model whose padding is input."""
    from model.pack import pack_texts

    end = min(config.eos_token_id, config.vocab_size - 1)
    captions = [np.append(random.integers(2, end, length - 1), end).astype(np.int32) for length in lengths]
    if config.model_type == "siglip_text_model":
        captions = [_padded(caption, config.max_position_embeddings) for caption in captions]
    return pack_texts(captions)


def _padded(ids: NDArray[np.int32], length: int) -> NDArray[np.int32]:
    return np.pad(ids, (0, length - len(ids)), constant_values=1)


def _packed(folder: str, dtype: str, texts: "PackedTexts") -> Forward:
    import torch

    from model.checkpoint.load import load_text
    from model.running.texts import TextRunner

    runner = TextRunner(load_text(folder), device=torch.device("cpu"), dtype=getattr(torch, dtype))
    return lambda: runner.run(texts).pooled


def _references(model: Any, texts: "PackedTexts") -> dict[str, Forward]:
    """Transformers' forward, with texts padded to the context and, if that is shorter, to the longest of the batch."""
    context = model.config.max_position_embeddings
    lengths = {f"padded_to_{context}": context}
    if texts.max_seqlen < context:
        lengths["padded_to_longest"] = texts.max_seqlen
    return {name: _reference(model, texts, length) for name, length in lengths.items()}


def _reference(model: Any, texts: "PackedTexts", length: int) -> Forward:
    import torch

    ids = torch.from_numpy(np.stack([_padded(text, length) for text in texts.texts()]).astype(np.int64))

    @torch.inference_mode()
    def forward() -> NDArray[np.float32]:
        output = model(input_ids=ids)
        pooled: torch.Tensor = output.text_embeds if hasattr(output, "text_embeds") else output.pooler_output
        return pooled.float().numpy()

    return forward


def _check_agreement(forwards: Mapping[str, Forward], least_cosine: float) -> None:
    ours = forwards["packed"]()
    for name in forwards.keys() - {"packed"}:
        theirs = forwards[name]()
        norms = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
        cosine = float(((ours * theirs).sum(axis=1) / norms).min())
        if not cosine >= least_cosine:
            raise RuntimeError(f"packed and {name} give different vectors, cosine {cosine:.6f}")


def _timed(forwards: Mapping[str, Forward], rounds: int) -> dict[str, list[float]]:
    """Seconds of each forward, a value a round."""
    seconds: dict[str, list[float]] = {name: [] for name in forwards}
    for name in _turns(list(forwards), rounds):
        began_s = time.perf_counter()
        forwards[name]()
        seconds[name].append(time.perf_counter() - began_s)
    return seconds


def _turns(names: list[str], rounds: int) -> Iterator[str]:
    for number in range(rounds):
        yield from names[::-1] if number % 2 else names
