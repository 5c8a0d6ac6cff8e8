"""The stored default certificate of the platform: one document, which serves every organization."""

from collections.abc import Iterator
from typing import Final

from shared.records import DefaultCertificate
from shared.refs import Ref, default_ref
from shared.repository import ExistingAttempt, Repository


class PlatformDefault:
    """The owner of the document of the platform's default certificate."""

    ref: Final[Ref[DefaultCertificate]] = default_ref()

    def __init__(self, repository: Repository) -> None:
        self._repository = repository

    def get(self) -> DefaultCertificate | None:
        """Return the default certificate, or None before the first start.

        Raises: StoreUnavailable.
        """
        return self._repository.get(self.ref)

    def create(self, certificate: DefaultCertificate) -> bool:
        """Store the first default certificate. Return False, and change nothing, if a default certificate exists.

        Raises: StoreUnavailable.
        """
        return self._repository.create(self.ref, certificate)

    def replace(self, certificate: DefaultCertificate) -> None:
        """Store *certificate* as the default certificate of all organizations.

        Raises: TooBusy, StoreUnavailable.
        """
        for attempt in self._repository.changing(self.ref):
            with attempt:
                attempt.write(certificate)

    def changing(self) -> Iterator[ExistingAttempt[DefaultCertificate]]:
        """Change the default certificate by compare-and-set. See `Repository.changing_existing`.

        Raises: NotFound, TooBusy, StoreUnavailable, and whatever the block raises.
        """
        return self._repository.changing_existing(self.ref, "default certificate")
