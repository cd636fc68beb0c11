"""Live table of a monitor: the last looks, and the counts so far. On what is no terminal, one line per alarm."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from rich.live import Live
from rich.markup import escape
from rich.table import Table

from aldriver.cli.common import log

if TYPE_CHECKING:
    from aldriver.monitor.judge import Judge, Look
    from aldriver.monitor.watch import Watch

ROWS = 12


class View:
    """Shows looks as they come."""

    def __init__(self, watch: Watch, judge: Judge) -> None:
        self._watch, self._promise = watch, judge.calibration.sentences()
        self._last: deque[Look] = deque(maxlen=ROWS)
        self._live = Live(console=log, refresh_per_second=2, transient=True, get_renderable=self.table)

    def __enter__(self) -> View:
        log.print(escape(self._promise[0]), highlight=False, soft_wrap=True)
        if log.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if log.is_terminal:
            self._live.stop()

    def look(self, look: Look, begins: bool) -> None:
        """Show a look."""
        self._last.append(look)
        if begins:
            named = f"; least known: {look.named}" if look.suspects else ""
            text = escape(f"step {look.step}: {look.verdict}: {look.reason}{named}")
            log.print(f"[bold red]alarm[/] {text}", highlight=False, soft_wrap=True)

    def note(self, text: str) -> None:
        """Show a remark."""
        log.print(f"[yellow]{escape(text)}[/]", highlight=False, soft_wrap=True)

    def table(self) -> Table:
        """The last looks."""
        counts = self._watch.summary()
        state = "[bold red]outside[/]" if self._watch.alarmed else "[green]inside[/]"
        title = f"{state}, {counts['frames']} frames: {counts['flagged']} flagged, {counts['alarms']} alarms"
        table = Table("step", title=title, title_justify="left")
        table.add_column("score / threshold", justify="right")
        table.add_column("verdict")
        table.add_column("least known atoms (score / threshold)")
        for look in list(self._last):  # the display has a thread of its own
            style = "red" if look.outside else None
            table.add_row(str(look.step), f"{look.ratio:.3g}", look.verdict, escape(look.named), style=style)
        return table

    @staticmethod
    def verdict(summary: dict[str, Any]) -> str:
        """The outcome in a line or two."""
        frames = summary["frames"]
        if not frames:
            return "no frame was seen"
        outside = frames - summary["known"]
        kinds = ", ".join(f"{summary[k]} {k}" for k in ("flagged", "unphysical", "quarantined") if summary[k])
        text = f"{frames} frames, {outside} outside" + (f" ({kinds})" if kinds else "")
        text += f", {summary['alarms']} alarms; largest score / threshold {summary['worst_ratio']:.3g}"
        text += f" at step {summary['worst_step']}"
        if summary.get("share") is not None:
            text += f"; looking took {100 * summary['share']:.2g} % of the run, last every {summary['every']} steps"
        if summary.get("stopped"):
            text += f"\nthe run was stopped: {summary['stopped']}"
        if summary["fed"]:
            text += f"\n{summary['fed']} frames handed to the campaign"
        return f"{text}\nthe run {'stayed inside' if summary['inside'] else 'did not stay inside'}"
