from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from client_reference.config import IdentitySource, Proxy, Reboot, TlsRoots, load
from client_reference.errors import ConfigurationError
from client_reference.transport.policy import Degraded, parse_mirror
from client_reference.transport.proxy import ProxyServer

if TYPE_CHECKING:
    from pathlib import Path

MINIMAL = """schema = 1
[repository]
product = "gateway"
channel = "stable"
mirrors = ["https://fw.acme.example/"]
[identity]
hardware = "literal:acme,gw-2"
[trust]
state = "state"
[install]
slots = { A = "slots/A.img", B = "/dev/B" }
"""


@pytest.fixture
def device(tmp_path: Path) -> Path:
    """A directory whose device.toml is minimal."""
    (tmp_path / "device.toml").write_text(MINIMAL)
    return tmp_path


def test_defaults_are_those_that_are_documented(device: Path) -> None:
    config = load(device / "device.toml")
    assert config.repository.mirrors == (parse_mirror("https://fw.acme.example/"),)
    assert config.repository.credentials is None
    assert config.identity.device_id == IdentitySource(
        "file", "/sys/firmware/devicetree/base/serial-number"
    )
    assert config.identity.groups == ()
    assert str(config.trust.factory) == "/usr/share/firmroot"
    assert (config.tls.roots, config.tls.degraded) == (TlsRoots.BOTH, Degraded.ALLOW)
    assert config.tls.proxy is Proxy.ENVIRONMENT
    assert config.download.quota == 512 * 1024**2
    assert config.download.minimum_rate == 4096
    assert (config.install.handler, config.install.bootloader) == ("slot", "file")
    assert config.reboot is Reboot.AUTOMATIC
    assert config.warnings == ()


def test_relative_paths_are_relative_to_the_first_file(device: Path) -> None:
    (device / "device.d").mkdir()
    (device / "device.d" / "10.toml").write_text('[trust]\nfactory = "born"\n')
    config = load(device / "device.toml")
    assert config.trust.state == device / "state"
    assert config.trust.factory == device / "born"
    assert config.install.slots["A"] == device / "slots" / "A.img"
    assert str(config.install.slots["B"]) == "/dev/B"


def test_later_files_are_merged_key_by_key_in_the_order_of_their_names(device: Path) -> None:
    drop_ins = device / "device.d"
    drop_ins.mkdir()
    (drop_ins / "20.toml").write_text('[repository]\nchannel = "beta"\n')
    (drop_ins / "10.toml").write_text(
        '[repository]\nchannel = "alpha"\nmirrors = ["https://b.example/"]\n'
    )
    (drop_ins / "30.txt").write_text("not TOML")
    config = load(device / "device.toml")
    assert config.repository.channel == "beta"
    assert [mirror.host for mirror in config.repository.mirrors] == ["b.example"]
    assert config.repository.product == "gateway"


def test_the_owner_sets_channel_and_groups(device: Path) -> None:
    (device / "state").mkdir()
    (device / "state" / "device.toml").write_text(
        '[repository]\nchannel = "beta"\n[identity]\ngroups = ["pilot"]\n'
    )
    config = load(device / "device.toml")
    assert (config.repository.channel, config.identity.groups) == ("beta", ("pilot",))


def test_the_owner_sets_nothing_else(device: Path) -> None:
    (device / "owner.toml").write_text('[tls]\ndegraded = "forbid"\n')
    with pytest.raises(ConfigurationError) as caught:
        load(device / "device.toml", owner=device / "owner.toml")
    assert "owner.toml: tls.degraded cannot be set here, only" in caught.value.message
    assert "repository.channel" in caught.value.message
    assert caught.value.hint == f"move it to {device / 'device.toml'}"


def test_paths_of_the_layers_can_be_given(device: Path) -> None:
    (device / "other.d").mkdir()
    (device / "other.d" / "1.toml").write_text('[repository]\nchannel = "beta"\n')
    (device / "owner.toml").write_text('[identity]\ngroups = ["pilot"]\n')
    config = load(device / "device.toml", device / "other.d", device / "owner.toml")
    assert (config.repository.channel, config.identity.groups) == ("beta", ("pilot",))


def test_a_command_is_taken_as_it_is_written(device: Path) -> None:
    (device / "device.toml").write_text(
        MINIMAL.replace("slots = {", 'handler = "command"\nslots = {')
        + '[install.command]\nrun = ["rauc", "install", "{path}"]\nconfirm = ["rauc", "ok"]\n'
    )
    install = load(device / "device.toml").install
    assert install.run == ("rauc", "install", "{path}")
    assert (install.confirm, install.reject) == (("rauc", "ok"), ())
    assert str(install.directory) == "/data/firmroot/cache"


def test_a_state_that_this_user_may_not_look_into_is_named(
    device: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (device / "device.toml").write_text(MINIMAL)

    def denied(_: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(
            "pathlib.Path.exists", denied
        )  # the tests may run as root, who may look anywhere
        with pytest.raises(ConfigurationError, match=r"trust.state: user .* may not") as caught:
            load(device / "device.toml")
    assert caught.value.hint == "run this as the user to whom that directory belongs"
    assert load(device / "device.toml").repository.product


PROXIES = {
    "environment": Proxy.ENVIRONMENT,
    "none": Proxy.NONE,
    "http://proxy.example:3128": ProxyServer("proxy.example", 3128),
}


@pytest.mark.parametrize("text", PROXIES)
def test_a_proxy_is_of_the_environment_none_or_named(device: Path, text: str) -> None:
    (device / "device.toml").write_text(f'{MINIMAL}[tls]\nproxy = "{text}"\n')
    assert load(device / "device.toml").tls.proxy == PROXIES[text]


def test_files_of_the_repository_are_relative_to_the_first_file(device: Path) -> None:
    names = ("credentials", "client_certificate", "client_key")
    lines = "".join(f'{name} = "{name}.file"\n' for name in names)
    (device / "device.d").mkdir()
    (device / "device.d" / "1.toml").write_text(f"[repository]\n{lines}")
    found = load(device / "device.toml").repository
    for name in names:
        assert getattr(found, name) == device / f"{name}.file"


WRONG = {
    "an unknown key": (
        "[install]\nslot = 1",
        "unknown key install.slot; did you mean install.slots?",
    ),
    "a key in the wrong section": (
        '[check]\nquota = "1MiB"',
        "unknown key check.quota; did you mean download.quota?",
    ),
    "an unknown section": ('[fleet]\nname = "x"', "unknown key fleet.name"),
    "a key without a section": ("chanel = 1\n", "unknown key chanel"),
    "a misspelt key that must be there": (
        '[repository]\nmirors = ["https://a.example/"]',
        "unknown key repository.mirors; did you mean repository.mirrors?",
    ),
    "a number for a text": (
        "[repository]\nproduct = 7",
        "repository.product: found 7, expected a string",
    ),
    "a text for an array": (
        '[repository]\nmirrors = "https://a.example/"',
        'repository.mirrors: found "https://a.example/", expected an array of strings',
    ),
    "a number in an array of texts": (
        "[identity]\ngroups = [1]",
        "identity.groups: found [1], expected an array of strings",
    ),
    "a value for a table": (
        'tls = "both"\n',
        'tls: found "both", expected a table',
    ),
    "a text for a switch": (
        '[trust]\nset_clock = "no"',
        'trust.set_clock: found "no", expected true or false',
    ),
    "a product with capitals": ('[repository]\nproduct = "GW"', "repository.product: found"),
    "no mirror": ("[repository]\nmirrors = []", "repository.mirrors: found [], expected at least"),
    "a mirror that is no URL": (
        '[repository]\nmirrors = ["fw.acme.example"]',
        "repository.mirrors: mirror 'fw.acme.example' must begin with https://",
    ),
    "a duration without a unit": ('[check]\nevery = "6"', "check.every: found"),
    "a size in MB": ('[download]\nquota = "5MB"', "download.quota: found"),
    "a quota of nothing": ('[download]\nquota = "0MiB"', "download.quota: found"),
    "a rate without /s": ('[download]\nminimum_rate = "4KiB"', 'a size, as "4KiB/s"'),
    "a window that is no time of day": ('[check]\nwindow = "25:00-26:00"', "check.window: found"),
    "an unknown choice": (
        '[tls]\nroots = "none"',
        'tls.roots: found "none", expected "system" or "private" or "both"',
    ),
    "hardware of an unknown source": (
        '[identity]\nhardware = "dmi"',
        "identity.hardware: found",
    ),
    "hardware with a glob": ('[identity]\nhardware = "literal:acme,*"', "identity.hardware: found"),
    "an empty source": ('[identity]\ndevice_id = "file:"', "identity.device_id: found"),
    "a handler of a later version": (
        '[install]\nhandler = "rauc"',
        'install.handler: found "rauc", expected one that this version has: slot, command',
    ),
    "a boot loader of a later version": (
        '[install]\nbootloader = "grub"',
        'install.bootloader: found "grub", expected one that this version has: file',
    ),
    "a command handler without a command": (
        '[install]\nhandler = "command"',
        "install.command.run: found [], expected a command",
    ),
    "a proxy that is no word and no URL": (
        '[tls]\nproxy = "system"',
        'tls.proxy: found "system", expected "environment", "none" or "http://HOST:PORT"',
    ),
    "a SOCKS proxy": (
        '[tls]\nproxy = "socks5://127.0.0.1:1080"',
        "tls.proxy: tls.proxy names a SOCKS proxy (socks5://), expected http://HOST:PORT",
    ),
    "a proxy with a password": (
        '[tls]\nproxy = "http://user:secret@proxy.example:3128"',
        "tls.proxy: tls.proxy has a user name in its URL, which anyone can read",
    ),
    "a key without a certificate": (
        '[repository]\nclient_key = "device.key"',
        'device.key", expected a repository.client_certificate that it belongs to',
    ),
    "plain HTTP where degraded is forbidden": (
        '[repository]\nmirrors = ["http://a.example/"]\n[tls]\ndegraded = "forbid"',
        "expected https:// mirrors only",
    ),
    "a recovery URL that is none": (
        '[repository]\nrecovery = ["r.example"]',
        "repository.recovery: mirror 'r.example' must begin with https://",
    ),
    "plain HTTP to the anchor where degraded is forbidden": (
        '[repository]\nrecovery = ["http://r.example/"]\n[tls]\ndegraded = "forbid"',
        'repository.recovery: found "http://r.example/", expected https:// mirrors only',
    ),
    "a clock that this version does not set": (
        "[trust]\nset_clock = true",
        "trust.set_clock: this version does not honour it yet",
    ),
    "health checks that this version does not run": (
        '[confirm]\nchecks = "/x"',
        "confirm.checks: this version does not honour it yet",
    ),
    "a network that this version does not wait for": (
        '[confirm]\nwithout_network = "wait"',
        "confirm.without_network: this version does not honour it yet",
    ),
}


@pytest.mark.parametrize("sentence", WRONG)
def test_what_is_wrong_is_named_with_file_and_key(device: Path, sentence: str) -> None:
    text, message = WRONG[sentence]
    (device / "device.d").mkdir()
    drop_in = device / "device.d" / "99.toml"
    drop_in.write_text(text)
    if "must be there" in sentence:
        path = device / "device.toml"
        path.write_text("\n".join(line for line in MINIMAL.split("\n") if "mirrors" not in line))
    with pytest.raises(ConfigurationError) as caught:
        load(device / "device.toml")
    assert message in caught.value.message
    assert ("99.toml" in caught.value.message) == ("without a command" not in sentence)
    assert caught.value.exit_code == 2


WARNED = {
    "check.every": '[check]\nevery = "12h"',
    "check.jitter": '[check]\njitter = "2h"',
    "check.window": '[check]\nwindow = "01:00-05:00"',
    "check.metered": '[check]\nmetered = "all"',
    "download.limit": '[download]\nlimit = "1MiB/s"',
    "confirm.within": '[confirm]\nwithin = "30min"',
    "report.to": '[report]\nto = "headers"',
}


@pytest.mark.parametrize("key", WARNED)
def test_what_has_no_effect_yet_is_said(device: Path, key: str) -> None:
    (device / "device.toml").write_text(MINIMAL + WARNED[key])
    (warning,) = load(device / "device.toml").warnings
    assert warning == f"{device / 'device.toml'}: {key} is not yet honoured by this version"


SLOTS = {
    "none": ("", "found nothing, expected two slots or more"),
    "an empty table": ("slots = {}", "found nothing, expected two slots or more"),
    "one": ('slots = { A = "/dev/A" }', "found A, expected two slots or more"),
    "two at one place": (
        'slots = { A = "slots/A.img", B = "slots/../slots/A.img" }',
        'install.slots.B: found "',
    ),
}


@pytest.mark.parametrize("sentence", SLOTS)
def test_slots_are_two_different_places(device: Path, sentence: str) -> None:
    text, message = SLOTS[sentence]
    path = device / "device.toml"
    whole = path.read_text()
    path.write_text(whole.partition("slots =")[0] + text + "\n")
    with pytest.raises(ConfigurationError) as caught:
        load(path)
    assert message in caught.value.message
    assert f"{path}: install.slots" in caught.value.message
    assert ("another place than that of A" in caught.value.message) == ("at one" in sentence)
    path.write_text(whole)
    assert list(load(path).install.slots) == ["A", "B"]


def test_a_command_needs_no_slots(device: Path) -> None:
    path = device / "device.toml"
    text = path.read_text().partition("slots =")[0]
    path.write_text(f'{text}handler = "command"\ncommand = {{ run = ["true"] }}\n')
    assert load(path).install.slots == {}


def test_how_often_a_device_checks_counts_where_there_is_an_anchor_to_ask(device: Path) -> None:
    text = MINIMAL.replace("[repository]", '[repository]\nrecovery = ["https://r.example/fw"]')
    (device / "device.toml").write_text(text + '[check]\nevery = "12h"')
    config = load(device / "device.toml")
    assert [url.url for url in config.repository.recovery] == ["https://r.example/fw/"]
    assert (config.check_every, config.warnings) == (43_200, ())


FILES = {
    "no file": (None, "does not exist, expected the device configuration"),
    "a directory": ("directory", "cannot be read"),
    "no TOML": (b"schema = ", "is not TOML"),
    "no UTF-8": (b'schema = "\xff"', "is not TOML"),
    "no end": (b"#" * 300_000, "is longer than 262144 characters"),
    "no schema": (b"[repository]\n", "schema: found nothing, expected 1"),
    "a newer schema": (b"schema = 2\n", "schema: found 2, expected 1"),
    "a schema of true": (b"schema = true\n", "schema: found True, expected 1"),
    "no product": (
        MINIMAL.replace('product = "gateway"\n', "").encode(),
        "repository.product is missing",
    ),
}


@pytest.mark.parametrize("sentence", FILES)
def test_a_file_that_is_no_configuration_is_refused(tmp_path: Path, sentence: str) -> None:
    content, message = FILES[sentence]
    path = tmp_path / "device.toml"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content:
        path.mkdir()
    with pytest.raises(ConfigurationError, match=message) as caught:
        load(path)
    assert str(path) in caught.value.message
