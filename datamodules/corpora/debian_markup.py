"""HTML, pod, roff, OSIS and dictionary files turned into plain text."""

from __future__ import annotations

import gzip
import re
import struct
import zlib
from collections.abc import Iterator
from html import unescape
from pathlib import Path

from lxml import etree
from lxml import html as lxml_html

_BLOCKS = frozenset(
    {"p", "div", "li", "h1", "h2", "h3", "h4", "h5", "h6", "tr", "dt", "dd", "pre", "section", "table"}
    | {"blockquote", "br", "article", "main", "ul", "ol", "dl"}
)
_LINES = frozenset({"li", "tr", "br", "dt", "dd"})
_DROPPED = frozenset(
    {
        "script",
        "style",
        "nav",
        "head",
        "footer",
        "header",
        "form",
        "svg",
        "math",
        "noscript",
        "button",
        "iframe",
    }
)
_DROPPED_CLASSES = frozenset({"nav", "navheader", "navfooter", "sphinxsidebar", "headerlink", "related"})


def read_text(path: Path) -> str:
    """A text file, compressed or not, in UTF-8 or else Latin-1."""
    data = path.read_bytes()
    if path.suffix in (".gz", ".dz"):
        data = gzip.decompress(data)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def tidy(text: str) -> str:
    """Without signs that only show in print, trailing blanks, and more than one empty line at a time."""
    text = re.sub("[\u00b6\u00ad\r\u200b\ufeff]|[\x00-\x08\x0b-\x1f\x7f]", "", text)
    text = re.sub(r"[ \t\u00a0]+\n", "\n", text)
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def html_to_text(source: str) -> str:
    """The main part of a page, paragraphs separated by empty lines, preformatted text as it is."""
    parser = lxml_html.HTMLParser(encoding="utf-8")
    try:
        root = lxml_html.document_fromstring(source.encode(), parser=parser)
    except (etree.ParserError, etree.XMLSyntaxError):
        return ""
    main = root
    for path in ('.//*[@role="main"]', ".//main", ".//article", ".//body"):
        if (found := root.find(path)) is not None:
            main = found
            break
    text = "".join(_pieces(main))
    return tidy(re.sub(r"(?<=\n) (?=\S)", "", text))


def _pieces(main: lxml_html.HtmlElement) -> Iterator[str]:
    """Text in the order of the page; walks without recursion, since pages nest deeply."""
    preformatted = dropped = 0
    for event, element in etree.iterwalk(main, events=("start", "end", "comment", "pi")):
        name = element.tag if isinstance(element.tag, str) else ""
        opaque = name in _DROPPED or bool(_DROPPED_CLASSES & set((element.get("class") or "").split()))
        if event == "start":
            dropped += opaque
            preformatted += name == "pre"
            if not dropped:
                if name in _BLOCKS:
                    yield "\n" if name in _LINES else "\n\n"
                elif name in ("td", "th"):
                    yield " "
                yield _spaced(element.text, preformatted)
            continue
        if event == "end":
            dropped -= opaque
            preformatted -= name == "pre"
            if not dropped and not opaque and name in _BLOCKS:
                yield "\n"
        if not dropped and element is not main:
            yield _spaced(element.tail, preformatted)


def _spaced(text: str | None, preformatted: int) -> str:
    if not text or preformatted:
        return text or ""
    return re.sub(r"\s+", " ", text)


def pod_to_text(source: str) -> str:
    """Perl's plain old documentation without its commands and codes."""
    text = re.sub(r"(?ms)^=begin .*?^=end[^\n]*$", "", source)
    text = re.sub(r"(?m)^=(?:encoding|for|pod|cut|over|back)\b[^\n]*$", "", text)
    text = re.sub(r"(?m)^=(?:head\d|item)[ \t]*", "", text)
    text = re.sub(r"[XZ]<[^<>]*>", "", text)
    text = re.sub(r"L<(?:([^<>|]*)\|)?([^<>]*)>", lambda link: link[1] or link[2], text)
    for _ in range(3):  # codes nest
        text = re.sub(
            r"[BCFIS]<<+\s(.*?)\s>>+|[BCFIS]<([^<>]*)>", lambda code: code[1] or code[2] or "", text
        )
    for name, sign in (("lt", "<"), ("gt", ">"), ("sol", "/"), ("verbar", "|")):
        text = text.replace(f"E<{name}>", sign)
    return tidy(text)


_FONT_MACROS = frozenset(["B", "I", "BR", "IR", "RB", "BI", "IB", "RI", "SM", "SB"])
_PARAGRAPH_MACROS = frozenset(["PP", "P", "LP", "TP", "IP", "sp", "HP"])
_ROFF_SIGNS = {
    "\\-": "-", "\\(aq": "'", "\\(dq": '"', "\\(bu": "*", "\\(em": "--", "\\(en": "-", "\\(co": "(c)",
    "\\(lq": '"', "\\(rq": '"', "\\(ti": "~", "\\(ha": "^", "\\(ga": "`", "\\(->": "->", "\\(>=": ">=",
    "\\(<=": "<=", "\\(mu": "x", "\\(+-": "+-", "\\(bv": "|", "\\(rs": "\\", "\\ ": " ", "\\e": "\\",
}  # fmt: skip


def man_to_text(source: str) -> str:
    """A manual page with its section headings and without roff's requests."""
    lines: list[str] = []
    for line in source.split("\n"):
        if line.startswith(('.\\"', "'\\\"")):
            continue
        if not line.startswith((".", "'")):
            lines.append(line)
            continue
        macro, _, rest = line[1:].strip().partition(" ")
        words = [quoted or plain for quoted, plain in re.findall(r'"([^"]*)"|(\S+)', rest)]
        if macro in ("SH", "SS"):
            lines += ["", " ".join(words), ""]
        elif macro in _PARAGRAPH_MACROS:
            lines.append("")
            if macro == "IP" and words:
                lines.append(words[0])
        elif macro in _FONT_MACROS:
            # Alternating fonts join their words: `.BR open (2)` is open(2).
            lines.append(("" if len(macro) == 2 and macro[0] != "S" else " ").join(words))
    text = re.sub(r"\\f(?:\[[^\]]*\]|\(..|.)|\\s[+-]?\d|\\[&/,:c%|^]|\\\".*", "", "\n".join(lines))
    for escape, sign in _ROFF_SIGNS.items():
        text = text.replace(escape, sign)
    return tidy(text)


def dictionary_entries(source: str) -> Iterator[str]:
    """Entries of a dictd file: an unindented headword and what follows."""
    for entry in re.split(r"\n(?=\S)", source):
        if entry.strip():
            yield tidy(entry)


def wordnet_entries(source: str) -> Iterator[str]:
    """Glosses of one of WordNet's data files, each behind the words it explains (wndb(5WN))."""
    for line in source.split("\n"):
        if line.startswith("  ") or " | " not in line:
            continue
        data, gloss = line.split(" | ", 1)
        fields = data.split(" ")
        words = [fields[4 + 2 * number].replace("_", " ") for number in range(int(fields[3], 16))]
        yield f"{', '.join(words)}: {gloss.strip()}"


def sword_chapters(module: Path) -> Iterator[tuple[str, str]]:
    """Name and text of each chapter of a SWORD zText module in OSIS markup.

    A testament is a file of zlib blocks (.bzz) and a file of their places (.bzs: offset, compressed size,
    size; 32 bits each, little-endian). Verses are not told apart.
    """
    for places in sorted(module.glob("*.bzs"), reverse=True):  # the Old Testament first
        blocks = places.with_suffix(".bzz").read_bytes()
        text = ""
        for offset, size, _ in struct.iter_unpack("<III", places.read_bytes()):
            if size:
                text += zlib.decompress(blocks[offset : offset + size]).decode("utf-8", "replace")
        starts = list(re.finditer(r'<chapter\b[^>]*\bosisID="([^"]+)"[^>]*/>', text))
        for start, following in zip(starts, [*starts[1:], None], strict=True):
            osis = text[start.end() : following.start() if following else None]
            yield start[1], _osis_to_text(osis)


def _osis_to_text(osis: str) -> str:
    text = re.sub(r"(?s)<(note|title)\b.*?</\1>", " ", osis)
    text = re.sub(r"<(?:div|l|lg|lb)\b[^>]*>", "\n", text)
    text = unescape(re.sub(r"<[^>]*>", "", text))
    text = re.sub(r"[ \t]+", " ", re.sub(r" *\n *", "\n", text))
    return tidy(re.sub(r"\n{2,}", "\n", text))
