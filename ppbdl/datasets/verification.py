"""A file's sha256 is checked before it is parsed."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ..errors import DataError


def read_verified(path: Path, sha256: str) -> bytes:
    """The content of a file, if its sha256 is the one published; otherwise `DataError`."""
    content = path.read_bytes()
    if (digest := hashlib.sha256(content).hexdigest()) != sha256:
        raise DataError(
            path.name,
            expected=f"sha256 {sha256[:12]}...",
            got=f"{digest[:12]}..., so the file was altered or is another",
            remedy="Get the file again.",
        )
    return content
