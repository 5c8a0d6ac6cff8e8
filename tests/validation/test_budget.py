"""What a decision may cost: counted, charged before the work, and one budget for the whole decision."""

import pytest
from cryptography import x509

from shared import errors
from shared.validation import ca, verdict
from shared.validation.deny_list import DenyListEntry, fingerprint_id
from shared.validation.facts import Anchor, OrgFacts, Scope
from shared.validation.policy import Decision, Policy
from shared.validation.presented import ConnectingClient, Presented
from shared.x509 import openssl_judge
from shared.x509.budget import ELEMENTS_MAX, LIMITS, Budget, ElementCount, count_comparisons, find_excess
from shared.x509.certificate import CertificationPath
from shared.x509.der import count_elements
from shared.x509.moment import Moment
from shared.x509.path import good_paths
from tests.support import certs, costly
from tests.support.certs import DAY, NOON
from tests.support.costly import Costly
from tests.support.der import der, octets, seq


@pytest.fixture
def questions(monkeypatch: pytest.MonkeyPatch) -> list[CertificationPath]:
    """The paths that OpenSSL is asked about."""
    asked: list[CertificationPath] = []
    judge = openssl_judge.judge

    def note(path: CertificationPath) -> errors.Refused | None:
        asked.append(path)
        return judge(path)

    monkeypatch.setattr(openssl_judge, "judge", note)
    return asked


def decide(chain: Costly, budget: Budget, *, denied: bool = False) -> verdict.Verdict:
    """Return the verdict on the device of *chain*.

    *denied*: on a day on which the device is valid, with every CA that it sends on the deny list."""
    anchors = [Anchor(ca.ca_id(one.certificate), one.certificate, active=True) for one in chain.registered]
    entries = {
        fingerprint_id(sha256): [DenyListEntry(NOON)]
        for one in (chain.sent if denied else ())
        for sha256 in one.certificate.fingerprints
    }
    facts = OrgFacts(
        "mtxpd0",
        suspended=False,
        requires_sni=False,
        custom_domains=(),
        type_certificates=False,
        policy=Policy(),
        anchors=anchors,
        denied=entries,
    )
    presented = Presented.read(
        ConnectingClient(client_id="d:mtxpd0:thermo:42", certificate=chain.leaf.der, chain=chain.chain)
    )
    at = NOON - 30 * DAY if denied else NOON
    return verdict.judge(
        presented, Scope("mtxpd0"), facts, platform_domain="example.com", moment=Moment(at), budget=budget
    )


def is_within(budget: Budget) -> bool:
    return (
        budget.comparisons <= LIMITS.comparisons
        and budget.work <= LIMITS.work
        and budget.steps <= LIMITS.steps
        and budget.questions <= LIMITS.questions
        and budget.links <= LIMITS.links
    )


@pytest.mark.parametrize("kind", costly.KINDS)
@pytest.mark.parametrize(("limits", "named"), [(128, 128), (60, 128), (10, 8)])
def test_names_are_compared_ten_thousand_times_in_a_decision(
    questions: list[CertificationPath], kind: str, limits: int, named: int
) -> None:
    """Whatever is denied and expired: OpenSSL is asked only about what was charged before."""
    chain = costly.paths((2, 2, 2), roots=3, limits=limits, named=named, kind=kind)
    for denied in (False, True):
        budget = Budget()
        questions.clear()
        result = decide(chain, budget, denied=denied)
        assert result.decision is Decision.DENY
        assert is_within(budget)
        assert sum(map(count_comparisons, questions)) <= budget.comparisons
        assert len(questions) <= budget.questions


def test_denied_cas_do_not_begin_the_budget_again() -> None:
    """Nine denied CAs of one name above one device. Every next path is charged to the same budget."""
    chain = costly.paths((9,), limits=60, named=30)
    budget = Budget()
    assert decide(chain, budget, denied=True).code == "certificate_revoked"
    assert is_within(budget)
    one_path = count_comparisons(tuple(one.certificate for one in (chain.leaf, chain.sent[0], chain.registered[0])))
    assert one_path * 3 > LIMITS.comparisons, "so a budget for each of nine paths would be many times the limit"


def test_a_path_around_denied_cas_is_found_within_the_budget() -> None:
    """Eight of nine CAs of one name are denied; the ninth is not."""
    chain = costly.paths((9,))
    leaf = certs.leaf("d:thermo:42", chain.sent[0])
    found = list(
        good_paths(
            leaf.certificate,
            [one.certificate for one in chain.sent],
            [one.certificate for one in chain.registered],
            [],
            Moment(NOON),
        )
    )
    assert len(found) == 9
    avoided = {path[1].der for path in found[:8]}
    rest = good_paths(
        leaf.certificate,
        [one.certificate for one in chain.sent],
        [one.certificate for one in chain.registered],
        [],
        Moment(NOON),
        avoided=avoided,
    )
    assert list(rest) == found[8:]


def test_what_exceeds_the_budget_is_refused_by_name() -> None:
    """The refusal says which limit is exceeded and how to mend it."""
    result = decide(costly.paths((1,) * 8, limits=60, named=128), Budget())
    assert (result.code, result.failed_step) == ("chain_invalid", 6)
    assert "at most 10,000 comparisons of names with name constraints" in result.reason
    assert "fewer name constraints" in result.mend


class Late(Exception):
    """Raised by a time limit."""


def test_work_ends_with_the_time_limit(questions: list[CertificationPath]) -> None:
    """The time is checked before each question, so at most one more is asked."""
    chain = costly.paths((3, 3, 3), roots=10, limits=2, named=2)

    def check() -> None:
        if len(questions) == 3:
            raise Late

    with pytest.raises(Late):
        decide(chain, Budget(check))
    assert len(questions) == 3


def test_names_and_subtrees_of_a_certificate_are_limited() -> None:
    fits = certs.ca("A", more=[*costly.subtrees("dns", 128), *costly.names("dns", 128)]).certificate
    assert find_excess(fits) is None
    for more in (costly.subtrees("dns", 129), costly.names("mail", 129)):
        excess = find_excess(certs.ca("A", more=more).certificate)
        assert excess is not None
        assert "129" in excess
        assert "128" in excess


def test_elements_are_counted_on_all_levels() -> None:
    one = der(0x82, b"a")
    assert count_elements(seq(one, seq(one, one)), 99) == 5
    assert count_elements(octets(seq(one)), 99) == 3
    assert count_elements(octets(b"\x30\x82\xff\xff"), 99) == 1, "what only looks like DER"
    assert count_elements(seq(octets(b"\x30\x7f" + one * 9), one), 99) == 3, "what follows it is counted"
    assert count_elements(seq(*[one] * 500), 100) == 101
    nested = b""
    for _ in range(500):
        nested = seq(nested)
    assert count_elements(nested, 999) == 500


def test_small_certificates_are_within_the_limit_of_elements_uncounted() -> None:
    """An element takes two octets or more."""
    most = ElementCount(ELEMENTS_MAX, 2 * ELEMENTS_MAX)
    assert all(most.takes(b"\5\0" * ELEMENTS_MAX) for _ in range(3))
    counted = ElementCount(ELEMENTS_MAX, 2 * ELEMENTS_MAX + 1)
    assert counted.takes(b"\5\0" * (ELEMENTS_MAX - 1))
    assert not counted.takes(b"\5\0" * 2)
    assert counted.takes(b"\5\0")


def test_a_registered_ca_beyond_the_limits_stays() -> None:
    """Registered before there were limits: its devices get in, also where they send it, and its names count."""
    large = certs.ca("Large", more=costly.subtrees("dns", 1000))
    device = certs.leaf("d:thermo:42", large)
    chain = Costly((large,), device, (large,))
    budget = Budget()
    assert decide(chain, budget).decision is Decision.ALLOW
    assert budget.comparisons == 2000
    stranger = Costly((certs.ca("Other"),), device, (large,))
    assert decide(stranger, Budget()).code == "certificate_malformed"
    many = certs.leaf("d:thermo:42", large, more=[(x509.SubjectAlternativeName([x509.DNSName("a.b")] * 9), False)])
    assert decide(Costly((large,), many, ()), Budget()).code == "chain_invalid"
