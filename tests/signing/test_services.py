"""Keys in tokens, KMS, Vault and OpenSSH files sign roles that other clients accept.

The tokens and services are real ones (`tests.simulators.services`).
"""

from __future__ import annotations

import importlib.util
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from repo_tools.cli.main import main
from repo_tools.signing import services
from repo_tools.signing.secrets import Secrets
from tests.cli.terminal import Terminal
from tests.cli.test_apart import Stick
from tests.interop.clients import ngclient
from tests.publishing.lab import HARDWARE, image
from tests.simulators.mirror import Mirror
from tests.simulators.services import PIN, SoftHsm, ministack, missing, needed, openbao

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

pytestmark = pytest.mark.services

CURVES = {"secp256r1": "ecdsa-sha2-nistp256", "secp384r1": "ecdsa-sha2-nistp384"}
OFFLINE, ONLINE = ("root", "targets"), ("snapshot", "timestamp")


@dataclass(frozen=True)
class Place:
    """Where private keys are.

    Attributes:
        environment: the variables with which a command finds it.
        keys: URI and scheme of each key.
    """

    environment: Mapping[str, str]
    keys: Mapping[str, str]


@pytest.fixture(scope="module")
def token(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Two tokens, one of them with two keys."""
    if importlib.util.find_spec("pkcs11") is None:
        missing("python-pkcs11 is not installed: sh scripts/bootstrap services")
    made = SoftHsm(tmp_path_factory.mktemp("softhsm"))
    made.token("acme-root")
    made.token("acme spare")
    made.key("acme-root", 1, "secp256r1")
    made.key("acme-root", 2, "secp384r1")
    made.key("acme spare", 1, "secp256r1")
    return Place(
        made.environment,
        {
            "hsm:1?label=acme-root": CURVES["secp256r1"],
            "hsm:2?label=acme-root": CURVES["secp384r1"],
            "hsm:1?label=acme+spare": CURVES["secp256r1"],
        },
    )


@pytest.fixture(scope="module")
def vault(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with openbao(tmp_path_factory.mktemp("openbao")) as environment:
        try:
            import hvac
        except ImportError:
            missing("hvac is not installed: sh scripts/bootstrap services")
        client = hvac.Client(environment["VAULT_ADDR"], environment["VAULT_TOKEN"])
        client.sys.enable_secrets_engine("transit")
        client.secrets.transit.create_key("publisher", key_type="ed25519")
        client.secrets.transit.create_key("wrong", key_type="ecdsa-p256")
        yield Place(environment, {"hv:publisher": "ed25519"})


@pytest.fixture(scope="module")
def kms(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with ministack(tmp_path_factory.mktemp("ministack")) as environment:
        import boto3

        client = boto3.session.Session(
            aws_access_key_id="test", aws_secret_access_key="test", region_name="us-east-1"
        ).client("kms", endpoint_url=environment["AWS_ENDPOINT_URL"])
        keys = {}
        for spec, scheme in (
            ("ECC_NIST_P256", "ecdsa-sha2-nistp256"),
            ("ECC_NIST_P384", "ecdsa-sha2-nistp384"),
            ("RSA_3072", "rsassa-pss-sha256"),
        ):
            made = client.create_key(KeySpec=spec, KeyUsage="SIGN_VERIFY")["KeyMetadata"]["KeyId"]
            alias = f"alias/{spec.lower().replace('_', '-')}"
            client.create_alias(AliasName=alias, TargetKeyId=made)
            keys[f"awskms:{alias}"] = scheme
        yield Place(environment, keys)


@pytest.fixture(scope="module")
def openssh(tmp_path_factory: pytest.TempPathFactory) -> Place:
    program, top = (
        needed("ssh-keygen", "apt-get install openssh-client"),
        tmp_path_factory.mktemp("ssh"),
    )
    keys = {}
    for kind, bits, scheme in (
        ("ed25519", "256", "ed25519"),
        ("ecdsa", "256", "ecdsa-sha2-nistp256"),
        ("ecdsa", "384", "ecdsa-sha2-nistp384"),
        ("rsa", "3072", "rsassa-pss-sha256"),
    ):
        path = top / f"{kind}-{bits}"
        line = [program, "-q", "-t", kind, "-b", bits, "-N", PIN, "-f", str(path)]
        subprocess.run(line, check=True)
        keys[str(path)] = scheme
    return Place({}, keys)


@pytest.fixture
def company(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[[Place], Terminal]:
    """A workspace of one person without keys, whose commands find a place of keys."""
    (tmp_path / "passphrase").write_text(f"{PIN}\n")

    def make(place: Place) -> Terminal:
        monkeypatch.setenv("FIRMROOT_PASSPHRASE_FILE", str(tmp_path / "passphrase"))
        monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
        for name, value in place.environment.items():
            monkeypatch.setenv(name, value)
        assert main(["init", str(tmp_path / "acme")]) == 0
        policy = tmp_path / "acme/policy.toml"
        text = policy.read_text().replace('scale = "team"', 'scale = "maker"')
        policy.write_text(text.replace("threshold = 2", "threshold = 1"))
        return Terminal(tmp_path / "acme", capsys)

    return make


def published(run: Terminal, uri: str, mine: tuple[str, ...], tmp_path: Path) -> None:
    """A repository in which the key signs these roles; `tuf.ngclient` accepts it, twice."""
    for role in ("root", "targets", *ONLINE, "builds", "channel", "hold"):
        if role not in mine:
            run("key", "new", f"k-{role}", "--role", role)
    run("key", "import", uri, "--name", "it", *(w for role in mine for w in ("--role", role)))
    run("product", "add", "gateway", "--hardware", HARDWARE)
    run("ceremony", "start", "root")
    run("--yes", "sign")
    (tmp_path / "gw2.img").write_bytes(image("1.0"))
    run(
        "firmware",
        "add",
        tmp_path / "gw2.img",
        "-p",
        "gateway",
        "-V",
        "1.0",
        "--hardware",
        HARDWARE,
    )
    run("channel", "promote", "gateway@1.0", "--to", "stable")
    run("--yes", "sign")
    run("publish")
    run("refresh")
    repository = run.directory / "repository"
    files = {
        path.relative_to(repository).as_posix(): path.read_bytes()
        for path in repository.rglob("*")
        if path.is_file()
    }
    root = files["metadata/1.root.json"]
    with Mirror(files) as mirror:
        found = ngclient(tmp_path / "client", mirror.url, root, ["builds/gateway/1.0/gw2.img"])
    assert found == [image("1.0")]


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_token_signs(
    token: Place, company: Callable[[Place], Terminal], tmp_path: Path, number: int
) -> None:
    uri, scheme = list(token.keys.items())[number]
    run = company(token)
    published(run, uri, OFFLINE, tmp_path)
    shown = run("key", "show", "it")
    assert scheme in shown
    assert "custody  hsm" in shown


@pytest.mark.parametrize("number", [0, 1, 2])
def test_kms_signs(
    kms: Place, company: Callable[[Place], Terminal], tmp_path: Path, number: int
) -> None:
    uri, scheme = list(kms.keys.items())[number]
    run = company(kms)
    published(run, uri, ONLINE, tmp_path)
    shown = run("key", "show", "it")
    assert scheme in shown
    assert "custody  kms" in shown
    assert f'it = "{uri}"' in (run.directory / "firmroot.toml").read_text(), "refresh finds it"


def test_vault_signs(vault: Place, company: Callable[[Place], Terminal], tmp_path: Path) -> None:
    run = company(vault)
    published(run, "hv:publisher", ONLINE, tmp_path)
    assert "custody  vault" in run("key", "show", "it")


def test_a_small_rsa_key_of_openssh_is_refused(
    openssh: Place, company: Callable[[Place], Terminal], tmp_path: Path
) -> None:
    path = tmp_path / "small"
    line = ["ssh-keygen", "-q", "-t", "rsa", "-b", "2048", "-N", PIN, "-f", str(path)]
    subprocess.run(line, check=True)
    said = company(openssh)("key", "import", path, "--name", "it", code=2)
    assert "is an RSA key of 2048 bits, expected at least 3072" in said
    assert not (tmp_path / "acme/keys/it.toml").exists()


@pytest.mark.parametrize("number", [0, 1, 2, 3])
def test_openssh_signs(
    openssh: Place, company: Callable[[Place], Terminal], tmp_path: Path, number: int
) -> None:
    path, scheme = list(openssh.keys.items())[number]
    run = company(openssh)
    published(run, path, OFFLINE, tmp_path)
    shown = run("key", "show", "it")
    assert scheme in shown
    assert f"ssh:{path}" in shown


def test_a_small_install_finds_the_keys_of_a_token(token: Place, tmp_path: Path) -> None:
    stick = Stick(tmp_path / "stick")
    said = stick("key", "list", "hsm:", environment=token.environment)
    for uri in token.keys:
        assert uri in said
    # Which token comes first is the library's choice.
    assert any(f"next: firmroot sign FILE --key '{uri}' --as NAME" in said for uri in token.keys)


def test_the_keys_of_a_place_are_found(
    token: Place, kms: Place, vault: Place, company: Callable[[Place], Terminal]
) -> None:
    run = company(Place({**token.environment, **kms.environment, **vault.environment}, {}))
    said = run("key", "list", "hsm:")
    for uri in token.keys:
        assert uri in said
    assert "on token acme-root, serial " in said
    assert "spare" not in run("key", "list", "hsm:?label=acme-root")
    said = run("key", "list", "awskms:")
    assert all(uri in said for uri in kms.keys)
    assert "hv:publisher/1" in run("key", "list", "hv:")
    refused = run("key", "list", "gcpkms:", code=2)
    assert "Google Cloud KMS cannot be asked for its keys" in refused


def test_a_wrong_pin_is_told_with_its_token_and_asked_again(
    token: Place, company: Callable[[Place], Terminal], tmp_path: Path
) -> None:
    run = company(token)
    (tmp_path / "passphrase").write_text("wrong\n")
    said = run("key", "import", "hsm:1?label=acme-root", "--name", "it", code=2)
    assert "wrong PIN for token acme-root" in said
    assert "nothing was signed; it is from FIRMROOT_PASSPHRASE_FILE (" in said
    assert not (run.directory / "keys/it.toml").exists()
    (tmp_path / "passphrase").write_text(f"{PIN}\n")
    run("key", "import", "hsm:1?label=acme-root", "--name", "it", "--role", "root")
    assert "signs, and its signature verifies" in run("key", "test", "it")


def test_a_pin_is_asked_once_for_each_token(token: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in token.environment.items():
        monkeypatch.setenv(name, value)
    asked: list[str] = []

    def person(question: str) -> str:
        asked.append(question)
        return PIN

    secrets = Secrets(prompt=person)
    for uri in token.keys:
        full, key = services.import_key(uri, secrets)
        signer = services.open_service(full, key, secrets)
        for payload in (b"one", b"two"):
            key.verify_signature(signer.sign(payload), payload)
    assert asked == ["PIN of token acme-root", "PIN of token acme spare"]


REFUSED = {
    "no such token": ("hsm:1?label=nobody", 3, "token nobody is not there"),
    "two tokens": ("hsm:1", 2, "more than one token is there"),
    "no such key": ("hsm:9?label=acme-root", 2, "could not find ECDSA key on the PKCS#11 token"),
    "no number": ("hsm:first?label=acme-root", 2, "expected the number of an object"),
    "no such KMS key": ("awskms:alias/nobody", 2, "there is no such key in this region"),
    "no such Vault key": ("hv:nobody", 2, "there is no such key"),
    "a Vault key of another type": ("hv:wrong", 2, "hv:wrong"),
    "an older version": ("hv:publisher/7", 2, "the newest version of this key is hv:publisher/1"),
    "no SDK": ("gcpkms:projects/x", 2, "Google Cloud KMS needs a library that is not installed"),
    "no name": ("awskms:", 2, "awskms:"),
}


@pytest.mark.parametrize("sentence", REFUSED)
def test_what_cannot_be_imported_is_told_and_nothing_is_written(
    token: Place,
    kms: Place,
    vault: Place,
    company: Callable[[Place], Terminal],
    sentence: str,
) -> None:
    uri, code, told = REFUSED[sentence]
    run = company(Place({**token.environment, **kms.environment, **vault.environment}, {}))
    said = run("key", "import", uri, "--name", "it", code=code)
    assert told in said
    assert "hint: " in said
    assert ("pip install 'securesystemslib[gcpkms]'" in said) is (sentence == "no SDK")
    assert "Traceback" not in said
    assert not (run.directory / "keys/it.toml").exists()
    run("key", "import", "hv:publisher", "--name", "it")


def test_a_vault_token_without_permission(
    vault: Place, company: Callable[[Place], Terminal]
) -> None:
    run = company(Place({**vault.environment, "VAULT_TOKEN": "nobody"}, {}))
    said = run("key", "import", "hv:publisher", "--name", "it", code=2)
    assert "hv:publisher: no permission" in said
    assert "`update` on transit/sign/publisher" in said


def test_a_service_that_does_not_answer(
    vault: Place, kms: Place, company: Callable[[Place], Terminal]
) -> None:
    run = company(
        Place(
            {
                **vault.environment,
                **kms.environment,
                "VAULT_ADDR": "http://127.0.0.1:9",
                "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
                "AWS_MAX_ATTEMPTS": "1",
            },
            {},
        )
    )
    assert "Vault does not answer" in run("key", "import", "hv:publisher", "--name", "it", code=4)
    said = run("key", "import", "awskms:alias/x", "--name", "it", code=4)
    assert "Could not connect to the endpoint" in said
