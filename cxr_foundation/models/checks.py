"""What `cxr doctor` finds: single checks, and the verdict that they make together."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

__all__ = ["Check", "Status", "Verdict", "size"]

Status = Literal["ok", "warn", "fail", "unknown"]
_WORST_LAST: tuple[Status, ...] = ("ok", "unknown", "warn", "fail")


@dataclasses.dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: What it is: "torch", "cache", "licence".
        status: "ok"; "warn": it works, but read this; "fail": it does not work; "unknown": it was
            not or could not be asked, and the detail says why.
        detail: What was found. Never a token.
        remedy: What to do about it; empty where there is nothing to do.
    """

    name: str
    status: Status
    detail: str
    remedy: str = ""


@dataclasses.dataclass(frozen=True)
class Verdict:
    """All that was found.

    Attributes:
        subject: The model's name; None for the installation.
        checks: In the order in which they are read best.
    """

    subject: str | None
    checks: tuple[Check, ...]

    @property
    def status(self) -> Status:
        """The worst of all checks: "ok", "unknown", "warn", "fail" in this order."""
        return max((c.status for c in self.checks), key=_WORST_LAST.index, default="ok")

    @property
    def failed(self) -> bool:
        """Whether any check failed."""
        return self.status == "fail"

    def to_dict(self) -> dict[str, Any]:
        """The verdict as JSON types."""
        return {
            "subject": self.subject,
            "status": self.status,
            "checks": [dataclasses.asdict(c) for c in self.checks],
        }

    def lines(self) -> list[str]:
        """The verdict for people: one check a line, below it what to do."""
        width = max((len(c.name) for c in self.checks), default=0)
        lines = []
        for c in self.checks:
            lines.append(f"{c.name:{width}}  {c.status:7}  {c.detail}")
            if c.remedy:
                lines.append(f"{'':{width}}  {'':7}  -> {c.remedy}")
        failed = [c.name for c in self.checks if c.status == "fail"]
        if self.subject is None:
            ends = f"in the way: {', '.join(failed)}" if failed else "nothing is in the way"
            return [*lines, f"This installation: {ends}."]
        if failed:
            return [*lines, f"{self.subject}: cannot be loaded as it is ({', '.join(failed)})."]
        sure = all(c.status != "unknown" for c in self.checks if c.name in ("server", "disk"))
        return [*lines, f"{self.subject}: {'can' if sure else 'can probably'} be loaded."]


def size(count: int) -> str:
    """Bytes for people: decimal MB or GB, as disks and servers count."""
    return f"{count / 1e9:,.1f} GB" if count >= 10**9 else f"{count / 1e6:,.1f} MB"
