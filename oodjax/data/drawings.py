"""Images drawn for the digits study: letters in the digits' own style, and rows of measurements as pictures."""

from __future__ import annotations

import numpy as np

# Left out is whatever may pass for a digit: B D O Q o (8, 0), C G b c d (0, 6), I J L T Y f i j l r t (1, 7), S s (5),
# Z z (2), U u (0), a e g p q y (2, 8, 9, 4); and v, x, which only repeat their capitals at this size.
LETTERS = "AEFHKMNPRVWXhkmnw"

_STROKES = 32  # side of the bitmap of strokes, as of the scanned digits
_CELLS = 8  # the digits count strokes in 8 x 8 blocks of 4 x 4 bits
_PLOT = 64  # side at which polygons are drawn before they are averaged down


def upsample_digits(counts: np.ndarray, size: int) -> np.ndarray:
    """Ink counts (n, 8, 8) from 0 to 16 -> uint8 (n, size, size, 3), white ink on black.

    Counts map to round(count * 255 / 16), then Pillow's bilinear resize (pixel centres aligned, edges repeated),
    then the grey value is repeated in the three channels.
    """
    from PIL import Image

    grey = np.rint(np.asarray(counts) * (255 / 16)).astype(np.uint8)
    resized = [Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR) for image in grey]
    return np.repeat(np.stack([np.asarray(image) for image in resized])[..., None], 3, axis=-1)


def letters(n: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """`n` letters, each of `LETTERS` in turn, of random height, weight, slant and place.

    They go the way of scikit-learn's digits: black and white strokes on 32 x 32, counted in blocks of 4 x 4, then
    `upsample_digits`. The face is Pillow's bundled one.
    """
    return upsample_digits(np.stack([_letter(LETTERS[i % len(LETTERS)], rng) for i in range(n)]), size)


def _letter(letter: str, rng: np.random.Generator) -> np.ndarray:
    from PIL import Image, ImageDraw, ImageFont, features

    if not features.check("freetype2"):
        raise RuntimeError("Pillow without FreeType cannot draw the letters: install a Pillow wheel that has it")
    canvas = Image.new("L", (128, 128))
    ImageDraw.Draw(canvas).text(
        (64, 64), letter, fill=255, font=ImageFont.load_default(64), anchor="mm", stroke_width=int(rng.integers(1, 5))
    )
    canvas = canvas.rotate(rng.uniform(-12, 12), Image.Resampling.BILINEAR)
    ink = canvas.crop(canvas.getbbox())
    # The scanned digits fill the height of their box and keep to the middle of its width.
    height = int(rng.integers(28, _STROKES + 1))
    width = int(np.clip(round(height * ink.width / ink.height * rng.uniform(0.75, 0.95)), 12, 28))
    left = int(np.clip((_STROKES - width) // 2 + rng.integers(-2, 3), 0, _STROKES - width))
    top = int(rng.integers(0, _STROKES - height + 1))
    strokes = np.zeros((_STROKES, _STROKES), bool)
    resized = np.asarray(ink.resize((width, height), Image.Resampling.BOX))
    strokes[top : top + height, left : left + width] = resized > 110
    block = _STROKES // _CELLS
    return strokes.reshape(_CELLS, block, _CELLS, block).sum(axis=(1, 3))


def to_ranks(table: np.ndarray) -> np.ndarray:
    """Each column (n rows) -> share of the other rows that are smaller, 0 to 1; ties share the lowest rank."""
    below = [np.searchsorted(np.sort(column), column) for column in table.T]
    return np.stack(below, axis=1) / (len(table) - 1)


def heat_cells(values: np.ndarray, size: int) -> np.ndarray:
    """Values (n, 30) from 0 to 1 -> a grid of 5 x 6 flat cells, dark blue (0) over red to yellow (1)."""
    rows, columns = np.arange(size) * 5 // size, np.arange(size) * 6 // size
    grid = values.reshape(-1, 5, 6)[:, rows][:, :, columns]
    channels = [np.interp(grid, (0, 0.5, 1), levels) for levels in ((20, 200, 255), (10, 40, 235), (90, 60, 40))]
    return np.rint(np.stack(channels, axis=-1)).astype(np.uint8)


def bars(values: np.ndarray, size: int) -> np.ndarray:
    """Values (n, f) from 0 to 1 -> f upright bars in alternating green and orange on a white ground."""
    count = values.shape[1]
    column = np.arange(size) * count // size
    filled = (size - 1 - np.arange(size))[:, None] < np.rint(values[:, column] * size)[:, None, :]
    colours = np.array([(30, 130, 80), (235, 130, 20)], np.uint8)[column % 2]
    return np.where(filled[..., None], colours, np.uint8(255))


def stars(values: np.ndarray, size: int) -> np.ndarray:
    """Values (n, f) from 0 to 1 -> a filled purple star of f rays on a pale ground, longer rays for larger values."""
    from PIL import Image, ImageDraw

    angles = 2 * np.pi * np.arange(values.shape[1]) / values.shape[1]
    centre = _PLOT / 2
    drawn = []
    for row in values:
        radius = (0.15 + 0.85 * row) * centre
        corners = np.stack([centre + radius * np.cos(angles), centre + radius * np.sin(angles)], axis=1)
        canvas = Image.new("RGB", (_PLOT, _PLOT), (225, 230, 215))
        ImageDraw.Draw(canvas).polygon([(float(x), float(y)) for x, y in corners], fill=(110, 40, 140))
        drawn.append(np.asarray(canvas.resize((size, size), Image.Resampling.BOX)))
    return np.stack(drawn)
