"""A broker in pure Python, for machines without an installed broker: `python -m tests.e2e.amqtt_broker PORT`.

The broker supports MQTT 3.1.1 only.
"""

import asyncio
import signal
import sys

from amqtt.broker import Broker


async def main(port: int) -> None:
    plugins = {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}}
    listeners = {"default": {"type": "tcp", "bind": f"127.0.0.1:{port}", "max_connections": 100}}
    broker = Broker({"listeners": listeners, "plugins": plugins})
    await broker.start()
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    await stopping.wait()
    await broker.shutdown()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
