"""Certificate policies on a path (RFC 5280, 6.1, with the policy graph of RFC 9618).

The initial policy set is any-policy, and nothing but a certificate of the path requires an explicit policy. So policies
refuse a path in one case: a certificate requires an explicit policy, and no policy is valid for the whole path. The
anchor is not processed, as it is no part of the path in RFC 5280.
"""

from typing import TYPE_CHECKING

import msgspec

from shared.errors import CertificateMalformed
from shared.x509.der import NotDER
from shared.x509.extensions import (
    ANY_POLICY,
    CERTIFICATE_POLICIES,
    INHIBIT_ANY_POLICY,
    POLICY_MAPPINGS,
    read_inhibit_any_policy,
    read_policies,
    read_policy_mappings,
)

if TYPE_CHECKING:
    from shared.x509.certificate import Certificate, CertificationPath

_Level = dict[str, set[str]]
"""The valid policies at one depth, each with the policies that may follow (expected_policy_set)."""


class _State(msgspec.Struct):
    """The state variables of RFC 5280, 6.1.2. A counter of 0 has taken effect."""

    level: _Level
    explicit_policy: int
    policy_mapping: int
    any_policy: int


def find_missing_policy(path: "CertificationPath") -> "Certificate | None":
    """Return the certificate of *path* that requires an explicit policy where no policy is valid; else None.

    *path* begins with the leaf. Raises: CertificateMalformed for policies that cannot be read and are needed."""
    demanding = [cert for cert in path[:-1] if cert.policy_constraints and cert.policy_constraints[0] is not None]
    if not demanding:
        return None
    size = len(path) - 1
    state = _State({ANY_POLICY: {ANY_POLICY}}, size + 1, size + 1, size + 1)
    for depth, cert in enumerate(reversed(path[:-1]), start=1):
        is_last = depth == size
        may_be_any = state.any_policy > 0 or (not is_last and cert.is_self_issued)
        state.level = _descend(state.level, cert, may_be_any=may_be_any)
        if state.explicit_policy == 0 and not state.level:
            return demanding[-1]
        if is_last:
            _finish(state, cert)
        else:
            _prepare(state, cert)
    return demanding[-1] if state.explicit_policy == 0 and not state.level else None


def _descend(above: _Level, cert: "Certificate", *, may_be_any: bool) -> _Level:
    """Return the valid policies at the depth of *cert* (6.1.3 (d) and (e))."""
    stated = _read_stated(cert)
    if stated is None or not above:
        return {}
    expected = set().union(*above.values())
    level: _Level = {policy: {policy} for policy in stated if policy in expected or ANY_POLICY in above}
    level.pop(ANY_POLICY, None)
    if ANY_POLICY in stated and may_be_any:
        for policy in expected:
            level.setdefault(policy, {policy})
    return level


def _read_stated(cert: "Certificate") -> tuple[str, ...] | None:
    """Return the policies of *cert*. One that is not critical is first read here, and may be broken elsewhere."""
    try:
        return cert.read_extension(CERTIFICATE_POLICIES, read_policies)
    except NotDER as error:
        raise CertificateMalformed(found=f"its {error.field} {error.issue}", cert=cert) from error


def _prepare(state: _State, cert: "Certificate") -> None:
    """Prepare the state for the certificate below *cert*, which is a CA (6.1.4 (b), (h), (i) and (j))."""
    mapped: _Level = {}
    for issuer_policy, subject_policy in cert.read_extension(POLICY_MAPPINGS, read_policy_mappings) or ():
        mapped.setdefault(issuer_policy, set()).add(subject_policy)
    for policy, following in mapped.items():
        if state.policy_mapping == 0:
            state.level.pop(policy, None)
        elif policy in state.level or ANY_POLICY in state.level:
            state.level[policy] = following
    if not cert.is_self_issued:
        state.explicit_policy = max(state.explicit_policy - 1, 0)
        state.policy_mapping = max(state.policy_mapping - 1, 0)
        state.any_policy = max(state.any_policy - 1, 0)
    explicit_policy, policy_mapping = cert.policy_constraints or (None, None)
    any_policy = cert.read_extension(INHIBIT_ANY_POLICY, read_inhibit_any_policy)
    state.explicit_policy = _lower(state.explicit_policy, explicit_policy)
    state.policy_mapping = _lower(state.policy_mapping, policy_mapping)
    state.any_policy = _lower(state.any_policy, any_policy)


def _finish(state: _State, leaf: "Certificate") -> None:
    """Complete the state for the last certificate (6.1.5 (a) and (b))."""
    state.explicit_policy = max(state.explicit_policy - 1, 0)
    if leaf.policy_constraints and leaf.policy_constraints[0] == 0:
        state.explicit_policy = 0


def _lower(counter: int, limit: int | None) -> int:
    return counter if limit is None else min(counter, limit)
