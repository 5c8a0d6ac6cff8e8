"""An empty function for functions-framework's ASGI server: gunicorn with uvicorn's workers, Starlette."""

import functions_framework.aio
from starlette.requests import Request
from starlette.responses import Response

_ANSWER = Response(b"{}", media_type="application/json")


@functions_framework.aio.http
async def empty(request: Request) -> Response:
    return _ANSWER
