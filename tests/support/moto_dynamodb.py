"""Run moto's server, one request at a time.

A conditional write of DynamoDB is atomic. moto reads, checks and then writes, so requests in parallel would break that.

Usage: python moto_dynamodb.py PORT
"""

import sys
import threading
from collections.abc import Iterable
from typing import Any


def main(port: int) -> None:
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import run_simple

    app = DomainDispatcherApplication(create_backend_app)
    lock = threading.Lock()

    def handle_alone(environ: Any, start_response: Any) -> Iterable[bytes]:
        with lock:
            return [*app(environ, start_response)]

    run_simple("127.0.0.1", port, handle_alone, threaded=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
