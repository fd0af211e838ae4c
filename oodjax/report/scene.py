"""Drawings as flat lists of records: each is written once as SVG, which a page can style and query, and once as PNG.

Lengths are CSS pixels (96 an inch), y runs down. Colours are names of roles (`style.ROLES`), so that a page in the dark
can give them other values: a file alone has the light ones.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple
from xml.sax.saxutils import escape, quoteattr

import numpy as np
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.colors import to_rgb
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.markers import MarkerStyle
from matplotlib.path import Path
from matplotlib.transforms import Affine2D
from numpy.typing import ArrayLike, NDArray
from PIL import Image

FONT = "DejaVu Sans"
FONTS = f"'{FONT}', Verdana, 'Helvetica Neue', Helvetica, Arial, sans-serif"
_PNG_SCALE = 2
_PX = 0.75  # points
_EDGE = 0.6
_LONG, _UNSEEN = 30, 0.15


class Mark(NamedTuple):
    """How a model is drawn: the role of its colour, its shape, and whether that is full, hollow or barred."""

    colour: str
    shape: str = "o"
    fill: str = "full"


class Tag(NamedTuple):
    """What a mark stands for; the page shows `label` and finds marks by the rest."""

    label: str
    model: str = ""
    recipe: str = ""
    category: str = ""
    detector: str = ""
    dataset: str = ""


class Text(NamedTuple):
    """One line of text, its baseline at y."""

    x: float
    y: float
    text: str
    size: float
    role: str = "ink"
    anchor: str = "start"
    bold: bool = False
    angle: int = 0


class Line(NamedTuple):
    """A line through points (n, 2), broken where they are NaN."""

    points: NDArray[np.float64]
    role: str
    width: float = 1.0
    dashed: bool = False
    opacity: float = 1.0
    tag: Tag | None = None


class Area(NamedTuple):
    """A closed polygon of points (n, 2)."""

    points: NDArray[np.float64]
    role: str
    opacity: float = 1.0
    edge: str = ""
    tag: Tag | None = None


class Dot(NamedTuple):
    """One marker."""

    x: float
    y: float
    mark: Mark
    size: float
    opacity: float = 1.0
    tag: Tag | None = None


class Cloud(NamedTuple):
    """Many small round points (n, 2) that stand for nothing one by one."""

    points: NDArray[np.float64]
    role: str
    size: float
    opacity: float


Item = Text | Line | Area | Dot | Cloud


@dataclass
class Scene:
    """A drawing of a given size; later items lie on top."""

    width: float
    height: float
    items: list[Item] = field(default_factory=list)

    def text(self, x: float, y: float, text: str, size: float, role: str = "ink", **more: Any) -> None:
        if text:
            self.items.append(Text(float(x), float(y), text, size, role, **more))

    def line(self, points: ArrayLike, role: str, width: float = 1.0, **more: Any) -> None:
        self.items.append(Line(np.asarray(points, np.float64), role, width, **more))

    def area(self, points: ArrayLike, role: str, **more: Any) -> None:
        self.items.append(Area(np.asarray(points, np.float64), role, **more))

    def box(self, corners: ArrayLike, role: str, **more: Any) -> None:
        """A rectangle between two opposite corners (2, 2)."""
        (x0, y0), (x1, y1) = np.asarray(corners, np.float64)
        self.area([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], role, **more)

    def dot(self, x: float, y: float, mark: Mark, size: float, **more: Any) -> None:
        self.items.append(Dot(float(x), float(y), mark, size, **more))

    def cloud(self, points: ArrayLike, role: str, size: float, opacity: float) -> None:
        self.items.append(Cloud(np.asarray(points, np.float64), role, size, opacity))


def text_width(text: str, size: float, bold: bool = False) -> float:
    """Pixels, of a text in pixels of size."""
    return _width(text, bold) * size / 100


@cache
def _width(text: str, bold: bool) -> float:
    font = get_font(findfont(FontProperties(family=FONT, weight="bold" if bold else "normal")))
    font.set_size(100, 72)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")
        font.set_text(text)
    return float(font.get_width_height()[0] / 64)


def svg(scene: Scene, roles: dict[str, str], title: str = "") -> str:
    """The scene as an SVG that needs nothing else and defines no ids, so that many can stand in one page.

    Every colour is a class, `fill-ROLE` or `line-ROLE`; whatever has a tag is of class `mark`, with the tag's fields as
    `data-` attributes.
    """
    body = [_element(item) for item in scene.items]
    text = "".join(body)
    rules = [
        f".{kind}-{r}{{{_RULES[kind].format(c)}}}" for r, c in roles.items() for kind in _RULES if _has(text, kind, r)
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="figure" role="img" aria-label={quoteattr(title)} '
        f'width="{_n(scene.width)}" height="{_n(scene.height)}" viewBox="0 0 {_n(scene.width)} {_n(scene.height)}" '
        f'font-family="{FONTS}"><style>{"".join(rules)}</style>{text}</svg>\n'
    )


_RULES = {"fill": "fill:{}", "line": "stroke:{}"}


def _has(text: str, kind: str, role: str) -> bool:
    return f'{kind}-{role}"' in text or f"{kind}-{role} " in text


def _n(value: float) -> str:
    """A number of pixels, to the hundredth."""
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def _element(item: Item) -> str:
    if isinstance(item, Text):
        anchor = "" if item.anchor == "start" else f' text-anchor="{item.anchor}"'
        weight = ' font-weight="bold"' if item.bold else ""
        turn = f' transform="rotate({item.angle} {_n(item.x)} {_n(item.y)})"' if item.angle else ""
        return (
            f'<text x="{_n(item.x)}" y="{_n(item.y)}" class="fill-{item.role}" font-size="{_n(item.size)}"'
            f"{anchor}{weight}{turn}>{escape(item.text)}</text>"
        )
    if isinstance(item, Cloud):
        d = "".join(f"M{_n(x)} {_n(y)}h0" for x, y in item.points.tolist())
        return (
            f'<path class="line-{item.role}" fill="none" stroke-width="{_n(item.size)}" stroke-linecap="round" '
            f'stroke-opacity="{_n(item.opacity)}" d="{d}"/>'
        )
    if isinstance(item, Line):
        dash = ' stroke-dasharray="1.5 2"' if item.dashed else ""
        return (
            f'<path class="{_marked(item.tag)}line-{item.role}" fill="none" stroke-width="{_n(item.width)}"{dash}'
            f'{_opacity(item.opacity)}{_data(item.tag)} d="{_polyline(item.points)}"/>'
        )
    if isinstance(item, Area):
        edge = f" line-{item.edge}" if item.edge else ""
        width = f' stroke-width="{_EDGE}"' if item.edge else ""
        faint = "" if item.opacity == 1 else f' fill-opacity="{_n(item.opacity)}"'
        return (
            f'<path class="{_marked(item.tag)}fill-{item.role}{edge}"{width}{faint}{_data(item.tag)} '
            f'd="{_polyline(item.points)}Z"/>'
        )
    full = item.mark.fill == "full"
    paint = f"fill-{item.mark.colour} line-paper" if full else f"fill-paper line-{item.mark.colour}"
    return (
        f'<path class="{_marked(item.tag)}{paint}" stroke-width="{_EDGE if full else 1.2}"{_opacity(item.opacity)}'
        f'{_data(item.tag)} transform="translate({_n(item.x)} {_n(item.y)})" d="{_outline(item.mark, item.size)}"/>'
    )


def _marked(tag: Tag | None) -> str:
    return "mark " if tag else ""


def _data(tag: Tag | None) -> str:
    return "" if tag is None else "".join(f" data-{name}={quoteattr(v)}" for name, v in tag._asdict().items() if v)


def _opacity(value: float) -> str:
    return "" if value == 1 else f' opacity="{_n(value)}"'


def _polyline(points: NDArray[np.float64]) -> str:
    """Path data; long lines without the points that nobody would see."""
    if len(points) > _LONG:
        path = Path(points)
        path.simplify_threshold = _UNSEEN
        points = np.asarray(path.cleaned(remove_nans=False, simplify=True).vertices)[
            :-1
        ]  # the last one only marks the end
    parts, start = [], True
    for x, y in points.tolist():
        if x != x or y != y:
            start = True
            continue
        parts.append(f"{'M' if start else 'L'}{_n(x)} {_n(y)}")
        start = False
    return "".join(parts)


@cache
def shape_path(mark: Mark, size: float) -> Path:
    """The outline of a marker about the origin, y down; a barred one has a stroke through its middle."""
    style = MarkerStyle(mark.shape)
    scale = size * {"*": 1.3, "D": 0.9, "d": 1.1, "p": 1.1, "h": 1.1}.get(mark.shape, 1.0)
    path = style.get_path().transformed(style.get_transform() + Affine2D().scale(scale, -scale))
    if mark.fill == "barred":
        bar = Path([(-scale / 2, 0), (scale / 2, 0)], [Path.MOVETO, Path.LINETO])
        path = Path.make_compound_path(path, bar)
    return path


@cache
def _outline(mark: Mark, size: float) -> str:
    """The same as SVG's path data."""
    letters = {Path.MOVETO: "M", Path.LINETO: "L", Path.CURVE3: "Q", Path.CURVE4: "C"}
    parts = []
    for vertices, code in shape_path(mark, size).iter_segments(simplify=False, curves=True):
        parts.append("Z" if code == Path.CLOSEPOLY else letters[code] + " ".join(map(_n, vertices)))
    return "".join(parts)


def png(scene: Scene, roles: dict[str, str]) -> bytes:
    """The scene as a picture of twice as many pixels, on paper's colour."""
    size = [round(_PNG_SCALE * length) for length in (scene.width, scene.height)]
    renderer = RendererAgg(size[0], size[1], 96 * _PNG_SCALE)
    to_canvas = Affine2D().scale(_PNG_SCALE, -_PNG_SCALE).translate(0, size[1])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")
        for item in scene.items:
            if isinstance(item, Text):
                _paint_text(renderer, item, roles)
            else:
                _paint(renderer, item, to_canvas, roles)
    image = Image.fromarray(np.asarray(renderer.buffer_rgba()), "RGBA")
    paper = Image.new("RGBA", image.size, roles["paper"])
    file = io.BytesIO()
    Image.alpha_composite(paper, image).convert("RGB").save(file, "png", compress_level=4, dpi=(192, 192))
    return file.getvalue()


def _paint_text(renderer: RendererAgg, item: Text, roles: dict[str, str]) -> None:
    properties = _font(item.size, item.bold)
    context = renderer.new_gc()
    context.set_foreground(roles[item.role])
    shift = {"start": 0.0, "middle": 0.5, "end": 1.0}[item.anchor] * text_width(item.text, item.size, item.bold)
    angle = np.deg2rad(item.angle)
    x, y = item.x - shift * np.cos(angle), item.y - shift * np.sin(angle)
    renderer.draw_text(context, _PNG_SCALE * x, _PNG_SCALE * y, item.text, properties, -item.angle)


@cache
def _font(size: float, bold: bool) -> FontProperties:
    return FontProperties(family=[FONT, "sans-serif"], size=size * _PX, weight="bold" if bold else "normal")


def _paint(renderer: RendererAgg, item: Line | Area | Dot | Cloud, to_canvas: Affine2D, roles: dict[str, str]) -> None:
    context = renderer.new_gc()
    context.set_antialiased(True)
    face: Any = None
    if isinstance(item, Dot):
        full = item.mark.fill == "full"
        colours = (item.mark.colour, "paper") if full else ("paper", item.mark.colour)
        face, edge, width = (*to_rgb(roles[colours[0]]), item.opacity), colours[1], _EDGE if full else 1.2
        path = shape_path(item.mark, item.size).transformed(Affine2D().translate(item.x, item.y))
    elif isinstance(item, Area):
        face, edge, width = (*to_rgb(roles[item.role]), item.opacity), item.edge, _EDGE if item.edge else 0.0
        path = Path([*item.points, item.points[0]], closed=True)
    elif isinstance(item, Cloud):
        edge, width = item.role, item.size
        ends = np.repeat(item.points, 2, axis=0) + np.tile([(-0.01, 0), (0.01, 0)], (len(item.points), 1))
        path = Path(ends, np.tile([Path.MOVETO, Path.LINETO], len(item.points)))
        path.should_simplify = False  # each point is a line too short to be kept, or to be put on the pixels' grid
        context.set_snap(False)
        context.set_capstyle("round")
    else:
        edge, width, path = item.role, item.width, Path(item.points)
        context.set_capstyle("butt")
        if item.dashed:
            context.set_dashes(0, [1.5 * _PX, 2 * _PX])
    context.set_linewidth(width * _PX)
    context.set_foreground(roles[edge] if edge else (0, 0, 0, 0))
    if not isinstance(item, Area):
        context.set_alpha(item.opacity)
    renderer.draw_path(context, path, to_canvas, face)
