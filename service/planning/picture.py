"""A plan as a picture: the same few images in every layout, one bar each. Pillow alone; knows no file.

Images are coloured by their group, with a line between segments; padding is hatched. All bars have one scale.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from service.planning.answer import GroupPlan, WorkloadPlan

_WIDTH, _MARGIN = 1600, 32
_BAR_HEIGHT, _ROW_HEIGHT, _LINE_HEIGHT = 56, 108, 26
# More would be slivers.
_MOST_IMAGES, _MOST_GROUPS = 16, 8
# Told apart by those who do not see red and green as two (Okabe and Ito).
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#7A7A7A")
_INK, _FAINT, _PAPER = "#1a1a1a", "#606060", "#ffffff"
_HATCH_STEP = 9


@dataclass(frozen=True, slots=True)
class _Block:
    """One image in one layout. segments: their tokens; allotted: with the padding behind them."""

    segments: tuple[int, ...]
    allotted: int
    colour: str


@dataclass(frozen=True, slots=True)
class _Layout:
    name: str
    blocks: list[_Block]

    @property
    def tokens(self) -> int:
        return sum(block.allotted for block in self.blocks)

    @property
    def padding(self) -> int:
        return self.tokens - sum(sum(block.segments) for block in self.blocks)


def draw_plan(plan: WorkloadPlan) -> Image.Image:
    """RGB. Up to 16 images, of each group in proportion to its count and at least one."""
    groups = sorted((group for group in plan.groups if group.take), key=lambda group: -group.group.count)
    groups = groups[:_MOST_GROUPS]
    layouts = _layouts(groups, plan)
    height = 2 * _MARGIN + 2 * _LINE_HEIGHT + len(layouts) * _ROW_HEIGHT + (len(groups) + 2) * _LINE_HEIGHT
    image = Image.new("RGB", (_WIDTH, height), _PAPER)
    draw = ImageDraw.Draw(image)
    images = len(layouts[0].blocks)
    _text(
        draw,
        _MARGIN,
        f"{plan.model[-60:]}: {images} of {plan.totals.images:,} images in {len(layouts)} layouts",
        size=22,
    )
    _text(draw, _MARGIN + 30, plan.budget.message, size=15, colour=_FAINT)
    longest = max((layout.tokens for layout in layouts), default=1) or 1
    top = _MARGIN + 2 * _LINE_HEIGHT + 14
    for layout in layouts:
        _draw_layout(image, top, layout, longest)
        top += _ROW_HEIGHT
    _draw_legend(draw, top, groups, len(plan.groups))
    return image


def _layouts(groups: Sequence[GroupPlan], plan: WorkloadPlan) -> list[_Layout]:
    sample = _sample([group.group.count for group in groups])
    square = plan.totals.fixed_square // max(1, plan.totals.images)
    packed, capped, padded, squares = [], [], [], []
    taken = [group.take for group in groups if group.take]
    longest = max((take.tokens for take in taken), default=0)
    for number in sample:
        take, colour = taken[number], _COLOURS[number]
        segments = (take.tokens // take.segments,) * take.segments
        packed.append(_Block(segments, take.tokens, colour))
        capped.append(_Block(segments, take.token_cap, colour))
        padded.append(_Block(segments, longest, colour))
        squares.append(_Block((square,), square, colour))
    layouts = [_Layout("packed", packed), _Layout("each padded to its cap", capped)]
    if plan.totals.pad_to_cap is None:
        layouts.pop()
    return [*layouts, _Layout("each padded to the longest", padded), _Layout("each as one square", squares)]


def _sample(counts: Sequence[int]) -> list[int]:
    """Which group each image of the picture is of, spread as evenly as they would arrive."""
    if not counts:
        return []
    images = min(_MOST_IMAGES, sum(counts))
    left = [1] * len(counts)
    for _ in range(images - len(counts)):
        # To the group that is furthest below its share.
        behind = [count * images / sum(counts) - taken for count, taken in zip(counts, left, strict=True)]
        left[behind.index(max(behind))] += 1
    turns = sorted((turn + 0.5) / taken + number * 1e-6 for number, taken in enumerate(left) for turn in range(taken))
    order = {(turn + 0.5) / taken + number * 1e-6: number for number, taken in enumerate(left) for turn in range(taken)}
    return [order[turn] for turn in turns]


def _draw_layout(image: Image.Image, top: int, layout: _Layout, longest: int) -> None:
    draw = ImageDraw.Draw(image)
    share = f", {layout.padding / layout.tokens:.1%} of them padding" if layout.padding else ""
    _text(draw, top, f"{layout.name}: {layout.tokens:,} tokens{share}", size=17)
    scale = (_WIDTH - 2 * _MARGIN) / longest
    top += _LINE_HEIGHT
    bottom, start = top + _BAR_HEIGHT, 0

    def at(tokens: int) -> int:
        return _MARGIN + round(tokens * scale)

    for block in layout.blocks:
        end = start + block.allotted
        _hatch(image, (at(start), top, at(end), bottom))
        for tokens in block.segments:
            draw.rectangle((at(start), top, at(start + tokens), bottom), fill=block.colour, outline=_PAPER, width=1)
            start += tokens
        start = end
        # Between images a longer line than between segments.
        draw.line((at(end), top - 4, at(end), bottom + 4), fill=_INK, width=1)
    draw.line((_MARGIN, top - 4, _MARGIN, bottom + 4), fill=_INK, width=1)


def _hatch(image: Image.Image, box: tuple[int, int, int, int]) -> None:
    left, top, right, bottom = box
    if right <= left:
        return
    height, width = bottom - top + 1, right - left
    pattern = Image.new("RGB", (width, height), "#f4f4f4")
    draw = ImageDraw.Draw(pattern)
    # Lines of neighbouring boxes meet, as they are counted from the edge of the picture.
    for x in range(-height - left % _HATCH_STEP, width, _HATCH_STEP):
        draw.line((x, height, x + height, 0), fill="#b0b0b0", width=1)
    image.paste(pattern, (left, top))


def _draw_legend(draw: ImageDraw.ImageDraw, top: int, groups: Sequence[GroupPlan], of_groups: int) -> None:
    for number, plan in enumerate(groups):
        group, take = plan.group, plan.take
        assert take, "only what is taken is drawn"
        draw.rectangle((_MARGIN, top + 3, _MARGIN + 16, top + 19), fill=_COLOURS[number])
        segments = f" in {take.segments} segments" if take.segments > 1 else ""
        # The font that comes with Pillow has no multiplication sign.
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
