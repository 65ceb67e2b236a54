"""First frames that do not cover their canvas. What they leave uncovered is transparent, as in browsers."""

from PIL import Image, ImageFile

_FLAGS_AT = 20
_ANIMATION, _ALPHA = 0x02, 0x10


def gif_decoded(image: ImageFile.ImageFile, data: bytes) -> Image.Image:
    """The first frame; in mode RGBA if it does not cover the canvas, which Pillow would fill with a colour."""
    box = image.tile[0].extents
    image.load()
    if box is None or box == (0, 0, *image.size):
        return image
    canvas = Image.new("RGBA", image.size)
    canvas.paste(image.crop(box).convert("RGBA"), box)
    return canvas


def webp_openable(data: bytes) -> bytes:
    """The file itself; an animation says that it has alpha, or Pillow would make what is uncovered black."""
    if data[12:16] != b"VP8X" or data[_FLAGS_AT] & (_ANIMATION | _ALPHA) != _ANIMATION:
        return data
    return b"".join((data[:_FLAGS_AT], bytes([data[_FLAGS_AT] | _ALPHA]), memoryview(data)[_FLAGS_AT + 1 :]))
