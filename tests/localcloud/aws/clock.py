"""The region's clock, which a test may set off: STATE/clock holds by how many seconds; without that file it is right."""

from __future__ import annotations

import datetime as dt
from pathlib import Path


class Clock:
    """What signatures are judged by, and what answers say in their `Date`."""

    def __init__(self, state: Path) -> None:
        self._file = state / "clock"

    def now(self) -> dt.datetime:
        """In UTC."""
        try:
            off = float(self._file.read_text())
        except (OSError, ValueError):
            off = 0.0
        return dt.datetime.now(dt.UTC) + dt.timedelta(seconds=off)
