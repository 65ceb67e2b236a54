"""The size of each frame of an AV1 stream, from its headers (AV1 bitstream specification, 5.3 to 5.9).

Reads a header only as far as its sizes. Knows nothing of boxes.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from model.errors import ImageTooLarge

_MAX_OBUS = 4096
_HEADER_BYTES = 1024  # the longest sequence header takes 450

_SEQUENCE_HEADER, _FRAME_HEADER, _FRAME, _REDUNDANT_FRAME_HEADER = 1, 3, 6, 7
_KEY_FRAME, _SWITCH_FRAME = 0, 3
_CHOSEN_BY_FRAME = 2


class Bits:
    """Reads unsigned numbers of a given number of bits, highest first. Raises `ValueError` at the end of the data."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def read(self, bits: int) -> int:
        start, self._at = self._at, self._at + bits
        if self._at > 8 * len(self._data):
            raise ValueError("the header ends too soon")
        value = int.from_bytes(self._data[start // 8 : -(-self._at // 8)])
        return value >> -self._at % 8 & (1 << bits) - 1

    def skip_variable(self) -> None:
        """Skips a `uvlc()`: as many zeros as the number has bits, then the number."""
        zeros = 0
        while not self.read(1):
            zeros += 1
        self.read(zeros if zeros < 32 else 0)


@dataclass(frozen=True, slots=True)
class _Sequence:
    """The fields of a sequence header that a frame's size, or the place of its size in its header, depends on."""

    reduced: bool
    size: tuple[int, int]
    # How many bits a frame's own width and height take.
    size_bits: tuple[int, int]
    presentation_time_bits: int
    frame_id_bits: int
    screen_content: int
    integer_motion: int


def frame_pixels(stream: bytes) -> Iterator[int]:
    """The most pixels that each frame of a stream of OBUs may take, shown or not."""
    sequence: _Sequence | None = None
    for kind, content in _obus(stream):
        if kind == _SEQUENCE_HEADER:
            sequence = _sequence(Bits(content))
        elif kind in (_FRAME_HEADER, _FRAME, _REDUNDANT_FRAME_HEADER):
            if sequence is None:
                raise ValueError("a frame comes before its sequence header")
            if _overrides_size(Bits(content), sequence):
                yield 1 << sum(sequence.size_bits)
            else:
                yield sequence.size[0] * sequence.size[1]


def _obus(stream: bytes) -> Iterator[tuple[int, bytes]]:
    """The type of each OBU and the first bytes of its content."""
    at = 0
    for _ in range(_MAX_OBUS):
        if at >= len(stream):
            return
        header, at = stream[at], at + 1
        at += header >> 2 & 1  # a byte of layers
        size = len(stream) - at
        if header & 2:
            size = 0
            for shift in range(0, 56, 7):
                byte, at = stream[at], at + 1
                size |= (byte & 0x7F) << shift
                if byte < 0x80:
                    break
        yield header >> 3 & 15, stream[at : at + min(size, _HEADER_BYTES)]
        at += size
    raise ImageTooLarge(f"this AVIF has too many OBUs; {_MAX_OBUS:,} are read")


def _sequence(bits: Bits) -> _Sequence:
    """Reads a `sequence_header_obu()` as far as what sizes depend on."""
    bits.read(4)  # profile, still picture
    reduced = bool(bits.read(1))
    presentation_time_bits = 0
    if reduced:
        bits.read(5)
    else:
        presentation_time_bits = _skip_timing_and_operating_points(bits)
    width_bits, height_bits = bits.read(4) + 1, bits.read(4) + 1
    size = bits.read(width_bits) + 1, bits.read(height_bits) + 1
    frame_id_bits = 0
    if not reduced and bits.read(1):
        frame_id_bits = bits.read(4) + 2
        frame_id_bits += bits.read(3) + 1
    bits.read(3)
    screen_content, integer_motion = (_CHOSEN_BY_FRAME, _CHOSEN_BY_FRAME) if reduced else _tools(bits)
    return _Sequence(
        reduced,
        size,
        (width_bits, height_bits),
        presentation_time_bits,
        frame_id_bits,
        screen_content,
        integer_motion,
    )


def _skip_timing_and_operating_points(bits: Bits) -> int:
    """Returns the bits of a frame's presentation time; 0 if it has none."""
    presentation_time_bits = delay_bits = 0
    if bits.read(1):
        bits.read(64)
        equal_intervals = bits.read(1)
        if equal_intervals:
            bits.skip_variable()
        if bits.read(1):
            delay_bits = bits.read(5) + 1
            bits.read(37)
            presentation_time_bits = bits.read(5) + 1
            if equal_intervals:
                presentation_time_bits = 0
    initial_delays = bits.read(1)
    for _ in range(bits.read(5) + 1):
        bits.read(12)
        if bits.read(5) > 7:
            bits.read(1)
        if delay_bits and bits.read(1):
            bits.read(2 * delay_bits + 1)
        if initial_delays and bits.read(1):
            bits.read(4)
    return presentation_time_bits


def _tools(bits: Bits) -> tuple[int, int]:
    """Whether frames use screen content tools, and integer motion vectors: 0, 1, or `_CHOSEN_BY_FRAME`."""
    bits.read(4)
    order_hints = bits.read(1)
    bits.read(2 * order_hints)
    screen_content = _CHOSEN_BY_FRAME if bits.read(1) else bits.read(1)
    integer_motion = _CHOSEN_BY_FRAME
    if screen_content and not bits.read(1):
        integer_motion = bits.read(1)
    return screen_content, integer_motion


def _overrides_size(bits: Bits, sequence: _Sequence) -> bool:
    """`frame_size_override_flag` of an `uncompressed_header()`."""
    if sequence.reduced or bits.read(1):  # `show_existing_frame`
        return False
    kind, shown = bits.read(2), bits.read(1)
    if shown:
        bits.read(sequence.presentation_time_bits)
    else:
        bits.read(1)
    if kind != _SWITCH_FRAME and not (kind == _KEY_FRAME and shown):
        bits.read(1)
    bits.read(1)
    screen_content = bits.read(1) if sequence.screen_content == _CHOSEN_BY_FRAME else sequence.screen_content
    if screen_content and sequence.integer_motion == _CHOSEN_BY_FRAME:
        bits.read(1)
    bits.read(sequence.frame_id_bits)
    return kind == _SWITCH_FRAME or bool(bits.read(1))
