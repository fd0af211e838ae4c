"""One figure of a report, for a notebook or a script."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from oodjax.files import write_whole
from oodjax.report import figures
from oodjax.report.data import ReportError, load
from oodjax.report.scene import png, svg
from oodjax.report.style import Drawing, paper_colours


@dataclass(frozen=True)
class Picture:
    """A figure that a notebook shows where it is a cell's last value.

    Attributes:
      title: the figure's.
      drawing: what is drawn.
    """

    title: str
    drawing: Drawing

    @property
    def caption(self) -> str:
        """What the figure shows, in words and numbers."""
        return self.drawing.caption

    @property
    def svg(self) -> str:
        return svg(self.drawing.scene, paper_colours(), self.title)

    def save(self, path: str | Path) -> None:
        """Writes the figure, as SVG or PNG by the ending of `path`.

        Raises:
          ValueError: another ending.
          OSError: the file cannot be written.
        """
        path = Path(path)
        if path.suffix not in (".svg", ".png"):
            raise ValueError(f"a figure is saved as .svg or .png, got {path.name!r}")
        content = self.svg.encode() if path.suffix == ".svg" else png(self.drawing.scene, paper_colours())
        write_whole(path, lambda file: file.write(content))

    def _repr_svg_(self) -> str:
        return self.svg

    def __repr__(self) -> str:
        return f"Picture({self.title!r})"


def figure(folder: str | Path, key: str, *, baseline: str | None = None) -> Picture:
    """Draws one of a report's figures.

    Args:
      folder: holds results.csv and models.csv, and may hold run.json, as a study leaves them.
      key: the figure's file name in `report/figures` without its ending, such as "fig07-ranks".
      baseline: the model that others are compared with; by default the one named or categorised `baseline`.

    Raises:
      ReportError: the tables are not what their columns promise, the key is unknown (the message lists all), or the
        tables have not what the figure shows.
    """
    study = load(Path(folder), baseline)
    entries = {entry.key: entry for entry in figures.entries(study)}
    if key not in entries:
        raise ReportError(f"there is no figure {key!r} of these tables; there are: {', '.join(entries)}")
    try:
        return Picture(entries[key].title, entries[key].draw(study))
    except ValueError as error:
        raise ReportError(f"{key} cannot be drawn: {error}") from error
