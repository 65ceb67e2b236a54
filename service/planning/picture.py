"""A plan as a picture: the same few images packed and padded, a bar for each way. Uses Pillow; knows no file.

Images are coloured by their group, with a line between segments. Padding is hatched. All bars have one scale.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from service.planning.answer import Choice, GroupPlan, WorkloadPlan

_WIDTH, _MARGIN = 1600, 32
_BAR_HEIGHT, _ROW_HEIGHT, _LINE_HEIGHT = 56, 108, 26
# More images would be slivers.
_MOST_IMAGES, _MOST_GROUPS = 16, 8
# Okabe and Ito's colours, which people who confuse red and green can tell apart.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#7A7A7A")
_INK, _FAINT, _PAPER = "#1a1a1a", "#606060", "#ffffff"
_HATCH_STEP = 9


@dataclass(frozen=True, slots=True)
class _Block:
    """One image in one bar. segments: tokens of each; allotted: tokens with the padding."""

    segments: tuple[int, ...]
    allotted: int
    colour: str


@dataclass(frozen=True, slots=True)
class _Bar:
    name: str
    blocks: list[_Block]

    @property
    def tokens(self) -> int:
        return sum(block.allotted for block in self.blocks)

    @property
    def padding(self) -> int:
        return self.tokens - sum(sum(block.segments) for block in self.blocks)


def draw_plan(plan: WorkloadPlan) -> Image.Image:
    """RGB. Up to 16 images: at least one of each group, and more in proportion to its count."""
    groups = sorted((group for group in plan.groups if group.take), key=lambda group: -group.group.count)
    groups = groups[:_MOST_GROUPS]
    bars = _bars(groups, plan)
    height = 2 * _MARGIN + 2 * _LINE_HEIGHT + len(bars) * _ROW_HEIGHT + (len(groups) + 2) * _LINE_HEIGHT
    image = Image.new("RGB", (_WIDTH, height), _PAPER)
    draw = ImageDraw.Draw(image)
    images = f"{len(bars[0].blocks)} of {plan.totals.images:,} images"
    _text(draw, _MARGIN, f"{plan.model[-60:]}: {images}, packed and padded", size=22)
    _text(draw, _MARGIN + 30, plan.budget.message, size=15, colour=_FAINT)
    longest = max(bar.tokens for bar in bars) or 1
    top = _MARGIN + 2 * _LINE_HEIGHT + 14
    for bar in bars:
        _draw_bar(image, top, bar, longest)
        top += _ROW_HEIGHT
    _draw_legend(draw, top, groups, len(plan.groups))
    return image


def _bars(groups: Sequence[GroupPlan], plan: WorkloadPlan) -> list[_Bar]:
    takes = [group.take for group in groups if group.take]
    sample = _sample([group.group.count for group in groups])
    longest = max((take.tokens for take in takes), default=0)
    square = plan.totals.fixed_square // max(1, plan.totals.images)

    def bar(name: str, allotted: Callable[[Choice], int]) -> _Bar:
        return _Bar(name, [_Block(_segments(takes[n]), allotted(takes[n]), _COLOURS[n]) for n in sample])

    bars = [bar("packed", lambda take: take.tokens)]
    if plan.totals.pad_to_cap is not None:
        bars.append(bar("each padded to its cap", lambda take: take.token_cap))
    bars.append(bar("each padded to the longest", lambda take: longest))
    return [*bars, _Bar("each as one square", [_Block((square,), square, _COLOURS[n]) for n in sample])]


def _segments(take: Choice) -> tuple[int, ...]:
    return (take.tokens // take.segments,) * take.segments


def _sample(counts: Sequence[int]) -> list[int]:
    """The group of each image of the picture. Groups are mixed evenly, as they would arrive."""
    images = min(_MOST_IMAGES, sum(counts))
    drawn = [1] * len(counts)
    for _ in range(images - len(counts)):
        missing = [count * images / sum(counts) - have for count, have in zip(counts, drawn, strict=True)]
        drawn[missing.index(max(missing))] += 1
    turns = [((turn + 0.5) / have, number) for number, have in enumerate(drawn) for turn in range(have)]
    return [number for _, number in sorted(turns)]


def _draw_bar(image: Image.Image, top: int, bar: _Bar, longest: int) -> None:
    draw = ImageDraw.Draw(image)
    padding = f", {bar.padding / bar.tokens:.1%} of them padding" if bar.padding else ""
    _text(draw, top, f"{bar.name}: {bar.tokens:,} tokens{padding}", size=17)
    scale = (_WIDTH - 2 * _MARGIN) / longest
    top += _LINE_HEIGHT
    bottom, start = top + _BAR_HEIGHT, 0

    def at(tokens: int) -> int:
        return _MARGIN + round(tokens * scale)

    for block in bar.blocks:
        end = start + block.allotted
        _hatch(image, (at(start), top, at(end), bottom))
        for tokens in block.segments:
            draw.rectangle((at(start), top, at(start + tokens), bottom), fill=block.colour, outline=_PAPER, width=1)
            start += tokens
        start = end
        # Longer than the line between segments.
        draw.line((at(end), top - 4, at(end), bottom + 4), fill=_INK, width=1)
    draw.line((_MARGIN, top - 4, _MARGIN, bottom + 4), fill=_INK, width=1)


def _hatch(image: Image.Image, box: tuple[int, int, int, int]) -> None:
    left, top, right, bottom = box
    if right <= left:
        return
    height, width = bottom - top + 1, right - left
    pattern = Image.new("RGB", (width, height), "#f4f4f4")
    draw = ImageDraw.Draw(pattern)
    # Counted from the edge of the picture, so that the lines of neighbouring boxes meet.
    for x in range(-height - left % _HATCH_STEP, width, _HATCH_STEP):
        draw.line((x, height, x + height, 0), fill="#b0b0b0", width=1)
    image.paste(pattern, (left, top))


def _draw_legend(draw: ImageDraw.ImageDraw, top: int, groups: Sequence[GroupPlan], of_groups: int) -> None:
    for number, plan in enumerate(groups):
        group, take = plan.group, plan.take
        assert take, "only groups that are taken are drawn"
        draw.rectangle((_MARGIN, top + 3, _MARGIN + 16, top + 19), fill=_COLOURS[number])
        segments = f" in {take.segments} segments" if take.segments > 1 else ""
        # Pillow's own font has no multiplication sign.
        text = f"{group.count:,} images of {group.height}x{group.width}, {group.task.replace('_', ' ')}: "
        text += f"{take.strategy}, {take.tokens:,} tokens{segments}, cap {take.token_cap:,}"
        _text(draw, top, text, size=16, left=_MARGIN + 26)
        top += _LINE_HEIGHT
    more = of_groups - len(groups)
    draw.rectangle((_MARGIN, top + 3, _MARGIN + 16, top + 19), fill="#f4f4f4", outline="#b0b0b0")
    draw.line((_MARGIN, top + 19, _MARGIN + 16, top + 3), fill="#b0b0b0")
    _text(draw, top, "padding" + (f"; {more} more groups are not drawn" if more else ""), size=16, left=_MARGIN + 26)


def _text(
    draw: ImageDraw.ImageDraw, top: int, text: str, *, size: int, left: int = _MARGIN, colour: str = _INK
) -> None:
    draw.text((left, top), text, fill=colour, font=ImageFont.load_default(size))
