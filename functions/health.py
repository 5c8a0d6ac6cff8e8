"""health: whether this process answers."""

from functions.endpoint import Call, endpoint
from functions.http import Reply, reply
from functions.views import HealthView


@endpoint("Whether the service answers", {200: HealthView})
def health(call: Call) -> Reply:
    return reply(HealthView(status="ok"))
