"""`orders import FILE`: place the orders of a file, and say how far it is."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click

from schema.cli import session
from schema.cli.terminal import Answer, answering, example
from schema.errors import StartError
from schema.intake import files, importer
from schema.intake.files import path_text
from schema.intake.progress import Imported
from schema.queue import wake

_BAR_WIDTH = 30
_LINE_SECONDS = 10.0

_PATH = click.Path(path_type=Path)
_FORMAT = click.Choice([form.value for form in files.Format])


@click.command(
    "import",
    epilog=example(
        "An order in NDJSON, and in CSV below its header:",
        '  {"user_id": "ada", "item_ids": ["tea", "milk"], "total_amount": 250.75}',
        "  user_id,item_ids,total_amount",
        '  ada,"[""tea"", ""milk""]",250.75',
    ),
)
@click.argument("file", type=_PATH)
@click.option("--format", "kind", type=_FORMAT, help="What it is, whatever its name.")
@click.option("--rejected", type=_PATH, metavar="FILE", help="Where bad lines go (FILE.rejected.ndjson).")
@click.option(
    "--max-rejected",
    type=click.IntRange(min=0),
    default=importer.MAX_REJECTS,
    show_default=True,
    metavar="N",
    help="Stop beyond so many bad lines.",
)
@click.option("--again", is_flag=True, help="Place the orders of a known file once more.")
@answering
def import_(file: Path, *, kind: str | None, rejected: Path | None, max_rejected: int, again: bool) -> Answer:
    """Place the orders of a file.

    FILE is NDJSON (.ndjson, .jsonl) or CSV (.csv). An import that was stopped goes on where it was when the
    same command is given again. The exit status is 1 if lines were rejected.
    """
    form = files.Format(kind) if kind else files.format_of(file)
    rejects = rejected or file.with_name(file.name + ".rejected.ndjson")
    progress = _Progress(file)
    with session.connect("orders-import") as connection, session.resumable(progress.so_far):
        connection.reply_seconds = importer.REPLY_SECONDS

        def on_chunk(done: Imported) -> None:
            wake.notify(connection)
            progress.show(done)

        try:
            done = importer.import_file(
                connection,
                file,
                kind=form,
                rejects_path=rejects,
                again=again,
                max_rejects=max_rejected,
                on_chunk=on_chunk,
            )
        except OSError as error:
            raise StartError(f"{path_text(file)}: {error.strerror or error}") from error
        finally:
            progress.end()
    known = progress.last is None and done.offset.line > 0
    document = {
        "file": path_text(file),
        "placed": done.placed,
        "rejected": done.rejected,
        "rejected_file": path_text(rejects) if done.rejected else None,
        "imported_before": known,
    }
    lines = _report(done, file, rejects=rejects, known=known)
    return Answer(lines, document, status=1 if done.rejected else 0)


def _report(done: Imported, path: Path, *, rejects: Path, known: bool) -> Iterator[str]:
    before = " has been imported before" if known else ""
    yield f"{path_text(path)}{before}: {done.placed:,} orders placed, {done.rejected:,} lines rejected"
    if known:
        yield "nothing is done now; --again places its orders once more"
    if done.rejected:
        yield f"{path_text(rejects)} has the rejected lines, with reasons"


class _Progress:
    """Shows on stderr how far an import is: in a bar on a terminal, else in a line now and then."""

    def __init__(self, path: Path) -> None:
        self._size = path.stat().st_size if path.is_file() else 0
        self._began_at = self._shown_at = time.monotonic()
        self._on_terminal = sys.stderr.isatty()
        self.last: Imported | None = None

    def so_far(self) -> str:
        """Return how far the import came, in words."""
        return f"after line {self.last.offset.line:,}" if self.last else "before anything more was imported"

    def show(self, done: Imported) -> None:
        """Show how far the import is after a chunk."""
        self.last = done
        now = time.monotonic()
        share = done.offset.position / max(self._size, 1)
        counts = f"{done.placed:,} orders, {done.rejected:,} rejected, {now - self._began_at:.0f} s"
        if self._on_terminal:
            bar = f"[{'#' * int(_BAR_WIDTH * share):<{_BAR_WIDTH}}]"
            print(f"\r{bar} {share:4.0%}  {counts}\x1b[K", end="", file=sys.stderr, flush=True)
        elif now >= self._shown_at + _LINE_SECONDS:
            self._shown_at = now
            print(f"{share:4.0%}  {counts}", file=sys.stderr, flush=True)

    def end(self) -> None:
        """Leave the bar's line."""
        if self._on_terminal and self.last is not None:
            print(file=sys.stderr, flush=True)
