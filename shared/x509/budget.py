"""The budget of one decision: what judging a client's certificates may cost, whatever was sent and registered.

Every kind of work is charged before the work is done, and one budget is charged for a whole decision. The amounts are
numbers of operations, so the same certificates get the same answer on a fast machine and on a slow one. The time limit
of a decision is apart from them: work whose caller has stopped waiting ends, and has no answer.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import msgspec

from shared.errors import ChainTooCostly
from shared.x509.der import count_elements

if TYPE_CHECKING:
    from shared.x509.certificate import Certificate, CertificationPath

NAMES_MAX: Final = 128  # names in the SubjectAltName of a CA, and of a certificate that a device sends
SUBTREES_MAX: Final = 128  # subtrees in their name constraints
# DER elements of one uploaded certificate, and of all that a device sends: reading one takes up to 3 microseconds
ELEMENTS_MAX: Final = 4096
REGISTERED_ELEMENTS_MAX: Final = 10_000  # of all registered CAs that one decision reads

_FEWER_CAS: Final = "Send only the CAs between the device and a registered CA, and register few CAs of one name."
_FEWER_LIMITS: Final = "Use CAs with fewer name constraints below each other, or certificates with fewer names."


class Limits(msgspec.Struct, frozen=True):
    """What one decision may cost at most.

    Args:
        namesakes: certificates of one subject name that are tried as an issuer.
        steps: certificates that are tried as the next one of a path.
        links: single signatures verified to explain a refusal. With more, the explanation is less exact.
        questions: paths, or pieces of paths, that OpenSSL judges.
        work: signatures verified, counted as RSA-2048 (`strength.verification_cost`): 25 ms.
        comparisons: names compared with subtrees of name constraints.
    """

    namesakes: int = 32
    steps: int = 500
    links: int = 64
    questions: int = 64
    work: int = 1250
    comparisons: int = 10_000


LIMITS: Final = Limits()


def _in_time() -> None:
    """Set no time limit."""


class Budget:
    """What a decision has cost so far, within *limits*. Each method raises before the cost exceeds its limit.

    Args:
        check_time: raises an error of its caller's choice once no caller waits for the decision. Called before each
            piece of work.
    """

    def __init__(self, check_time: Callable[[], None] = _in_time, limits: Limits = LIMITS) -> None:
        self._check_time = check_time
        self._limits = limits
        self.steps = 0
        self.links = 0
        self.questions = 0
        self.work = 0
        self.comparisons = 0

    def charge_step(self) -> None:
        """Charge one more certificate of a path. Raises: ChainTooCostly, and what *check_time* raises."""
        self._check_time()
        if self.steps >= self._limits.steps:
            raise ChainTooCostly(limit=f"{self._limits.steps:,} candidates for an issuer", hint=_FEWER_CAS)
        self.steps += 1

    def charge_path(self, path: "CertificationPath") -> None:
        """Charge the signatures on *path*, and the comparisons of names with name constraints.

        RFC 5280, 6.1.4 (b) and (c), holds each CA's subtrees against all names below. Raises: as `charge_step`."""
        self.charge_signatures(path)
        comparisons = self.comparisons + count_comparisons(path)
        if comparisons > self._limits.comparisons:
            limit = f"{self._limits.comparisons:,} comparisons of names with name constraints"
            raise ChainTooCostly(limit=limit, hint=_FEWER_LIMITS)
        self.comparisons = comparisons

    def charge_signatures(self, path: "CertificationPath") -> None:
        """Charge the signatures on *path*. Raises: as `charge_step`."""
        self._check_time()
        cost = sum([ca.verification_cost for ca in path[1:]])
        if self.work + cost > self._limits.work:
            raise ChainTooCostly(limit=f"the time of {self._limits.work:,} RSA-2048 signatures", hint=_FEWER_CAS)
        self.work += cost

    def charge_question(self) -> None:
        """Charge one more question to OpenSSL. Raises: as `charge_step`."""
        self._check_time()
        if self.questions >= self._limits.questions:
            raise ChainTooCostly(limit=f"{self._limits.questions} paths", hint=_FEWER_CAS)
        self.questions += 1

    def may_verify_link(self, ca: "Certificate") -> bool:
        """Charge one signature by the key of *ca*; return False, and charge nothing, if the budget is spent.

        Raises: what *check_time* raises."""
        self._check_time()
        cost = ca.verification_cost
        if self.links >= self._limits.links or self.work + cost > self._limits.work:
            return False
        self.links += 1
        self.work += cost
        return True

    def take_namesakes(self, cas: "list[Certificate]") -> "list[Certificate]":
        """Return those of *cas*, which have one name, that are tried: the first ones."""
        return cas[: self._limits.namesakes]


def find_excess(cert: "Certificate") -> str | None:
    """Return what *cert* has more of than a CA, or a certificate that a device sends, may have, in words; or None."""
    if cert.alternative_name_count > NAMES_MAX:
        return f"{cert.alternative_name_count:,} names in SubjectAltName; at most {NAMES_MAX} are read"
    if cert.subtree_count > SUBTREES_MAX:
        return f"{cert.subtree_count:,} subtrees in its name constraints; at most {SUBTREES_MAX} are read"
    return None


class ElementCount:
    """Counts the DER elements of several certificates, up to *at_most*.

    An element takes two octets, so certificates with fewer octets are not counted one by one: *octets* is the size of
    all of them."""

    def __init__(self, at_most: int, octets: int) -> None:
        self._room = at_most
        self._is_certain = octets <= 2 * at_most

    def takes(self, encoded: bytes) -> bool:
        """Return whether the certificate *encoded* is within the limit, and count it if so."""
        if self._is_certain:
            return True
        count = count_elements(encoded, self._room)
        if count > self._room:
            return False
        self._room -= count
        return True


def count_comparisons(path: "CertificationPath") -> int:
    """Return how often a name on *path* is compared with a subtree of a CA above, at most."""
    names = comparisons = 0
    if not any(cert.subtree_count for cert in path):
        return 0
    for cert in path:
        comparisons += names * cert.subtree_count
        names += cert.name_count
    return comparisons
