"""The key of one machine changes, and its private half is nowhere but there."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest

from client_reference.errors import ExitCode

if TYPE_CHECKING:
    from pathlib import Path

    from tests.workflows.identities import Company, Machine

# Each takes seconds: beside the other lives of a company.
pytestmark = pytest.mark.services

MERGED = ("metadata", "history", "keys")
TAKEN = ("ceremonies", "staged", "policy.toml", "gone.toml", "firmroot.toml")


@pytest.fixture
def live(shipped: Company, tmp_path: Path) -> Company:
    """1.0 is live."""
    return shipped.copy(tmp_path / "acme")


def pull(company: Company, source: str, *names: str) -> None:
    """What git brings from one clone to others: all that is not of a machine."""
    for name in names:
        for part in (*MERGED, *TAKEN):
            there, here = company[name].directory / part, company[source].directory / part
            if there.is_dir() and part in TAKEN:
                shutil.rmtree(there)
            if here.is_dir():
                shutil.copytree(here, there, dirs_exist_ok=True)
            elif here.exists():
                shutil.copy(here, there)


def private(machine: Machine) -> list[str]:
    return sorted(path.stem for path in machine.directory.glob(".firmroot/keys/*.pem"))


def replace_key(company: Company, *words: str) -> str:
    """The builder has a new key, and the holders of targets sign that it counts."""
    ci = company["ci"]
    ci("key", "new", "ci-3")
    said = ci(*words, "ci", "--to", "ci-3")
    pull(company, "ci", "office")
    company["office"]("sign")
    return said


@pytest.mark.parametrize(
    "words", [("rotate",), ("recover", "lost-key"), ("recover", "stolen-key")], ids=" ".join
)
def test_a_builders_key_is_replaced_on_the_builders_machine(
    live: Company, words: tuple[str, ...]
) -> None:
    ci, publisher = live["ci"], live["publisher"]
    if words[-1] == "lost-key":
        (ci.directory / ".firmroot/keys/ci.pem").unlink()
    said = replace_key(live, *words)
    assert "gateway-builds: signed again on this machine" in said
    assert private(ci)[-1] == "ci-3"
    if words[-1] == "stolen-key":
        # Attack: the snapshot key, of all, where the thief was.
        assert "where publisher is: firmroot rotate publisher --to NEW\n" in said

    # Until the targets role that names the new key is here, nothing can be handed in: it says why.
    said = ci("submit", code=ExitCode.ACTION_REQUIRED)
    assert "the live targets role names, ci" in said
    assert "its keys change to ci-3" in said or "its keys change to ci-2 or ci-3" in said

    pull(live, "office", "ci", "publisher")
    if words[-1] == "stolen-key":
        publisher("key", "new", "publisher-2")
        # Nobody else has the publisher's key: a bridge, and no device notices.
        assert "a bridge" in publisher("rotate", "publisher", "--to", "publisher-2")
        pull(live, "publisher", "office")
        live["office"]("sign", "--accept-unusual", "same-person")
        pull(live, "office", "ci", "publisher")
    said = publisher("publish", code=ExitCode.ACTION_REQUIRED)
    assert "if they are on another machine, also there: firmroot submit" in said
    assert "next: firmroot submit  (gateway-builds: signed" in ci("status")
    said = ci.submit()
    assert "handed in" in said
    assert "next: firmroot publish" in said
    assert "where the key publisher" in said
    assert not [name for name in private(ci) if name.startswith("pub")]
    assert private(publisher) == ["publisher", "publisher-2"][: 1 + (words[-1] == "stolen-key")]

    said = publisher("publish", "--no-wait")
    assert ("root 2" if words[-1] == "stolen-key" else "targets 2, gateway-builds 2") in said
    assert publisher("verify").count("version 2, good until") >= 2
    assert "published" in ci.submit("--status")
    ci.submit()
    pull(live, "publisher", "ci", "rita", "sam")
    if words[-1] == "stolen-key":
        live.ship("1.1")


def test_a_thief_of_the_key_that_goes_gains_nothing_by_signing_once_more(live: Company) -> None:
    ci, thief, publisher = live["ci"], live["thief"], live["publisher"]
    shutil.copytree(ci.directory, thief.directory)
    replace_key(live, "rotate")
    pull(live, "office", "ci", "publisher")
    # Attack: the same role, a higher version, signed with the key that is still live.
    for version in ("6.5", "6.6"):
        thief.build(version)
    stolen = thief.submission()
    honest = ci.submission()
    said = publisher.json("publish")["inbox"]
    told = {each["id"]: each for each in said}
    assert [each["outcome"] for each in said if each["id"] == honest] == ["published"]
    assert told[stolen]["outcome"] == "refused"
    assert "gateway-builds" in told[stolen]["reason"]
    ci.submit()
    assert "6.6" not in ci("firmware", "list")
    assert live.device() == "installs 1.0"


def test_what_went_live_with_the_key_that_goes_is_not_signed_unseen(live: Company) -> None:
    ci, thief, publisher = live["ci"], live["thief"], live["publisher"]
    shutil.copytree(ci.directory, thief.directory)
    ci.build("1.1")
    replace_key(live, "rotate")
    pull(live, "office", "ci")
    # Attack: before the publisher has the targets role, so that the next key signs it as well.
    thief.build("6.6", b"evil" * (1 << 19), name="evil.img")
    thief.submit()
    publisher("publish")
    before = ci.staged.read_bytes()
    said = ci.submit(code=ExitCode.REFUSED)
    evil = "builds/gateway/6.6/evil.img"
    assert f"meanwhile {evil}, {evil}.segments went live with the old ones" in said
    assert "ceremony start gateway-builds --drop gateway@6.6; then" in said
    # The same to a clone that has the policy, and not yet the targets role of the people.
    shutil.rmtree(ci.directory / "staged")
    said = ci.submit(code=ExitCode.REFUSED)
    assert f"{evil}.segments went live with the old ones" in said
    assert ci.staged.read_bytes() == before

    # They look at it, and say that it is theirs.
    pull(live, "office", "publisher", "ci")
    said = ci("ceremony", "start", "gateway-builds")
    assert "1.1 has sequence 3 now, not 2: a channel that was to offer it must be promoted" in said
    ci.submit()
    assert "gateway-builds" in publisher("publish")
    assert "published" in ci.submit("--status")
    assert built(ci) == ["1.0", "1.1", "6.6"]


def test_a_release_manager_who_lost_a_key_signs_on_with_the_next(live: Company) -> None:
    rita, office, publisher = live["rita"], live["office"], live["publisher"]
    (rita.directory / ".firmroot/keys/rita.pem").unlink()
    rita("key", "new", "rita-2")
    said = rita("recover", "lost-key", "rita", "--to", "rita-2")
    assert "gateway-stable: signed again" in said
    assert set(rita.workspace.own_key_uris()) == {"rita-2"}
    pull(live, "rita", "office", "sam")
    office("sign", "--key", "alice", "--key", "bob")
    live["sam"]("sign")
    for name in ("office", "sam"):
        shutil.copytree(
            live[name].directory / "ceremonies",
            rita.directory / "ceremonies",
            dirs_exist_ok=True,
        )
    shutil.rmtree(rita.directory / "ceremonies/targets-2")
    pull_staged = (office.directory / "staged", rita.directory / "staged")
    shutil.copytree(*pull_staged, dirs_exist_ok=True)
    assert "gateway-stable: has all its signatures, staged" in rita("sign")
    rita.submit()
    pull(live, "office", "publisher")
    said = publisher("publish")
    assert "targets 2" in said
    assert "gateway-stable 2" in said
    rita.submit()
    pull(live, "publisher", "rita", "sam", "ci")
    live.ship("1.1")


def built(machine: Machine) -> list[str]:
    """The versions that the next builds role of a machine has."""
    return sorted(each["version"] for each in machine.json("firmware", "list")["firmware"])


def test_what_a_thief_built_is_left_out_across_machines(live: Company) -> None:
    ci, thief, publisher = live["ci"], live["thief"], live["publisher"]
    shutil.copytree(ci.directory, thief.directory)
    thief.build("6.6", name="evil.img")
    thief.submit()
    publisher("publish")
    said = replace_key(live, "recover", "stolen-key", "--drop", "gateway@6.6")
    assert "dropped      gateway@6.6 (sequence 2), no channel offers it" in said
    # Attack: it comes back with the next build, of which nobody thinks while people still sign.
    ci.build("1.1")
    assert built(ci) == ["1.0", "1.1"]
    # Attack: more of them, as long as the publisher takes what the old key signs.
    for version in ("6.7", "6.8"):
        thief.submit()
        thief.build(version, name=f"evil-{version}.img")
    thief.submit()
    publisher("publish")
    pull(live, "office", "ci", "publisher")
    said = ci.submit(code=ExitCode.REFUSED)
    assert "6.6/evil.img" not in said
    assert "6.7/evil-6.7.img" in said
    assert "start gateway-builds --drop gateway@6.7 --drop gateway@6.8; then: firmroot" in said
    said = ci(
        *("recover", "stolen-key", "ci", "--to", "ci-3", "--drop", "gateway@6.7"),
        code=ExitCode.USAGE,
    )
    assert "firmroot ceremony start PRODUCT-builds --drop REF" in said
    start = ("ceremony", "start", "gateway-builds")
    said = ci(*start, "--drop", "gateway@1.0", code=ExitCode.REFUSED)
    assert "gateway@1.0 cannot be dropped: stable offers it" in said
    ci(*start, "--drop", "gateway@6.7")
    assert built(ci) == ["1.0", "1.1", "6.8"]
    ci(*start, "--drop", "gateway@6.8")
    ci.submit()
    publisher("publish")
    ci.submit()
    assert built(ci) == ["1.0", "1.1"]
    pull(live, "publisher", "ci", "rita", "sam")
    live.ship("1.2")


def test_what_is_dropped_is_dropped_on_what_is_live_by_then(live: Company) -> None:
    ci, other, publisher = live["ci"], live["ci-2"], live["publisher"]
    ci.build("6.6", name="evil.img")
    ci.submit()
    publisher("publish")
    ci.submit()
    ci("ceremony", "start", "gateway-builds", "--drop", "gateway@6.6")
    # Another builder is faster, and has the same version number.
    other.build("1.1")
    other.submit()
    publisher("publish")
    assert "made anew" in ci.submit()
    publisher("publish")
    ci.submit()
    assert built(ci) == ["1.0", "1.1"]
    assert "--drop goes with" in ci("ceremony", "start", "root", "--drop", "gateway@1.1", code=2)


def test_a_builder_whose_clone_is_behind_pulls_and_suspects_nobody(live: Company) -> None:
    ci, other, publisher = live["ci"], live["ci-2"], live["publisher"]
    other.build("1.1")
    replace_key(live, "rotate")
    pull(live, "office", "ci", "publisher")
    ci.submit()
    publisher("publish")
    ci.submit()
    ci.build("1.2")
    ci.submit()
    publisher("publish")
    said = other.submit(code=ExitCode.REFUSED)
    assert (
        "targets 2 is live and gives gateway-builds other keys; this clone knows targets 1" in said
    )
    assert "git pull, then: firmroot submit" in said
    assert "--drop" not in said
    pull(live, "publisher", "ci-2")
    assert "made anew" in other.submit()
    publisher("publish")
    other.submit()
    assert built(other) == ["1.0", "1.1", "1.2"]


def test_a_role_that_was_signed_with_new_keys_stays_when_the_old_ones_sign_again(
    live: Company,
) -> None:
    ci, thief, publisher = live["ci"], live["thief"], live["publisher"]
    shutil.copytree(ci.directory, thief.directory)
    replace_key(live, "rotate")
    pull(live, "office", "ci")
    # Attack: the same once more, so that nothing is left to be signed but the keys.
    thief("ceremony", "start", "gateway-builds")
    thief.submit()
    publisher("publish")
    pull(live, "office", "publisher")
    ci.submit()
    assert "gateway-builds 3" in publisher("publish")
    assert "published" in ci.submit("--status")


def test_who_hands_in_before_the_publisher_has_the_targets_role_is_told(live: Company) -> None:
    ci, publisher = live["ci"], live["publisher"]
    replace_key(live, "rotate")
    pull(live, "office", "ci")
    honest = ci.submission()
    [told] = publisher.json("publish")["inbox"]
    assert (told["id"], told["outcome"]) == (honest, "refused")
    assert "git pull" in ci.submit("--status", code=ExitCode.REFUSED)
    pull(live, "office", "publisher")
    ci.submit("--again")
    assert "published" in publisher("publish")
    assert "published" in ci.submit("--status")


def test_who_hands_in_while_the_targets_role_is_being_signed_waits_for_it(live: Company) -> None:
    ci, publisher = live["ci"], live["publisher"]
    replace_key(live, "rotate")
    pull(live, "ci", "publisher")  # its ceremony, and the policy; nobody's signatures
    pull(live, "office", "ci")
    honest = ci.submission()
    said = publisher("publish", code=ExitCode.ACTION_REQUIRED)
    assert "waits: gateway-builds is signed with new keys, and the targets role that" in said
    assert honest in ci.submit("--status", code=ExitCode.RETRY_LATER)
    pull(live, "office", "publisher")
    publisher("publish")
    assert "published" in ci.submit("--status")


def test_two_products_change_their_key_in_one_publish_whatever_else_is_in_the_inbox(
    live: Company,
) -> None:
    ci, thief, publisher, office = (live[name] for name in ("ci", "thief", "publisher", "office"))
    pull(live, "publisher", "office")
    office("product", "add", "sensor", "--hardware", "acme,s-1")
    office("sign")
    pull(live, "office", "publisher", "ci")
    publisher("publish")
    pull(live, "publisher", "ci", "office")
    image = ci.directory.parent / "s1.img"
    image.write_bytes(b"sensor 1.0")
    ci("firmware", "add", image, "-V", "1.0", "-p", "sensor", "--hardware", "acme,s-1")
    ci.submit()
    publisher("publish")
    ci.submit()
    shutil.copytree(ci.directory, thief.directory)
    replace_key(live, "rotate")
    pull(live, "office", "ci", "publisher")
    # Attack: neither role can go without the other, and this one is in the way of both together.
    thief.build("6.6")
    thief.submit()
    ci.submit()
    said = publisher("publish")
    assert "published timestamp" in said
    assert "gateway-builds 2, sensor-builds 2" in said
    assert ": refused: " in said


def test_a_targets_role_that_too_few_have_signed_brings_no_key_in(live: Company) -> None:
    ci, publisher = live["ci"], live["publisher"]
    replace_key(live, "rotate")
    pull(live, "office", "ci", "publisher")
    ci.submit()
    whole = publisher.directory / "staged/targets.json"
    honest = whole.read_bytes()
    # Attack: whoever can write to git names their own key, and hands in.
    forged = json.loads(honest)
    forged["signatures"] = forged["signatures"][:1]
    whole.write_text(json.dumps(forged))
    said = publisher("publish", code=ExitCode.ACTION_REQUIRED)
    assert "staged targets 2 is not signed by the keys" in said
    assert "waits" in ci.submit("--status", code=ExitCode.RETRY_LATER)
    whole.write_bytes(honest)
    publisher("publish")
    assert "published" in ci.submit("--status")


def test_a_signature_that_does_not_count_is_said_with_who_signs_again(live: Company) -> None:
    ci = live["ci"]
    ci.build("1.1")
    good = ci.staged.read_bytes()
    envelope = json.loads(good)
    envelope["signatures"][0]["sig"] = "00" * 64
    ci.staged.write_text(json.dumps(envelope))
    again = "they sign it again: firmroot firmware add FILE, then: firmroot submit"
    said = ci.submit(code=ExitCode.ACTION_REQUIRED)
    assert "gateway-builds 2 is not signed by the keys that the live targets role names, ci" in said
    assert again in said
    # Nor does a clone that does not know the product yet guess at other keys.
    config = ci.directory / "firmroot.toml"
    known = config.read_text()
    config.write_text(known[: known.index("[products")])
    assert again in ci.submit(code=ExitCode.ACTION_REQUIRED)
    config.write_text(known)
    ci.staged.write_bytes(good)
    assert "gateway-builds 2  handed in" in ci.submit()


def test_what_people_signed_and_what_goes_with_it_are_published_together(live: Company) -> None:
    """The signatures of two people met in git, and nobody has put them together yet."""
    ci, publisher, office = live["ci"], live["publisher"], live["office"]
    ci("key", "new", "ci-3")
    ci("rotate", "ci", "--to", "ci-3")
    pull(live, "ci", "office", "publisher")
    shutil.copytree(office.directory, live["office-2"].directory)
    for machine, name in ((office, "alice"), (live["office-2"], "bob")):
        assert "targets-2: still waits for" in machine("sign", "--key", name)
        shutil.copytree(
            machine.directory / "ceremonies", publisher.directory / "ceremonies", dirs_exist_ok=True
        )
    pull(live, "office", "ci")
    shutil.copytree(
        publisher.directory / "ceremonies", ci.directory / "ceremonies", dirs_exist_ok=True
    )
    ci("sign")  # has nothing left to sign, and puts them together
    ci.submit()
    said = publisher("publish")
    assert "targets 2, gateway-builds 2" in said
    assert "): published" in said
    assert "waits" not in said
