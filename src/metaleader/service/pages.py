"""Files that a browser is given: read when the service starts, so that no request leads to a file."""

from __future__ import annotations

import mimetypes
from importlib import resources
from importlib.resources.abc import Traversable
from typing import NamedTuple

from starlette.responses import HTMLResponse, Response

from metaleader.errors import UserError

POLICY = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'"
DOCS_POLICY = POLICY.replace("style-src", "script-src 'self' 'unsafe-inline'; style-src")  # Swagger UI begins inline
STATIC = "/static/"
SWAGGER = ("swagger-ui-bundle.js", "swagger-ui.css", "favicon.png")


class File(NamedTuple):
    """A file to be sent.

    Attributes:
        content: its bytes.
        media_type: of HTTP.
    """

    content: bytes
    media_type: str

    def response(self) -> Response:
        """As an answer."""
        return Response(self.content, media_type=self.media_type, headers={"content-security-policy": POLICY})


def files() -> dict[str, File]:
    """All files by their paths: those in the folder `page` here, of which `index.html` is at `/`, and Swagger UI.

    Raises:
        UserError: Swagger UI is not installed.
    """
    try:
        swagger = resources.files("fastapi_offline") / "static"
    except ModuleNotFoundError:
        raise UserError("fastapi-offline is not installed: pip install 'metaleader[serve]'") from None
    own = resources.files("metaleader.service") / "page"
    found = {f"{STATIC}{file.name}": _file(file) for file in own.iterdir() if file.is_file()}
    found["/"] = found.pop(f"{STATIC}index.html")
    return found | {f"{STATIC}{name}": _file(swagger / name) for name in SWAGGER}


def docs(title: str) -> Response:
    """The page of Swagger UI, with files of this service alone."""
    from fastapi.openapi.docs import get_swagger_ui_html

    page = get_swagger_ui_html(
        openapi_url="/openapi.json",
        title=title,
        swagger_js_url=f"{STATIC}{SWAGGER[0]}",
        swagger_css_url=f"{STATIC}{SWAGGER[1]}",
        swagger_favicon_url=f"{STATIC}{SWAGGER[2]}",
    )
    return HTMLResponse(page.body, headers={"content-security-policy": DOCS_POLICY})


def _file(file: Traversable) -> File:
    media_type = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
    return File(file.read_bytes(), media_type)
