"""The weights after training: a stretch separates sorts, and an offset is added to all vectors."""

import torch
from torch import Tensor
from torch.nn import functional as F

from model.encoders.siglip.naflex import NaFlexConfig
from training.learning.offset import with_offset
from training.learning.stretch import with_stretch
from training.learning.trainee import Head, Rectangle

CONFIG = NaFlexConfig(width=64, depth=1, heads=4, mlp_width=96)
SORTS = 3


def head_and_tokens() -> tuple[Head, Tensor, Tensor]:
    """Returns a head whose every part does something, tokens of 60 pictures, and the pictures' sorts."""
    random = torch.Generator().manual_seed(1)
    head = Head(CONFIG)
    with torch.no_grad():
        for name, weight in head.named_parameters():
            spread = 0.3 if weight.ndim == 1 else weight.shape[-1] ** -0.5
            weight.normal_(float(name == "layernorm.weight"), spread, generator=random)
    sort = torch.arange(60) % SORTS
    of_sort = torch.randn(SORTS, 1, CONFIG.width, generator=random)[sort]
    return head, torch.randn(60, 5, CONFIG.width, generator=random) + of_sort, sort


@torch.no_grad()
def vectors_of(head: Head, tokens: Tensor) -> Tensor:
    found: Tensor = head(tokens.flatten(0, 1), [Rectangle([tokens.shape[1]] * len(tokens), tokens.device)])
    return found


def stretched(head: Head, vectors: Tensor, sort: Tensor) -> Head:
    """Returns the same head with stretched weights."""
    weights = {f"head.{name}": weight.detach() for name, weight in head.named_parameters()}
    other = Head(CONFIG)
    found = with_stretch(weights, vectors, sort)
    other.load_state_dict({name.removeprefix("head."): weight for name, weight in found.items()})
    return other


def between_sorts(vectors: Tensor, sort: Tensor) -> Tensor:
    """Returns `[D, D]`: the projection onto the differences of the sorts' means, less the mean over D."""
    means = torch.stack([vectors[sort == one].mean(0) for one in range(SORTS)])
    apart = means[1:] - means[0]
    basis, _ = torch.linalg.qr((apart - apart.mean(1, keepdim=True)).T)
    projection: Tensor = basis @ basis.T
    return projection


@torch.no_grad()
def test_a_stretch_is_exact_except_for_the_length_that_the_norm_divides_by() -> None:
    head, tokens, sort = head_and_tokens()
    pooled: list[Tensor] = []
    head.layernorm.register_forward_pre_hook(lambda _, inputs: pooled.append(inputs[0]))
    before = vectors_of(head, tokens)
    after = vectors_of(stretched(head, before, sort), tokens)
    along = between_sorts(before, sort)
    stretch = torch.eye(CONFIG.width) + 0.5 * along
    x = pooled[0]
    lengths = [(v.var(-1, correction=0, keepdim=True) + CONFIG.eps).sqrt() for v in (x, x @ stretch)]
    shift = head.layernorm.bias
    seen = (head.layernorm(x) - shift) * lengths[0] / lengths[1] + shift
    expected = (x + head.mlp(seen)) @ stretch - 0.5 * before.mean(0) @ along
    torch.testing.assert_close(after, expected, atol=2e-4, rtol=0)


def test_an_offset_raises_all_cosines_and_keeps_their_order() -> None:
    random = torch.Generator().manual_seed(0)
    vectors = 3 * F.normalize(torch.randn(20, 16, generator=random) + 0.5, dim=-1)
    bias = torch.randn(16, generator=random)
    found = with_offset({"head.mlp.fc2.bias": bias, "other": bias}, vectors)
    assert torch.equal(found["other"], bias)
    offset = found["head.mlp.fc2.bias"] - bias
    torch.testing.assert_close(offset.norm(), torch.tensor(0.65 * 3))
    before, after = (x @ x.T for x in (F.normalize(v, dim=-1) for v in (vectors, vectors + offset)))
    assert (after >= before - 1e-6).all()
    assert after.sum() > before.sum() + 20
