"""Small copies of pictures, for a page that shows many."""

from io import BytesIO

from PIL import Image

# As many as a picture of 256 tokens of 16 by 16 pixels has. A copy takes 5 to 15 kB.
_MOST_PIXELS = 256**2
# A WebP has no longer side.
_MOST_SIDE = 16_383


def webp_thumb(picture: Image.Image) -> bytes:
    """The picture, which is in mode RGB, as a WebP of no more than 65,536 pixels."""
    width, height = picture.size
    scale = min(1.0, (_MOST_PIXELS / (width * height)) ** 0.5, _MOST_SIDE / max(width, height))
    if scale < 1:
        size = max(1, int(width * scale)), max(1, int(height * scale))
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    buffer = BytesIO()
    picture.save(buffer, "WEBP", quality=75)
    return buffer.getvalue()
