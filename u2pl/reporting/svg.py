"""Matplotlib's SVG as a page takes it in: small, and in the page's own ink, so legible on white and on black."""

import base64
import io
import re
from xml.sax.saxutils import quoteattr

from PIL import Image

from u2pl.escaping import one_line

_JPEG_QUALITY = 82
"""Of photographs in a figure, which shows them small."""


def for_page(drawn: str, *, ink: str, name: str, description: str, digits: int = 2) -> str:
    """An `<svg>` element that can stand in a page, and alone in a file.

    Args:
        drawn: what matplotlib wrote, on no background.
        ink: colour that stands for that of the page's text, such as #222324.
        name: begins all ids, so that a page can hold several figures.
        description: read aloud to who does not see the figure.
        digits: decimals of the places of lines, in points; a tenth is finer than a screen.
    """
    text = drawn[drawn.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", text, flags=re.DOTALL)
    # A style of the element alone: one for `*` would be true of the whole page.
    style = r'\s*<defs>\s*<style type="text/css">\*\{([^}]*)\}</style>\s*</defs>'
    lines = re.search(style, text)
    text = re.sub(style, "", text)
    spoken = f'<svg role="img" aria-label={quoteattr(one_line(description))}'
    text = text.replace("<svg", f'{spoken} style="{lines[1]}"' if lines else spoken, 1)
    text = re.sub(r'href="data:image/png;base64,\s*([^"]*)"', _smaller_picture, text)
    text = _with_shared_styles(text.replace(ink, "currentColor"))
    # Between the tags stand numbers to be read.
    text = re.sub(r"<[^>]*>", lambda tag: _rounded(tag[0], digits), text)
    return re.sub(r"\s*\n\s*", "\n", _with_own_ids(text, name))


def _smaller_picture(found: re.Match[str]) -> str:
    """The same picture with a palette, or of too many colours for one as a photograph, if that is smaller."""
    content = base64.b64decode(found[1])
    with Image.open(io.BytesIO(content)) as picture:
        whole = picture.convert("RGBA")
    if whole.getchannel("A").getextrema() != (255, 255):  # it lets something through
        return found[0]
    whole, kind, encoded = whole.convert("RGB"), "jpeg", io.BytesIO()
    if whole.getcolors(256) is not None:
        kind, whole = "png", whole.convert("P", palette=Image.Palette.ADAPTIVE, colors=256)
    whole.save(encoded, format=kind, quality=_JPEG_QUALITY, optimize=True)
    if len(encoded.getvalue()) >= len(content):
        kind, encoded = "png", io.BytesIO(content)
    return f'href="data:image/{kind};base64,{base64.b64encode(encoded.getvalue()).decode()}"'


def _with_shared_styles(text: str) -> str:
    """The style of many equal marks said once, by what holds them."""

    def shared(group: re.Match[str]) -> str:
        styles = set(re.findall(r'style="([^"]*)"', group[2]))
        if len(styles) != 1 or group[2].count("<use") != group[2].count("style="):
            return group[0]
        marks = re.sub(r' style="[^"]*"', "", group[2])
        return f'{group[1]} style="{styles.pop()}">{marks}</g>'

    return re.sub(r'(<g clip-path="[^"]*")>((?:\s*<use [^>]*/>)+\s*)</g>', shared, text)


def _rounded(tag: str, digits: int) -> str:
    """Places to a hundredth of a point, those of lines to `digits` decimals; scales stay as they are."""
    tag = re.sub(r"(scale\([^)]*\))|\d+\.\d{3,}", lambda n: n[1] or _number(n[0], 2), tag)

    def path(found: re.Match[str]) -> str:
        places = re.sub(r"\d+\.\d+", lambda n: _number(n[0], digits), found[0])
        return re.sub(r"\s*\b([MLHVCQz])\b\s*", r"\1", re.sub(r"\s+", " ", places))

    return re.sub(r' d="[^"]*"', path, tag)


def _number(text: str, digits: int) -> str:
    return f"{float(text):.{digits}f}".rstrip("0").rstrip(".")


def _with_own_ids(text: str, name: str) -> str:
    """Ids begin with the figure's name; those that nothing refers to go."""
    used = set(re.findall(r'(?:href="|url\()#([^")]+)', text))
    text = re.sub(
        r' id="([^"]*)"', lambda found: f' id="{name}-{found[1]}"' if found[1] in used else "", text
    )
    return re.sub(r'(href="|url\()#', lambda found: f"{found[1]}#{name}-", text)


def with_prefix(element: str, name: str) -> str:
    """An element with all its ids begun by `name`, so that a page may hold it twice."""
    return re.sub(r'(\bid="|href="#|url\(#)', lambda found: f"{found[0]}{name}-", element)
