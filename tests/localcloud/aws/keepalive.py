"""A connection of the gateway that serves one call after the other."""

from __future__ import annotations

from collections.abc import Callable

from moto.server import MotoRequestHandler


class KeepAlive(MotoRequestHandler):
    """werkzeug's closes a connection after its first call, since an application may leave some of a request unread.

    Here each application reads all of it. A connection costs a thread, and a fourth of what a call takes.
    """

    protocol_version = "HTTP/1.1"
    # Head and body leave together, and at once.
    wbufsize = -1
    disable_nagle_algorithm = True

    def run_wsgi(self) -> None:
        """Answers one call. If the application fails, that ends the connection and is logged."""
        environ = self.make_environ()

        def start_response(status: str, headers: list[tuple[str, str]], _: object = None) -> Callable[[bytes], object]:
            code, _, reason = status.partition(" ")
            self.send_response(int(code), reason)
            for name, value in headers:
                self.send_header(name, value)
            if "content-length" not in {name.lower() for name, _ in headers}:
                self.send_header("Connection", "close")
            self.end_headers()
            return self.wfile.write

        pieces = self.server.app(environ, start_response)
        try:
            for piece in pieces:
                self.wfile.write(piece)
                self.wfile.flush()
        finally:
            if hasattr(pieces, "close"):
                pieces.close()

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """The gateway logs all calls, with who called."""
