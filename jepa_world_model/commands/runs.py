"""`jepa-wm runs [FOLDER]`: one page over all runs below a folder, to filter, sort and compare them."""

from __future__ import annotations

import argparse
import functools
import http.server
from collections.abc import Sequence
from pathlib import Path

from jepa_world_model.core.errors import UserError


def main(argv: Sequence[str]) -> None:
    """Write the page; with --serve, show it on this machine's loopback until Ctrl-C, read anew at each visit."""
    parser = argparse.ArgumentParser(prog="jepa-wm runs", description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("runs"), help="where runs lie (runs)")
    parser.add_argument("--out", type=Path, help="the page (FOLDER/runs.html)")
    parser.add_argument("--serve", type=int, metavar="PORT", help="serve it on 127.0.0.1:PORT")
    own = parser.parse_args(argv)
    out = own.out or own.folder / "runs.html"
    say(own.folder, out)
    if own.serve is not None:
        serve(own.folder, own.serve)


def write(folder: Path, out: Path) -> tuple[Path, dict[str, str]]:
    """Write the page; its path, and why runs could not be read, by name."""
    from jepa_world_model.diagnostics.runs_page import find_runs, write_runs_page

    return write_runs_page(find_runs(folder), folder, out)


def say(folder: Path, out: Path) -> None:
    """Write the page and tell where it is and what could not be read."""
    path, unread = write(folder, out)
    for why in unread.values():
        print(f"not read: {why}")
    print(f"page: {path}")


class Handler(http.server.SimpleHTTPRequestHandler):
    """Files below the folder of runs; the page is made anew when it is asked for."""

    def do_GET(self) -> None:
        """Answer one request."""
        if self.path.split("?")[0] in ("/", "/runs.html"):
            folder = Path(self.directory)
            write(folder, folder / "runs.html")
            self.path = "/runs.html"
        super().do_GET()

    def log_message(self, *_: object) -> None:
        """Say nothing: a visit is no news."""


def server(folder: Path, port: int) -> http.server.ThreadingHTTPServer:
    """A server on loopback only. Errors: UserError when the port is taken."""
    try:
        return http.server.ThreadingHTTPServer(
            ("127.0.0.1", port), functools.partial(Handler, directory=str(folder))
        )
    except OSError as problem:
        raise UserError(f"--serve {port}: {problem.strerror}; choose another port, or 0 for any") from None


def serve(folder: Path, port: int) -> None:
    """Serve until Ctrl-C."""
    with server(folder, port) as listening:
        print(f"http://127.0.0.1:{listening.server_port}/  (Ctrl-C ends it)", flush=True)
        try:
            listening.serve_forever()
        except KeyboardInterrupt:
            print("ended")
