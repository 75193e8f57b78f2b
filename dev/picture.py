"""Draws docs/flow.svg from docs/flow.toml: `python -m dev.picture`.

The same text makes the same picture everywhere: no font is measured and no other program is called.
"""

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

_DOCS = Path(__file__).resolve().parent.parent / "docs"
SOURCE, PICTURE = _DOCS / "flow.toml", _DOCS / "flow.svg"

# In pixels of the picture. It is narrow, so that its words can be read on a telephone.
_WIDTH = 528
_LEFTS, _BOX_WIDTHS = (20, 300), (220, 208)
_LINE, _PADDING, _GAP, _MARGIN = 20, 14, 58, 20
_FRAME_PADDING, _FRAME_TITLE = 12, 26
# Of the letters' heights: where the first baseline of a line is, from its top.
_BASELINE = 15

_STYLE = """\
text { font: 14px system-ui, "Segoe UI", Helvetica, Arial, sans-serif; fill: #1f2328; }
.title { font-weight: 600; font-size: 15px; }
.note { font-size: 13px; fill: #57606a; }
.box { fill: #f6f8fa; stroke: #57606a; stroke-width: 1.5; }
.frame { fill: none; stroke: #57606a; stroke-dasharray: 5 4; }
.arrow { fill: none; stroke: #0969da; stroke-width: 2; }
.head { fill: #0969da; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; }
  .note { fill: #9da7b3; }
  .box { fill: #161b22; stroke: #8b949e; }
  .frame { stroke: #8b949e; }
  .arrow { stroke: #58a6ff; }
  .head { fill: #58a6ff; }
}"""


@dataclass(frozen=True)
class Box:
    """A box, and where it is."""

    title: str
    lines: list[str]
    column: int
    top: int
    height: int

    @property
    def left(self) -> int:
        """Its left side."""
        return _LEFTS[self.column]

    @property
    def right(self) -> int:
        """Its right side."""
        return self.left + _BOX_WIDTHS[self.column]

    @property
    def bottom(self) -> int:
        """Its lower side."""
        return self.top + self.height


@dataclass
class Rows:
    """The tops and heights of the rows, from the boxes in them."""

    boxes: list[dict[str, Any]]
    tops: list[int] = field(default_factory=list)
    heights: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        top = _MARGIN
        for row in range(1 + max(box["rows"][1] for box in self.boxes)):
            single = [box for box in self.boxes if box["rows"] == [row, row]]
            self.tops.append(top)
            self.heights.append(max(map(_needs, single)))
            top += self.heights[-1] + _GAP

    def place(self, box: dict[str, Any]) -> Box:
        """The box, as high as its rows."""
        first, last = box["rows"]
        height = self.tops[last] + self.heights[last] - self.tops[first]
        lines = box.get("lines", [])
        return Box(box["title"], lines, box["column"], self.tops[first], height)


def _needs(box: dict[str, Any]) -> int:
    return 2 * _PADDING + _LINE * (1 + len(box.get("lines", [])))


def render() -> str:
    """The picture."""
    source = tomllib.loads(SOURCE.read_text(encoding="utf-8"))
    rows = Rows(source["box"])
    boxes = {box["id"]: rows.place(box) for box in source["box"]}
    lowest = max(box.bottom for box in boxes.values())
    height = lowest + _FRAME_PADDING + _FRAME_TITLE + _MARGIN
    size = f'viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">',
        f"<title>{escape(source['title'])}</title>",
        f"<style>\n{_STYLE}\n</style>",
    ]
    for frame in source.get("frame", []):
        parts += _frame(frame["title"], [boxes[one] for one in frame["boxes"]])
    for box in boxes.values():
        parts += _box(box)
    for arrow in source["arrow"]:
        ends = boxes[arrow["from"]], boxes[arrow["to"]]
        parts += _arrow(*ends, arrow.get("both", False), arrow.get("label", []))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _frame(title: str, boxes: list[Box]) -> Iterator[str]:
    left = min(box.left for box in boxes) - _FRAME_PADDING
    width = max(box.right for box in boxes) + _FRAME_PADDING - left
    top = min(box.top for box in boxes) - _FRAME_PADDING
    height = max(box.bottom for box in boxes) + _FRAME_PADDING + _FRAME_TITLE - top
    yield _rectangle("frame", left, top, width, height)
    yield _text("note", left + _FRAME_PADDING, top + height - _FRAME_PADDING, title)


def _box(box: Box) -> Iterator[str]:
    yield _rectangle("box", box.left, box.top, box.right - box.left, box.height)
    lines = [f"*{box.title}", *box.lines]
    # A box that is higher than its text has it in the middle.
    y = box.top + (box.height - _LINE * len(lines)) // 2 + _BASELINE
    for number, line in enumerate(lines):
        style = "title" if line.startswith("*") else "note"
        yield _text(style, box.left + _PADDING, y + number * _LINE, line.lstrip("*"))


def _arrow(start: Box, end: Box, both: bool, label: list[str]) -> Iterator[str]:
    if start.column == end.column:
        x = start.left + _PADDING * 2
        points = (x, start.bottom), (x, end.top)
        # A frame may begin before the end of the arrow.
        room = end.top - start.bottom - _FRAME_PADDING
        y = start.bottom + (room - _LINE * len(label)) // 2 + _BASELINE
        for number, line in enumerate(label):
            yield _text("note", x + _PADDING, y + number * _LINE, line)
    else:
        y = start.top + start.height // 2
        points = (start.right, y), (end.left, y)
    yield _line(*points)
    yield _head(*points)
    if both:
        yield _head(*reversed(points))


def _line(start: tuple[int, int], end: tuple[int, int]) -> str:
    return f'<path class="arrow" d="M{start[0]} {start[1]} L{end[0]} {end[1]}"/>'


def _head(start: tuple[int, int], end: tuple[int, int]) -> str:
    """A triangle at the end, 10 long and 10 wide."""
    along = [(b > a) - (b < a) for a, b in zip(start, end, strict=True)]
    back = end[0] - 10 * along[0], end[1] - 10 * along[1]
    sides = [(back[0] + side * 5 * along[1], back[1] + side * 5 * along[0]) for side in (-1, 1)]
    corners = " ".join(f"{x},{y}" for x, y in (end, *sides))
    return f'<polygon class="head" points="{corners}"/>'


def _rectangle(style: str, left: int, top: int, width: int, height: int) -> str:
    place = f'x="{left}" y="{top}" width="{width}" height="{height}" rx="8"'
    return f'<rect class="{style}" {place}/>'


def _text(style: str, x: int, y: int, text: str) -> str:
    return f'<text class="{style}" x="{x}" y="{y}">{escape(text)}</text>'


if __name__ == "__main__":
    PICTURE.write_text(render(), encoding="utf-8")
