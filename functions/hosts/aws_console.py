"""The console's files as an AWS Lambda handler behind the same HTTP API as the functions.

A module of its own: so no other function's package carries the console, and this one starts without a store's client.
"""

from typing import Any

from functions.hosts import aws, hosted_console


def console(event: aws.Event, context: Any) -> dict[str, Any]:
    """A file of the console; the body of a request, if any, is not looked at."""
    return aws.answer(hosted_console.console().reply(aws.request_of(event, context)))
