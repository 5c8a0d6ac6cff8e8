"""An empty function for functions-framework's default server: threads of gunicorn, Flask."""

import flask


def empty(request: flask.Request) -> str:
    return "{}"
