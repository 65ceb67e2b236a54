"""Noise with the spectra of nature, as pictures (`draw_noise`) and as fields that other modules paint with.

A field is float32 `[height, width]` with a mean of about 0 and a deviation of about 1. Knows nothing of objects or
scenes.
"""

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.drawing.camera import develop
from training.drawing.chance import Rng, Size, between, happens, integer, log_between, photo_size, pick
from training.drawing.palette import Colour, Palette, make_palette, ramp

Field = NDArray[np.float32]
_SIDE = 256
"""Side of a tile of noise in pixels. Its edges meet, so it can be rolled. Smooth tiles have half of this side."""


def tile(rng: Rng, exponent: float, angle: float = 0.0, stretch: float = 1.0, lowest: float = 1.0) -> Field:
    """Returns a tile with the amplitude spectrum `1 / f**exponent`, stretched `stretch` times along `angle` (radians).

    Frequencies below `lowest`, in cycles per tile, get no more amplitude than `lowest` itself: grain without large
    blotches.
    """
    side = _SIDE if exponent < 1.4 else _SIDE // 2
    across = np.fft.fftfreq(side, 1 / side).astype(np.float32)[:, None]
    along = np.arange(side // 2 + 1, dtype=np.float32)[None, :]
    u = (along * math.cos(angle) + across * math.sin(angle)) * math.sqrt(stretch)
    v = (across * math.cos(angle) - along * math.sin(angle)) / math.sqrt(stretch)
    amplitude = np.maximum(u * u + v * v, lowest * lowest) ** np.float32(-exponent / 2)
    amplitude[0, 0] = 0
    phases = rng.random((side, side // 2 + 1), dtype=np.float32) * np.float32(2 * math.pi)
    spectrum = np.empty(amplitude.shape, dtype=np.complex64)
    spectrum.real, spectrum.imag = amplitude * np.cos(phases), amplitude * np.sin(phases)
    field = np.fft.irfft2(spectrum, s=(side, side)).astype(np.float32)
    field /= field.std() + np.float32(1e-9)
    return field


def window(rng: Rng, field: Field, size: Size, zoom: float = 1.0) -> Field:
    """Returns a window of a tile, of `size`, magnified `zoom` times, and rolled, transposed and flipped at random.

    A window larger than the tile is magnified further, so it never repeats.
    """
    side = field.shape[0]
    zoom = max(zoom * side / _SIDE, size[0] / side, size[1] / side)
    width, height = min(side, math.ceil(size[0] / zoom)), min(side, math.ceil(size[1] / zoom))
    turned = field.T if happens(rng, 0.3) else field
    turned = np.roll(turned, (integer(rng, 0, side - 1), integer(rng, 0, side - 1)), (0, 1))[:height, :width]
    turned = turned[:: -1 if happens(rng, 0.5) else 1, :: -1 if happens(rng, 0.5) else 1]
    if turned.shape == (size[1], size[0]):
        return turned
    image = Image.fromarray(np.ascontiguousarray(turned))
    return np.asarray(image.resize(size, Image.Resampling.BICUBIC if zoom < 3 else Image.Resampling.BILINEAR))


def levels(field: Field, contrast: float, middle: float) -> NDArray[np.uint8]:
    """Returns uint8 of the same shape: `middle` for 0, and `contrast` away from it for one deviation."""
    return np.asarray(np.clip(field * np.float32(contrast) + np.float32(middle), 0, 255), dtype=np.uint8)


def natural_tile(rng: Rng) -> Field:
    """Returns a tile with a random exponent, direction and pattern: clouds, marble, wood, cells, grain or fibres."""
    stretch = 1.0 if happens(rng, 0.5) else log_between(rng, 1, 12)
    field = tile(rng, between(rng, 0.7, 2.0), between(rng, 0, math.pi), stretch, pick(rng, (1.0, 2.0, 6.0, 16.0)))
    bent = pick(rng, ("plain", "marble", "ridge", "steps", "sharp", "spots"), (6, 1, 2, 1, 1, 1))
    if bent == "marble":
        return np.asarray(np.sin(field * np.float32(between(rng, 1, 5))) * np.float32(1.4))
    if bent == "ridge":
        return (np.abs(field) - np.float32(0.8)) * np.float32(1.7)
    if bent == "steps":
        return np.asarray(np.floor(field * 2) * np.float32(0.5))
    if bent == "sharp":
        return np.asarray(np.tanh(field * np.float32(2.5)))
    if bent == "spots":
        spots = np.where(field > between(rng, 0.2, 1.5), np.float32(1.5), np.float32(-0.5))
        return np.asarray(spots + field * np.float32(0.2))
    return field


def painted(rng: Rng, field: Field, colours: list[Colour], contrast: float = 50.0) -> Image.Image:
    """Returns the field as an RGB image in a ramp of the colours."""
    image = Image.fromarray(levels(field, contrast, between(rng, 100, 156)))
    image.putpalette(ramp(colours).tobytes())
    return image.convert("RGB")


def draw_noise(rng: Rng) -> Image.Image:
    """Draws coloured noise: a field in a palette, correlated channels, waves bent by a field, or a mosaic."""
    size = photo_size(rng)
    palette = make_palette(rng)
    way = pick(rng, ("ramp", "channels", "bent", "mosaic"), (3, 3, 3, 2))
    zoom = log_between(rng, 1, 3)
    if way == "channels":
        image = _channels(rng, size, zoom)
    elif way == "bent":
        image = _bent(rng, size, palette)
    elif way == "mosaic":
        image = _mosaic(rng, size, zoom, palette)
    else:
        image = painted(rng, window(rng, natural_tile(rng), size, zoom), _some(rng, palette), between(rng, 30, 80))
    return develop(rng, image)


def _some(rng: Rng, palette: Palette) -> Palette:
    """Returns two to five colours of the palette in random order."""
    return [palette[i] for i in rng.permutation(len(palette))[: integer(rng, 2, 5)]]


def _channels(rng: Rng, size: Size, zoom: float) -> Image.Image:
    """Draws light and two colour differences as fields, so that channels correlate as in photographs."""
    light = window(rng, natural_tile(rng), size, zoom) * np.float32(between(rng, 25, 60))
    smooth = tile(rng, between(rng, 1.2, 2.2))
    warm = window(rng, smooth, size, zoom) * np.float32(between(rng, 4, 30)) + np.float32(between(rng, -20, 25))
    green = window(rng, smooth, size, zoom) * np.float32(between(rng, 2, 20))
    light += np.float32(between(rng, 80, 170))
    rgb = np.stack([light + warm, light + green * np.float32(0.5), light - warm], axis=-1)
    return Image.fromarray(np.clip(rgb, 0, 255).astype(np.uint8))


def _bent(rng: Rng, size: Size, palette: Palette) -> Image.Image:
    """Draws waves around a point or along a line, bent by a field: wood, ripples, dunes, zebras."""
    width, height = size
    bend = window(rng, tile(rng, between(rng, 1.4, 2.2)), size)
    x = np.arange(width, dtype=np.float32)[None, :] / np.float32(width) - np.float32(between(rng, -0.5, 1.5))
    y = np.arange(height, dtype=np.float32)[:, None] / np.float32(width) - np.float32(between(rng, -0.5, 1.5))
    if happens(rng, 0.4):
        far = np.sqrt(x * x + y * y * np.float32(log_between(rng, 0.05, 4)))
    else:
        angle = between(rng, 0, math.pi)
        far = x * np.float32(math.cos(angle)) + y * np.float32(math.sin(angle))
    wave = np.sin(far * np.float32(log_between(rng, 15, 250)) + bend * np.float32(log_between(rng, 0.4, 6)))
    fine = window(rng, tile(rng, between(rng, 0.6, 1.4)), size)
    return painted(rng, wave + fine * np.float32(between(rng, 0.05, 0.6)), _some(rng, palette), between(rng, 40, 90))


def _mosaic(rng: Rng, size: Size, zoom: float, palette: Palette) -> Image.Image:
    """Draws two or three textures that smooth fields mix: lichen, continents, camouflage, rust."""
    image = painted(rng, window(rng, natural_tile(rng), size, zoom), _some(rng, palette), between(rng, 20, 60))
    mask_tile = tile(rng, between(rng, 1.3, 2.4))
    for _ in range(integer(rng, 1, 2)):
        other = painted(rng, window(rng, natural_tile(rng), size), _some(rng, palette), between(rng, 20, 60))
        mask = levels(window(rng, mask_tile, size), log_between(rng, 80, 900), between(rng, 0, 200))
        image.paste(other, (0, 0), Image.fromarray(mask))
    return image
