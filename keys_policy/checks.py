"""Pure: is the policy sound, and does what is signed agree with it? A table of checks.

Each check says what it looks for, why that matters and how to put it right, so that a violation can
stop a command and teach at once. Severities:

* ERROR stops every ceremony, signature and publish;
* AUDIT fails `firmroot policy check`, but not a command (a lab may be a lab);
* WARNING is shown.
"""

from __future__ import annotations

import enum
import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import combinations
from typing import TYPE_CHECKING

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
)
from securesystemslib.signer import SSlibKey
from tuf.api.metadata import Root, Targets

from keys_policy.delegations import delegation_problems
from keys_policy.load import did_you_mean
from keys_policy.model import (
    ADOPTED,
    ALGORITHM_SINCE,
    ALGORITHMS,
    CUSTODIES,
    ONLINE_ROLES,
    OPTIONAL_ROLES,
    RECOVERY,
    REQUIRED_ROLES,
    Scale,
)
from keys_policy.sizes import LIMITS, LIMITS_ELSEWHERE, estimate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from datetime import date, datetime

    from tuf.api.metadata import Key, Role

    from keys_policy.model import KeyHolder, Policy, RolePolicy

__all__ = [
    "AHEAD",
    "BINDS",
    "CHECKS",
    "KEY_CHECKS",
    "MENDED",
    "MIN_RSA_BITS",
    "ROTATED",
    "Check",
    "Evidence",
    "Finding",
    "Severity",
    "Shipped",
    "derived_keyid",
    "missing_keys",
    "public_bytes",
    "run_checks",
]

MIN_RSA_BITS = 3072

_LAB_FIELD = "x-firmroot-lab"

_POST_QUANTUM = "ml-dsa"

_KEY_FILE = re.compile(r"keys/[a-z0-9-]+\.toml")

# Roles that may sign with one key by design: builders and on-call (design 4), and machines.
_SINGLE = ("builds", "hold", *ONLINE_ROLES)


class Severity(enum.Enum):
    """What a finding does."""

    ERROR = "error"
    AUDIT = "audit"
    WARNING = "warning"


@dataclass(frozen=True)
class Shipped:
    """A factory export whose devices are in service.

    Attributes:
        id: of the export.
        client: version of the client that its devices have.
        count: how many there are, 0 if nobody said.
        trusted: key ids of each role that the root which they were born with names, and of
            `recovery` if they have the anchor.
    """

    id: str
    client: str
    count: int
    trusted: Mapping[str, frozenset[str]]


@dataclass(frozen=True)
class Evidence:
    """What the checks look at.

    Attributes:
        policy: the rules.
        keyring: public keys by name.
        signed: newest signed `root` and `targets`.
        pending: what waits for signatures, by role name.
        delegated: template of each delegated role, by role name.
        now: the time, or None to leave out what depends on it.
        live: published `root` and `targets`.
        shipped: what was made in the factory.
        adopted: delegated roles that were there before `firmroot adopt`.
        adopted_keys: keys that were, by the ids that they had.
        stolen: ids of keys that are known to be in other hands.
    """

    policy: Policy
    keyring: Mapping[str, KeyHolder]
    signed: Mapping[str, Root | Targets] = field(default_factory=dict)
    pending: Mapping[str, Root | Targets] = field(default_factory=dict)
    delegated: Mapping[str, str] = field(default_factory=dict)
    now: datetime | None = None
    live: Mapping[str, Root | Targets] = field(default_factory=dict)
    shipped: tuple[Shipped, ...] = ()
    adopted: frozenset[str] = frozenset()
    adopted_keys: Mapping[str, Key] = field(default_factory=dict)
    stolen: frozenset[str] = frozenset()

    def rules(self) -> Iterator[tuple[str, RolePolicy]]:
        """Every section of the policy; an anchor without keys is one that is not set up yet."""
        return (
            (name, rules)
            for name, rules in self.policy.roles.items()
            if name != RECOVERY or rules.keys
        )

    def template(self, role: str) -> str:
        """The kind of a role: itself, or the template that it follows."""
        if role in self.delegated:
            return self.delegated[role]
        for suffix in ("builds", "hold"):
            if role.endswith(f"-{suffix}"):
                return suffix
        return role

    def single(self, section: str) -> bool:
        """Whether one key may sign by design, or did before the repository was adopted."""
        return self.template(section) in _SINGLE or section.startswith(ADOPTED)

    def keys(self, rules: RolePolicy) -> Iterator[KeyHolder]:
        """The keys of a section that exist."""
        return (self.keyring[name] for name in rules.keys if name in self.keyring)


@dataclass(frozen=True)
class Check:
    """One row of the table.

    Attributes:
        id: for `firmroot policy explain`.
        severity: what a finding of it does.
        what: the rule.
        why: the attack or accident that it prevents.
        fix: what to do.
        find: the details of every violation.
    """

    id: str
    severity: Severity
    what: str
    why: str
    fix: str
    find: Callable[[Evidence], Iterator[str]]


@dataclass(frozen=True)
class Finding:
    """One violation.

    Attributes:
        check: what found it.
        severity: what it does.
        detail: what is wrong; names the place in the file.
        file: the file to edit, empty if none can be edited.
    """

    check: Check
    severity: Severity
    detail: str
    file: str = ""

    @property
    def text(self) -> str:
        """The detail, with the file before it."""
        if self.detail.startswith(self.file):
            return self.detail
        return f"{self.file}: {self.detail}"


def run_checks(evidence: Evidence) -> list[Finding]:
    """Every violation of every check, in the order of the table.

    With the scale `maker`, checks that want several people become warnings.
    """
    maker = evidence.policy.scale == Scale.MAKER
    return [
        Finding(
            check,
            Severity.WARNING if maker and check.id in _PEOPLE else check.severity,
            each,
            _file_of(evidence.policy.source, each),
        )
        for check in CHECKS
        for each in check.find(evidence)
    ]


def _file_of(source: str, detail: str) -> str:
    """The file that a detail is about: a key's that it begins with, else the policy."""
    if found := _KEY_FILE.match(detail):
        return found[0]
    return source if "roles." in detail or detail.startswith(source) else ""


def _threshold_reachable(evidence: Evidence) -> Iterator[str]:
    for name, rules in evidence.rules():
        if rules.threshold > len(rules.keys):
            yield f"roles.{name}: threshold {rules.threshold} is above its {len(rules.keys)} keys"


def missing_keys(policy: Policy) -> dict[str, int]:
    """How many keys each role still needs for its threshold, and one to spare where that is asked.

    What the checks of `KEY_CHECKS` find, as numbers. Complete roles are left out.
    """
    spare = policy.scale != Scale.MAKER
    evidence = Evidence(policy, {})
    found = {}
    for name, rules in evidence.rules():
        more = 1 if spare and not evidence.single(name) else 0
        if (count := rules.threshold + more - len(rules.keys)) > 0:
            found[name] = count
    return found


def _threshold_two(evidence: Evidence) -> Iterator[str]:
    for name, rules in evidence.rules():
        if not evidence.single(name) and rules.threshold == 1:
            yield f"roles.{name}: threshold 1, expected at least 2"


def _threshold_spare(evidence: Evidence) -> Iterator[str]:
    for name, rules in evidence.rules():
        if not evidence.single(name) and rules.threshold == len(rules.keys):
            yield f"roles.{name}: all {len(rules.keys)} keys must sign, expected one to spare"


def _sections_used(evidence: Evidence) -> Iterator[str]:
    """Attack, or a typing error: stricter rules stand where no role looks for them."""
    adopted = {each for each in evidence.delegated.values() if each.startswith(ADOPTED)}
    known = {*REQUIRED_ROLES, *OPTIONAL_ROLES, *evidence.delegated, *adopted}
    for name in evidence.policy.roles if evidence.delegated else ():
        if name not in known:
            yield (
                f"roles.{name}: no product has such a role{did_you_mean(name, evidence.delegated)}"
            )


def _distinct_holders(evidence: Evidence) -> Iterator[str]:
    for name, rules in evidence.rules():
        if rules.hybrid_left and evidence.template(name) in _SINGLE:
            continue  # one machine, with a key of each family
        holders = {holder.holder for holder in evidence.keys(rules)}
        if len(holders) < rules.threshold <= len(rules.keys):
            yield (
                f"roles.{name}: threshold {rules.threshold}, but its keys have "
                f"{len(holders)} holders: {', '.join(sorted(holders))}"
            )


def _distinct_custody(evidence: Evidence) -> Iterator[str]:
    for name, rules in evidence.rules():
        kinds = {each.custody for each in evidence.keys(rules)}
        if kinds and len(kinds) < rules.custodies:
            yield (
                f"roles.{name}: its keys are kept in {len(kinds)} ways: "
                f"{', '.join(sorted(kinds))}; expected at least {rules.custodies}"
            )


def _custody_known(evidence: Evidence) -> Iterator[str]:
    for name, holder in evidence.keyring.items():
        if holder.custody not in CUSTODIES:
            yield (
                f"keys/{name}.toml: custody {holder.custody!r}, "
                f"expected one of {', '.join(CUSTODIES)}"
            )


def _online_offline(evidence: Evidence) -> Iterator[str]:
    online = {key for name in ONLINE_ROLES for key in evidence.policy.roles[name].keys}
    for name, rules in evidence.rules():
        if evidence.template(name) not in (*ONLINE_ROLES, "builds") and not name.startswith(
            ADOPTED
        ):
            for key in sorted(online.intersection(rules.keys)):
                yield f"{key} is in roles.{name} and in an online role"


def _builds_channel(evidence: Evidence) -> Iterator[str]:
    for (one, left), (other, right) in combinations(evidence.rules(), 2):
        kinds = {evidence.template(one), evidence.template(other)}
        if "builds" in kinds and kinds - set(_SINGLE):
            for key in sorted(set(left.keys).intersection(right.keys)):
                yield f"{key} is in roles.{one} and in roles.{other}"


def _recovery_keys(evidence: Evidence) -> Iterator[str]:
    if (recovery := evidence.policy.recovery) is None:
        return
    for name, rules in evidence.rules():
        for key in sorted(set(recovery.keys).intersection(rules.keys)) if name != RECOVERY else ():
            yield f"{key} is in roles.{RECOVERY} and in roles.{name}"


def _recovery_holders(evidence: Evidence) -> Iterator[str]:
    if (recovery := evidence.policy.recovery) is None:
        return
    root = {holder.holder for holder in evidence.keys(evidence.policy.role("root"))}
    for holder in sorted({each.holder for each in evidence.keys(recovery)} & root):
        yield (
            f"{holder} holds keys of root and of roles.{RECOVERY}: whoever robs {holder}, or an "
            "accident there, takes both, and then devices must be reflashed by hand"
        )


def _recovery_threshold(evidence: Evidence) -> Iterator[str]:
    recovery, root = evidence.policy.recovery, evidence.policy.role("root")
    if recovery is not None and recovery.threshold < root.threshold:
        yield f"roles.{RECOVERY}: threshold {recovery.threshold}, root has {root.threshold}"


def _recovery_behind(evidence: Evidence) -> Iterator[str]:
    signed, rules = evidence.signed.get(RECOVERY), evidence.policy.recovery
    if rules is None or RECOVERY in evidence.pending or not isinstance(signed, Root):
        return
    keyids = {holder.key.keyid for holder in evidence.keys(rules)}
    role = signed.roles[Root.type]
    if role.threshold != rules.threshold or set(role.keyids) != keyids:
        yield (
            f"{RECOVERY} {signed.version} is {_rule(evidence, role)}; the policy expects "
            f"{rules.threshold} of {', '.join(sorted(rules.keys))}"
        )


def _known_keys(evidence: Evidence) -> Iterator[tuple[str, Key]]:
    """Every key of the keyring and of signed metadata, with a name for messages."""
    for name, holder in evidence.keyring.items():
        yield f"keys/{name}.toml", holder.key
    for role, signed in (*evidence.signed.items(), *evidence.pending.items()):
        delegator = signed if isinstance(signed, Root) else signed.delegations
        for key in delegator.keys.values() if delegator else ():
            yield f"{role} {signed.version}", key


def _duplicate_key(evidence: Evidence) -> Iterator[str]:
    places: dict[bytes, dict[str, str]] = defaultdict(dict)
    for where, key in _known_keys(evidence):
        places[public_bytes(key)].setdefault(key.keyid, where)
    for found in places.values():
        if len(found) > 1:
            ids = " and ".join(f"{keyid[:8]} ({where})" for keyid, where in found.items())
            files = [where for where in found.values() if where.startswith("keys/")]
            place = f"{files[-1]}: " if files else ""
            yield f"{place}one public key under two key ids: {ids}"
    names: dict[str, str] = {}
    for name, holder in evidence.keyring.items():
        if (first := names.setdefault(holder.key.keyid, name)) != name:
            yield f"keys/{name}.toml: one public key under two names: {first} and {name}"


def public_bytes(key: Key) -> bytes:
    """The key itself, without the spelling of its file: two spellings are one key."""
    public = str(key.keyval.get("public", ""))
    try:
        loaded = load_pem_public_key(public.encode())
    except ValueError:
        return public.strip().lower().encode()
    return loaded.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _keyid_derived(evidence: Evidence) -> Iterator[str]:
    for where, key in _known_keys(evidence):
        before = evidence.adopted_keys.get(key.keyid)
        if before is not None and public_bytes(before) == public_bytes(key):
            continue
        derived = derived_keyid(key)
        if derived is None:
            yield f"{where}: the public key {key.keyid[:8]} cannot be read as {key.keytype}"
        elif derived != key.keyid:
            yield f"{where}: keyid {key.keyid[:8]}, its key gives {derived[:8]}"


def derived_keyid(key: Key) -> str | None:
    """The id that a key has by its content; None if it cannot be read as what it says it is."""
    public = str(key.keyval.get("public", ""))
    try:
        if key.keytype == "ed25519":
            raw = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public))
            return SSlibKey.from_crypto(raw, scheme=key.scheme).keyid
        found = SSlibKey.from_crypto(load_pem_public_key(public.encode()), scheme=key.scheme)
    except (ValueError, UnsupportedAlgorithm):
        return None
    return found.keyid if found.keytype == key.keytype else None


def _rsa_size(evidence: Evidence) -> Iterator[str]:
    for where, key in _known_keys(evidence):
        if key.keytype == "rsa":
            try:
                loaded = load_pem_public_key(str(key.keyval.get("public", "")).encode())
            except ValueError:
                continue
            if isinstance(loaded, RSAPublicKey) and loaded.key_size < MIN_RSA_BITS:
                yield f"{where}: RSA key of {loaded.key_size} bits, expected {MIN_RSA_BITS}"


def _algorithm(evidence: Evidence) -> Iterator[str]:
    for name, rules in evidence.rules():
        both = set(evidence.policy.algorithms).intersection(rules.algorithms or ALGORITHMS)
        allowed = {ALGORITHMS[each] for each in both}
        for holder in evidence.keys(rules):
            if (holder.key.keytype, holder.key.scheme) not in allowed:
                yield f"roles.{name}: {holder.name} is {holder.key.keytype} {holder.key.scheme}"


def _until(evidence: Evidence) -> Iterator[tuple[str, KeyHolder, str, date, RolePolicy]]:
    """Every key in use whose algorithm ends: its role, its algorithm and the day."""
    names = {kind: name for name, kind in ALGORITHMS.items()}
    for name, rules in evidence.rules():
        for holder in evidence.keys(rules):
            algorithm = names.get((holder.key.keytype, holder.key.scheme), "")
            if day := evidence.policy.algorithms_until.get(algorithm):
                yield name, holder, algorithm, day, rules


def _algorithm_until(evidence: Evidence) -> Iterator[str]:
    for name, holder, algorithm, day, _ in _until(evidence) if evidence.now else ():
        if evidence.now and evidence.now.date() >= day:
            yield f"roles.{name}: {holder.name} is {algorithm}, which algorithms_until ends {day}"


def _algorithm_ending(evidence: Evidence) -> Iterator[str]:
    for name, holder, algorithm, day, rules in _until(evidence) if evidence.now else ():
        if evidence.now and evidence.now.date() < day:
            good = evidence.now.date() + timedelta(days=rules.expiry_days)
            if good > day:
                yield (
                    f"roles.{name}: {holder.name} is {algorithm}, which algorithms_until ends "
                    f"{day}; what it signs today is good until {good}"
                )


def _client_reads(evidence: Evidence) -> Iterator[str]:
    names = {kind: name for name, kind in ALGORITHMS.items()}
    for name, rules in evidence.rules():
        for holder in evidence.keys(rules):
            algorithm = names.get((holder.key.keytype, holder.key.scheme), "")
            since = ALGORITHM_SINCE.get(algorithm, "")
            old = [each for each in evidence.shipped if _release(each.client) < _release(since)]
            if old:
                oldest = min((each.client for each in old), key=_release)
                yield (
                    f"roles.{name}: {holder.name} is {algorithm}, which clients read since "
                    f"{since}; {_devices(old)} have older ones, the oldest {oldest}"
                )


def _release(version: str) -> tuple[int, ...]:
    """The numbers of a version; what cannot be read is older than all."""
    found = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(each) for each in found[0].split(".")) if found else ()


def _devices(exports: Iterable[Shipped]) -> str:
    exports = list(exports)
    total = sum(each.count for each in exports)
    number = f"{total} devices" if total else "an unknown number of devices"
    if total and not all(each.count for each in exports):
        number = f"at least {number}"
    return f"{number} ({', '.join(each.id for each in exports)})"


def _retired_keys(evidence: Evidence) -> Iterator[str]:
    """What a device was born with. Delegated roles are not: it learns of them by these alone."""
    names = {holder.key.keyid: name for name, holder in evidence.keyring.items()}
    destroyed = {each.key.keyid for each in evidence.keyring.values() if each.destroyed}
    now = _held_now(evidence)
    retired: dict[str, dict[str, Shipped]] = defaultdict(dict)
    roles: dict[str, dict[str, None]] = defaultdict(dict)
    for each in evidence.shipped:
        for role, keyids in each.trusted.items():
            for keyid in sorted(keyids.difference(now[role], destroyed)) if role in now else ():
                retired[keyid][each.id] = each
                roles[keyid][role] = None
    for keyid, exports in retired.items():
        where = ", ".join(roles[keyid])
        yield (
            f"{names.get(keyid, 'unknown key')} ({keyid[:8]}) is no key of {where} any more, but "
            f"{_devices(exports.values())} were made to trust it there, and do until they see a "
            f"{'recovery root' if RECOVERY in roles[keyid] else 'root'} without it"
        )


def _destroyed_keys(evidence: Evidence) -> Iterator[str]:
    for name, rules in evidence.rules():
        for holder in evidence.keys(rules):
            if holder.destroyed:
                place = f"keys/{holder.name}.toml"
                yield f"{place}: destroyed {holder.destroyed}, but {holder.name} is in roles.{name}"


def _stolen_keys(evidence: Evidence) -> Iterator[str]:
    """Attack, or a mistake: a key comes back that was replaced because of a thief."""
    for name, rules in evidence.rules():
        for holder in evidence.keys(rules):
            if holder.key.keyid in evidence.stolen:
                yield f"roles.{name}: {holder.name} is in other hands, as gone.toml says"


def _held_now(evidence: Evidence) -> dict[str, frozenset[str]]:
    """The key ids that the newest root gives each of its roles, and of the recovery anchor."""
    root, anchor = evidence.signed.get(Root.type), evidence.signed.get(RECOVERY)
    now: dict[str, frozenset[str]] = {}
    if isinstance(root, Root):
        now |= {name: frozenset(role.keyids) for name, role in root.roles.items()}
    if isinstance(anchor, Root):
        now[RECOVERY] = frozenset(anchor.roles[Root.type].keyids)
    return now


def _sizes(evidence: Evidence) -> Iterator[tuple[str, int]]:
    """What root, targets and the online roles take at most, by role."""
    rules = dict(evidence.rules())
    top = [holder for name in LIMITS for holder in evidence.keys(rules[name])]
    below = [
        holder
        for name, each in rules.items()
        if name not in {*LIMITS, RECOVERY}
        for holder in evidence.keys(each)
    ]
    named = evidence.delegated.items()
    keyids = sum(len(evidence.policy.role(*each).keys) for each in named)
    for name, (listed, roles, ids) in {
        Root.type: (top, len(LIMITS), len(top)),
        "timestamp": ([], 1, 0),
        "snapshot": ([], len(named), 0),
        Targets.type: (below, len(named), keyids),
    }.items():
        yield name, estimate(evidence.keys(rules[name]), listed, roles, ids)


def _signed_size(evidence: Evidence) -> Iterator[str]:
    for name, size in _sizes(evidence):
        if size > (limit := LIMITS[name]):
            yield (
                f"roles.{name}: its keys and signatures take about {size} bytes; devices that were "
                f"shipped stop reading at {limit}"
            )


def _size_elsewhere(evidence: Evidence) -> Iterator[str]:
    for name, size in _sizes(evidence):
        if LIMITS[name] >= size > (limit := LIMITS_ELSEWHERE[name]):
            yield (
                f"roles.{name}: its keys and signatures take about {size} bytes; python-tuf stops "
                f"reading at {limit}"
            )


def _key_age(evidence: Evidence) -> Iterator[str]:
    for name, rules in evidence.rules():
        for holder in evidence.keys(rules) if rules.rotation_days and evidence.now else ():
            place = f"keys/{holder.name}.toml"
            if holder.made is None:
                yield (
                    f"{place}: made is missing; roles.{name}.rotation_days {rules.rotation_days} "
                    "cannot be judged"
                )
            elif evidence.now and (days := (evidence.now.date() - holder.made).days) > (
                rules.rotation_days
            ):
                yield (
                    f"{place}: made {holder.made}, {days} days ago; roles.{name}.rotation_days "
                    f"allows {rules.rotation_days}"
                )


def _lead_time(evidence: Evidence) -> Iterator[str]:
    lead = evidence.policy.lead_days
    for name, rules in evidence.rules():
        # Machines sign these by themselves, and nobody judges the anchor by its expiry.
        alone = evidence.template(name) in (*ONLINE_ROLES, "builds", RECOVERY)
        if not alone and rules.signing_days < lead:
            yield (
                f"roles.{name}: signing_days {rules.signing_days}, but lead_days says that a "
                f"ceremony takes {lead}"
            )


def _hybrid_quorum(evidence: Evidence) -> Iterator[str]:
    for name, rules in evidence.rules():
        holders = list(evidence.keys(rules))
        if not rules.hybrid_left or len(holders) < max(len(rules.keys), rules.threshold):
            continue
        quantum = [each for each in holders if each.key.keytype == _POST_QUANTUM]
        classical = [each for each in holders if each.key.keytype != _POST_QUANTUM]
        for kind, broken, standing in (
            ("classical", classical, quantum),
            ("post-quantum", quantum, classical),
        ):
            left = max(0, rules.threshold - len(broken))
            people = _fewest_people(standing, left)
            if people < rules.hybrid_left:
                yield (
                    f"roles.{name}: if the {kind} keys fall, threshold {rules.threshold} - "
                    f"{len(broken)} {kind} keys = {left} signatures are left to get, which "
                    f"{people} people can give; expected at least {rules.hybrid_left}"
                )


def _fewest_people(holders: list[KeyHolder], signatures: int) -> int:
    """How few people have so many keys: a thief goes to those first who hold the most."""
    people = 0
    for count in sorted(Counter(each.holder for each in holders).values(), reverse=True):
        if signatures <= 0:
            break
        signatures -= count
        people += 1
    return people


def _signing_period(evidence: Evidence) -> Iterator[str]:
    for name, rules in evidence.rules():
        if rules.signing_days >= rules.expiry_days:
            yield (
                f"roles.{name}: signing begins {rules.signing_days} days before the end, "
                f"but a signature is good for {rules.expiry_days}"
            )


def _root_outlives(evidence: Evidence) -> Iterator[str]:
    root, targets = (evidence.policy.role(name).expiry_days for name in ("root", "targets"))
    if root < targets:
        yield (
            f"roles.root: expiry_days {root}, roles.targets has {targets}; "
            f"expected at least {targets}"
        )


def _expiry(evidence: Evidence) -> Iterator[str]:
    if evidence.now is None:
        return
    for role, signed in evidence.pending.items():
        rules = evidence.policy.role(role, evidence.delegated.get(role))
        latest = evidence.now + timedelta(days=rules.expiry_days)
        if signed.expires > latest:
            yield (
                f"{role} {signed.version} expires on {signed.expires:%Y-%m-%d}, "
                f"the policy allows {latest:%Y-%m-%d}"
            )


def _policy_binds(evidence: Evidence) -> Iterator[str]:
    """Where signatures would be enough that the policy does not think enough."""
    return (detail for detail, enough in _differences(evidence) if not enough)


def _policy_ahead(evidence: Evidence) -> Iterator[str]:
    """Where every signature that is enough is enough for the policy as well."""
    return (detail for detail, enough in _differences(evidence) if enough)


def _differences(evidence: Evidence) -> Iterator[tuple[str, bool]]:
    """What is unlike the policy, and whether it asks for as much as the policy.

    What waits for signatures is judged in the place of what it will replace.
    """
    for role, signed in {**evidence.signed, **evidence.pending}.items():
        anchor = role == RECOVERY
        if _signs_again(evidence, role, signed) or (anchor and role not in evidence.pending):
            continue
        for name, delegated in _delegated(signed).items():
            found = f"{role} {signed.version}: {name} is {_rule(evidence, delegated)}"
            try:
                # The four roles of a recovery root are all the same.
                section = RECOVERY if anchor else name
                rules = evidence.policy.role(section, evidence.delegated.get(name))
            except KeyError:
                yield f"{found}; expected no such role, since no product has it", False
                continue
            keyids = {holder.key.keyid for holder in evidence.keys(rules)}
            if delegated.threshold != rules.threshold or set(delegated.keyids) != keyids:
                keys = ", ".join(sorted(rules.keys))
                # So many of these keys are, then, also enough of the policy's.
                enough = delegated.threshold >= rules.threshold and keyids.issuperset(
                    delegated.keyids
                )
                yield f"{found}; the policy expects {rules.threshold} of {keys}", enough


def _signs_again(evidence: Evidence, role: str, signed: Root | Targets) -> bool:
    """Whether it signs again, as it was, what is live and has expired.

    A recovery changes one thing at a time: the policy may be ahead of a root that has expired.
    """
    live = evidence.live.get(role)
    if live is None or evidence.now is None or live.expires > evidence.now:
        return False
    return signed.version == live.version + 1 and _delegated(signed) == _delegated(live)


def _delegated(signed: Root | Targets) -> Mapping[str, Role]:
    if isinstance(signed, Root):
        return signed.roles
    return (signed.delegations.roles or {}) if signed.delegations else {}


def _rule(evidence: Evidence, role: Role) -> str:
    names = {holder.key.keyid: name for name, holder in evidence.keyring.items()}
    keys = sorted(names.get(keyid, f"unknown key {keyid[:8]}") for keyid in role.keyids)
    return f"{role.threshold} of {', '.join(keys)}"


def _delegations(evidence: Evidence) -> Iterator[str]:
    """What waits for signatures is judged in the place of what it will replace."""
    for role, signed in {**evidence.signed, **evidence.pending}.items():
        if not isinstance(signed, Targets) or signed.delegations is None:
            continue
        where = f"{role} {signed.version}"
        if role != Targets.type:
            yield f"{where} delegates to other roles; only targets may"
        elif signed.delegations.roles is None:
            yield f"{where} delegates to hash bins; only builds roles may"
        else:
            ours = [
                each
                for name, each in signed.delegations.roles.items()
                if name not in evidence.adopted
            ]
            for problem in delegation_problems(ours):
                yield f"{where}: {problem}"


def _lab(evidence: Evidence) -> Iterator[str]:
    if evidence.policy.lab:
        yield f"{evidence.policy.source}: lab = true"
    root = evidence.pending.get("root") or evidence.signed.get("root")
    if root is not None and root.unrecognized_fields.get(_LAB_FIELD) is True:
        yield f"root {root.version} is marked LAB"


BINDS = "policy-binds"
AHEAD = "policy-ahead"

MENDED = frozenset({BINDS, "delegations", "expiry"})
"""Checks that a new ceremony mends, and that must therefore not stop one from being opened."""

ROTATED = frozenset({"algorithm", "algorithm-until", "destroyed-keys", "stolen-keys"})
"""Checks of single keys that a rotation mends: those of others must not stop that of one."""

# Checks that want several people, which a maker does not have.
_PEOPLE = frozenset({"threshold-two", "threshold-spare", "distinct-holders", "recovery-holders"})

KEY_CHECKS = frozenset({"threshold-reachable", "threshold-spare"})
"""Checks that fail as long as keys are still being made."""

CHECKS: tuple[Check, ...] = (
    Check(
        "threshold-reachable",
        Severity.ERROR,
        "No threshold is above the number of keys.",
        "Nobody could ever sign such a role again.",
        "Add keys to the role in policy.toml (firmroot key new NAME --role ROLE), "
        "or lower the threshold.",
        _threshold_reachable,
    ),
    Check(
        "threshold-two",
        Severity.ERROR,
        "Root, targets, channels, device-tls and recovery need at least two keys to sign.",
        "One stolen key would be enough to ship any firmware.",
        'Set threshold = 2 or more; a single person says scale = "maker" in policy.toml.',
        _threshold_two,
    ),
    Check(
        "threshold-spare",
        Severity.ERROR,
        "Root, targets, channels, device-tls and recovery have more keys than their threshold.",
        "Losing one key must not be a disaster.",
        "Add another key to the role in policy.toml: firmroot key new NAME --role ROLE.",
        _threshold_spare,
    ),
    Check(
        "section-used",
        Severity.AUDIT,
        "Every section of a product's role rules a role that there is.",
        "Rules under a misspelt name bind nobody: the role follows those of all products.",
        "Correct the name in policy.toml; or add the product or channel: firmroot product add.",
        _sections_used,
    ),
    Check(
        "distinct-holders",
        Severity.ERROR,
        "A threshold is reached by distinct people, not by one person's several keys; but who "
        "builds or publishes may have, with hybrid_left, one of each family.",
        "Two keys in one pocket are stolen together.",
        "Give the role keys of other holders.",
        _distinct_holders,
    ),
    Check(
        "distinct-custody",
        Severity.ERROR,
        "The keys of a role are kept in as many different ways as its custodies says.",
        "A flaw in one kind of token or service must not take every key of a role.",
        "Give the role keys of another custody, or lower custodies.",
        _distinct_custody,
    ),
    Check(
        "custody-known",
        Severity.WARNING,
        f"A custody is one of {', '.join(CUSTODIES)}.",
        "Two spellings of one kind of token would be counted as two ways of keeping a key.",
        "Set custody in keys/NAME.toml to one of them, and say the rest in place.",
        _custody_known,
    ),
    Check(
        "online-offline",
        Severity.ERROR,
        "No key is in both an online and an offline role.",
        "Online keys are the first to be stolen; they must not speak for keys or releases.",
        "Make another key for one of the roles.",
        _online_offline,
    ),
    Check(
        "builds-channel",
        Severity.ERROR,
        "Builds share no key with root, targets, channels or device-tls.",
        "A stolen CI key alone must ship nothing.",
        "Make another key for builds.",
        _builds_channel,
    ),
    Check(
        "recovery-keys",
        Severity.ERROR,
        "Keys of the recovery anchor sign nothing else.",
        "The anchor is the way back when the other keys are lost or stolen; a key that is used "
        "elsewhere is lost or stolen with them.",
        "Make keys for it alone: firmroot key new NAME --role recovery.",
        _recovery_keys,
    ),
    Check(
        "recovery-holders",
        Severity.ERROR,
        "Nobody holds keys of root and of the recovery anchor.",
        "What takes the root keys away from their holders must not take the anchor as well.",
        "Give the anchor to other people in other places; a single person keeps its keys away "
        "from home and lives with the warning.",
        _recovery_holders,
    ),
    Check(
        "recovery-threshold",
        Severity.ERROR,
        "The threshold of the recovery anchor is not below that of root.",
        "A fleet is as strong as the weaker of its two anchors.",
        "Raise roles.recovery.threshold in policy.toml, with more keys if need be: "
        "firmroot key new NAME --role recovery.",
        _recovery_threshold,
    ),
    Check(
        "recovery-behind",
        Severity.WARNING,
        "The recovery anchor has the keys and the threshold of the policy.",
        "Whoever left can still sign for the anchor, whoever joined cannot.",
        "firmroot anchor renew, then its holders sign.",
        _recovery_behind,
    ),
    Check(
        "duplicate-key",
        Severity.ERROR,
        "No public key has two key ids or two names.",
        "A TUF threshold counts key ids: one person would sign twice.",
        "Remove one of them from keys/ and from policy.toml.",
        _duplicate_key,
    ),
    Check(
        "keyid-derived",
        Severity.ERROR,
        "A key id is the hash of its key.",
        "An id that somebody chose may stand for another key elsewhere.",
        "Remove keys/NAME.toml, then import the key again: firmroot key import FILE --name NAME.",
        _keyid_derived,
    ),
    Check(
        "rsa-size",
        Severity.ERROR,
        f"RSA keys have at least {MIN_RSA_BITS} bits.",
        "Smaller ones will not outlive the devices.",
        "Take the key out of policy.toml and keys/, and make another: firmroot key new NAME --role "
        "ROLE.",
        _rsa_size,
    ),
    Check(
        "algorithm",
        Severity.ERROR,
        "Keys in use are of the algorithms that the policy allows.",
        "One key of a type that a shipped client does not know makes a role unreadable to it.",
        "Replace the key, or add the algorithm to policy.toml once every client reads it.",
        _algorithm,
    ),
    Check(
        "client-reads",
        Severity.WARNING,
        "No algorithm is newer than the oldest client in service.",
        "Such a client cannot verify the key's signatures; if too many of a role are of that "
        "kind, it never updates again.",
        "Keep a threshold of older algorithms in the role until those devices are updated, then "
        "firmroot factory retire EXPORT.",
        _client_reads,
    ),
    Check(
        "retired-keys",
        Severity.WARNING,
        "No device was made to trust keys of root, its roles or the anchor that are retired.",
        "A device fresh from its shelf believes a threshold of them: of root or the anchor, they "
        "give it another root; of timestamp, snapshot and targets together, any firmware, as long "
        "as its root has not expired for its clock. Keys of delegated roles do nothing without "
        "these.",
        "Keep retired keys in custody until those devices are updated or out of service: "
        "firmroot factory retire EXPORT; or destroy every copy, with a record, and write the day "
        "into keys/NAME.toml: destroyed = 2027-01-31.",
        _retired_keys,
    ),
    Check(
        "destroyed-keys",
        Severity.ERROR,
        "No key that is destroyed has a role.",
        "It would be counted among those that can sign.",
        "Rotate it out: firmroot recover lost-key KEY; or correct the day in keys/NAME.toml.",
        _destroyed_keys,
    ),
    Check(
        "stolen-keys",
        Severity.ERROR,
        "No key that is known to be stolen has a role.",
        "Its thief would sign with it, and its rotation was for nothing.",
        "Rotate it out: firmroot recover stolen-key KEY. It never comes back; its holder makes "
        "another: firmroot key new NAME.",
        _stolen_keys,
    ),
    Check(
        "signed-size",
        Severity.ERROR,
        "What is signed is no longer than shipped devices read, by estimate from its keys.",
        "Devices refuse a longer file, and never update again.",
        "Give the role fewer keys, or keys with smaller signatures: one of ml-dsa-65 takes 6618 "
        "bytes, of ed25519 128.",
        _signed_size,
    ),
    Check(
        "signed-size-elsewhere",
        Severity.WARNING,
        "What is signed is no longer than python-tuf reads, by estimate from its keys.",
        "Only its timestamps are shorter: 16384 bytes, where our client reads 65536.",
        "Give the role fewer post-quantum keys, or ship only clients of firmroot.",
        _size_elsewhere,
    ),
    Check(
        "algorithm-until",
        Severity.ERROR,
        "No key is used from the day on which the policy ends its algorithm.",
        "What is weak one day is not noticed on that day, unless the day was written down before.",
        "Replace the key: firmroot rotate KEY; or move the day in algorithms_until.",
        _algorithm_until,
    ),
    Check(
        "algorithm-ending",
        Severity.WARNING,
        "Nothing is signed for longer than its algorithm is used.",
        "Devices still believe a signature when the policy has given up its algorithm.",
        "Replace the key before: firmroot rotate KEY; or lower expiry_days of the role.",
        _algorithm_ending,
    ),
    Check(
        "key-age",
        Severity.AUDIT,
        "No key is older than rotation_days of its role.",
        "A key that was copied unnoticed is of use until it is replaced; and a team that never "
        "rotates cannot do it on the day when it must.",
        "firmroot rotate KEY; if the file says no day, set made in keys/NAME.toml.",
        _key_age,
    ),
    Check(
        "hybrid-quorum",
        Severity.ERROR,
        "Where hybrid_left is set, so many people are still needed if either family of "
        "algorithms is broken.",
        "Whoever breaks a family has all its signatures: with c classical and p post-quantum keys, "
        "a threshold of t leaves t - c or t - p to get. 3 + 3 keys at 5 leave 2; at 3 they leave "
        "none.",
        "Raise the threshold, with as many keys of each family as it needs, spread over people; "
        "or lower hybrid_left.",
        _hybrid_quorum,
    ),
    Check(
        "signing-period",
        Severity.ERROR,
        "Signing again begins while the last signature is still good.",
        "A role that is always due teaches people to ignore the reminder.",
        "Make signing_days smaller than expiry_days.",
        _signing_period,
    ),
    Check(
        "lead-time",
        Severity.ERROR,
        "Signing again begins early enough for a ceremony: signing_days is not below lead_days.",
        "People travel, tokens lie in safes: a ceremony that begins too late ends after the "
        "signature that it replaces, and devices stop.",
        "Raise signing_days of the role in policy.toml, or lower lead_days.",
        _lead_time,
    ),
    Check(
        "root-outlives-targets",
        Severity.WARNING,
        "A root is good for at least as long as targets.",
        "Devices stop at an expired root, whatever is still good below it.",
        "Raise roles.root.expiry_days in policy.toml, or lower roles.targets.expiry_days.",
        _root_outlives,
    ),
    Check(
        "expiry",
        Severity.ERROR,
        "Nothing is signed for longer than the policy allows.",
        "A stolen key could sign for a century; a forgotten device would believe it.",
        "Start the ceremony again; firmroot sets the expiry from the policy.",
        _expiry,
    ),
    Check(
        BINDS,
        Severity.ERROR,
        "Root and targets give no role a key that the policy does not, nor a lower threshold.",
        "A policy that does not bind what is signed protects nothing: whoever writes a lower "
        "threshold into a ceremony would get it signed.",
        "Put the policy into force: firmroot ceremony start ROLE, with the root or targets that "
        "the message names; or edit policy.toml.",
        _policy_binds,
    ),
    Check(
        AHEAD,
        Severity.WARNING,
        "Root and targets give each role all keys of the policy, and no higher threshold.",
        "Whoever joined cannot sign yet. What is signed until then has signatures that the policy "
        "asks for, so nothing stops for it.",
        "Put the policy into force, once what is open is signed: firmroot ceremony start ROLE, "
        "with the root or targets that the message names.",
        _policy_ahead,
    ),
    Check(
        "delegations",
        Severity.ERROR,
        "Delegations are terminating, do not overlap, and list builds last; only targets has any.",
        "A target that two roles speak for is decided by the order of a list, and some clients "
        "let * cross a /: a builder could name what a channel offers.",
        "Start it anew: firmroot ceremony start targets, or the role that the message names.",
        _delegations,
    ),
    Check(
        "lab",
        Severity.AUDIT,
        "Production has no lab keys.",
        "All keys of a lab were made at once on one machine, and its clock can be set.",
        "Start a production workspace: firmroot init DIR.",
        _lab,
    ),
)
