"""A draft as a PDF: the disclaimer on every page, the report, then the findings. It names no patient."""

from __future__ import annotations

import functools
import io
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import reportlab
from reportlab.lib import colors
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import Flowable, Paragraph, SimpleDocTemplate, Spacer, Table, TableStyle

from rayscribe.errors import DISCLAIMER
from rayscribe.reports.document import Document
from rayscribe.reports.lines import STATUS, author_line, created_at, edited_line, finding_words, heading

_FONT, _BOLD = "Vera", "VeraBd"
"Shipped with reportlab; Latin letters only."
_SPELLED = {"≥": ">=", "≤": "<=", "→": "->", "←": "<-", "−": "-", "‐": "-", "‑": "-", "′": "'", "″": '"', "≈": "~"}
_MARGIN, _BANNER = 20 * mm, 20 * mm
_RED = colors.HexColor("#a40000")
_NOTE = "[U+....] stands for a character that this page's font lacks; the other formats have it."

_BODY = ParagraphStyle("body", fontName=_FONT, fontSize=10.5, leading=15.5)
_SMALL = ParagraphStyle("small", parent=_BODY, fontSize=8, leading=11, textColor=colors.HexColor("#444444"))
_TITLE = ParagraphStyle("title", parent=_BODY, fontName=_BOLD, fontSize=15, leading=20, spaceAfter=4)
_HEADING = ParagraphStyle(
    "heading", parent=_BODY, fontName=_BOLD, fontSize=11, leading=16, spaceBefore=12, spaceAfter=3
)
_WARNING = ParagraphStyle("banner", parent=_BODY, fontName=_BOLD, fontSize=11, leading=14, textColor=colors.white)


def pdf_of(document: Document) -> bytes:
    """The PDF file; the same draft gives the same bytes."""
    _load_fonts()
    buffer = io.BytesIO()
    template = SimpleDocTemplate(
        buffer,
        pagesize=A4,
        leftMargin=_MARGIN,
        rightMargin=_MARGIN,
        topMargin=_MARGIN + _BANNER,
        bottomMargin=_MARGIN,
        title="Preliminary draft report, not for clinical use",
        author="rayscribe",
        subject=DISCLAIMER,
        invariant=1,
    )
    template.build(_story(document), onFirstPage=_frame, onLaterPages=_frame)
    return buffer.getvalue()


def printable(text: str, has_glyph: Callable[[str], bool]) -> str:
    """Text that the font can show; missing characters are transliterated or replaced by their number, never dropped."""
    return "".join(_printable(character, has_glyph) for character in text)


def _printable(character: str, has_glyph: Callable[[str], bool]) -> str:
    if character.isspace():
        return "\n" if character == "\n" else " "
    if has_glyph(character):
        return character
    if character in _SPELLED:
        return _SPELLED[character]
    plain = unicodedata.normalize("NFKC", character)
    if plain != character and all(map(has_glyph, plain)):
        return plain
    return f"[U+{ord(character):04X}]"


@functools.cache
def _load_fonts() -> None:
    for name in (_FONT, _BOLD):
        pdfmetrics.registerFont(TTFont(name, str(Path(reportlab.__file__).parent / "fonts" / f"{name}.ttf")))


def _has_glyph(font: str) -> Callable[[str], bool]:
    loaded: Any = pdfmetrics.getFont(font)
    return lambda character: ord(character) in loaded.face.charToGlyph


def _paragraph(text: str, style: ParagraphStyle) -> Paragraph:
    shown = printable(unicodedata.normalize("NFC", text), _has_glyph(style.fontName))
    return Paragraph(escape(shown).replace("\n", "<br/>"), style)


def _story(document: Document) -> list[Flowable]:
    made = created_at(document).strftime("%Y-%m-%d %H:%M UTC")
    story: list[Flowable] = [
        _paragraph("Draft report", _TITLE),
        _paragraph(f"{STATUS} {edited_line(document)}", _BODY),
        _paragraph(f"{author_line(document)}. {made}. Images: {document.images}.", _SMALL),
        _paragraph(heading(document), _HEADING),
        _paragraph(document.text, _BODY),
    ]
    if document.findings:
        story += [_paragraph("Findings of the model beside the report", _HEADING), _table(document)]
    if document.warnings:
        story.append(_paragraph("Warnings", _HEADING))
        story += [_paragraph(warning, _BODY) for warning in document.warnings]
    texts = (document.text, document.model.name, *document.warnings, *(finding.name for finding in document.findings))
    if any("[U+" in printable(text, _has_glyph(_FONT)) for text in texts):
        story += [Spacer(0, 8), _paragraph(_NOTE, _SMALL)]
    return story


def _table(document: Document) -> Table:
    rows = [[_paragraph(name, _SMALL) for name in ("Finding", "In words", "Probability", "State", "Source")]]
    for finding in document.findings:
        probability = "" if finding.probability is None else f"{finding.probability:.2f}"
        cells = (finding.name, finding_words(finding), probability, finding.state, finding.source)
        rows.append([_paragraph(cell, _SMALL) for cell in cells])
    table = Table(rows, colWidths=[50 * mm, 44 * mm, 24 * mm, 24 * mm, 28 * mm], repeatRows=1, hAlign="LEFT")
    line = ("LINEBELOW", (0, 0), (-1, -1), 0.3, colors.HexColor("#bbbbbb"))
    table.setStyle(TableStyle([line, ("VALIGN", (0, 0), (-1, -1), "TOP"), ("BOTTOMPADDING", (0, 0), (-1, -1), 2)]))
    return table


def _frame(canvas: Canvas, template: SimpleDocTemplate) -> None:
    """The banner on every page, and the page number below it."""
    width, height = A4
    canvas.saveState()
    canvas.setFillColor(_RED)
    canvas.rect(0, height - _BANNER, width, _BANNER, stroke=0, fill=1)
    banner = Paragraph(escape(DISCLAIMER), _WARNING)
    _, tall = banner.wrap(width - 2 * _MARGIN, _BANNER)
    banner.drawOn(canvas, _MARGIN, height - (_BANNER + tall) / 2)
    canvas.setFillColor(colors.black)
    canvas.setFont(_FONT, 8)
    canvas.drawRightString(width - _MARGIN, 10 * mm, f"preliminary draft, page {canvas.getPageNumber()}")
    canvas.restoreState()
