"""A notifier that keeps what a webhook would receive."""

import json
from dataclasses import dataclass, field
from typing import Any


@dataclass
class RecordingNotifier:
    """Keeps each message with its id, decoded."""

    messages: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def notify(self, message_id: str, body: bytes) -> None:
        self.messages.append((message_id, json.loads(body)))
