"""What links must look like."""

from __future__ import annotations

from urllib.parse import urlsplit


def is_outside(link: str) -> bool:
    """Whether a link leads to another place than this repository or site."""
    return bool(urlsplit(link).scheme)


def is_well_formed(link: str) -> bool:
    """Whether a link to the outside is an address as one types it; nobody goes there."""
    parts = urlsplit(link)
    return parts.scheme in ("http", "https") and "." in parts.netloc and not set(" <>\"'") & set(link)
