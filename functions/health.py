"""health: whether this process answers."""

from functions.views import HealthView
from functions.web.contract import Call, endpoint
from functions.web.http import Reply, reply


@endpoint("Whether the service answers", {200: HealthView})
def health(call: Call) -> Reply:
    return reply(HealthView(status="ok"))
