"""A company in the cloud: stacks, a workspace whose online keys are in KMS, and its devices."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shlex
import subprocess
import sys
import time
import zipfile
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from client_reference.cli import main as device_main
from repo_tools.cli.main import main
from scripts.refresher_package import make
from tests.simulators.aws import WITHIN, Account

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

STACK = "acme"
FUNCTION = f"{STACK}-refresher"
PASSPHRASE = "correct horse battery\n"
HARDWARE = "acme,gw-2"
PEOPLE = ("root", "targets", "channel", "hold")
GIT = ("git", "-c", "user.name=it", "-c", "user.email=it@acme.example")


@dataclass(frozen=True)
class Company:
    """Everything that one has.

    Attributes:
        aws: the account.
        outputs: of the repository's stack.
        top: the folder of the workspace `acme`.
        url: where its CDN is, over plain HTTP.
    """

    aws: Account
    outputs: Mapping[str, str]
    top: Path
    url: str

    def role(self, name: str) -> str:
        """The ARN of a role, such as `Publisher`; one that is an ARN already stays."""
        return name if name.startswith("arn:") else self.outputs[f"{name}RoleArn"]

    def firmroot(self, role: str, *words: str | Path, code: int = 0) -> str:
        """One command with the credentials of a role; everything that it said."""
        said = io.StringIO()
        with (
            self.aws.acting_as(self.role(role)),
            contextlib.redirect_stdout(said),
            contextlib.redirect_stderr(said),
        ):
            found = main(["-C", str(self.top / "acme"), "--yes", *map(str, words)])
        assert found == code, f"{role}: {words}: {found}\n{said.getvalue()}"
        return said.getvalue()

    def clone(self, name: str) -> Company:
        """The same company, seen from a clone that has what git has."""
        top = self.top / name
        top.mkdir()
        subprocess.run([*GIT, "clone", "-q", self.top / "acme", top / "acme"], check=True)
        return replace(self, top=top)

    def typed(self, role: str, line: str) -> str:
        """A line of a workflow, as it is typed in the workspace."""
        for placeholder, value in (("STACK", STACK), ("ci-2026", "ci")):
            line = line.replace(placeholder, value)
        program, option, where, *words = shlex.split(line)
        assert (program, option, where) == ("firmroot", "-C", "WORKSPACE")
        with contextlib.chdir(self.top / "acme"):
            return self.firmroot(role, *words)

    def found(self) -> None:
        """A workspace with keys, and root and targets live."""
        (self.top / "passphrase").write_text(PASSPHRASE)
        workspace = self.top / "acme"
        self.firmroot("Builder", "init", workspace, "--storage", self.outputs["Storage"])
        policy = workspace / "policy.toml"
        text = policy.read_text().replace('scale = "team"', 'scale = "maker"')
        policy.write_text(text.replace("threshold = 2", "threshold = 1"))
        for role in PEOPLE:
            self.firmroot("Builder", "key", "new", f"k-{role}", "--role", role)
        uri = self.outputs["OnlineKeyAUri"]
        words = ("--name", "online", "--role", "snapshot", "--role", "timestamp")
        self.firmroot("Publisher", "key", "import", uri, *words)
        uri = self.outputs["BuilderKeyAUri"]
        self.firmroot("Builder", "key", "import", uri, "--name", "ci", "--role", "builds")
        self.firmroot("Builder", "product", "add", "gateway", "--hardware", HARDWARE)
        self.firmroot("Builder", "ceremony", "start", "root")
        self.firmroot("ReleaseManager", "sign")
        self.firmroot("Publisher", "publish", "--no-wait")

    def ship(self, version: str) -> None:
        """Firmware goes from the builder to the devices, each step under its role."""
        file = self.top / "gw2.img"
        file.write_bytes(f"firmware {version}".encode() * 1000)
        words = ("-p", "gateway", "-V", version, "--hardware", HARDWARE)
        self.firmroot("Builder", "firmware", "add", file, *words)
        self.firmroot("Builder", "submit")
        self.firmroot("Publisher", "publish", "--no-wait")
        self.firmroot(
            "ReleaseManager", "channel", "promote", f"gateway@{version}", "--to", "stable"
        )
        self.firmroot("ReleaseManager", "sign")
        self.firmroot("ReleaseManager", "submit")
        self.firmroot("Publisher", "publish", "--no-wait")

    def hand_over(self) -> None:
        """What git has goes to the refresher."""
        workspace = self.top / "acme"
        for line in (("init", "-q"), ("add", "-A"), ("commit", "-q", "--allow-empty", "-m", "it")):
            subprocess.run([*GIT, *line], cwd=workspace, check=True)
        words = ["git", "archive", "--format=tar.gz", "HEAD"]
        archive = subprocess.run(words, cwd=workspace, check=True, capture_output=True).stdout
        self.aws.client("s3", self.role("Publisher")).put_object(
            Bucket=self.outputs["StateBucketName"], Key="workspace.tar.gz", Body=archive
        )

    def start_refresher(self) -> dict[str, str]:
        """Package the function, deploy it; the outputs of its stack."""
        package = self.top / "refresher.zip"
        digest = make(package)
        key = f"code/refresher-{digest[:12]}.zip"
        bucket = self.outputs["StateBucketName"]
        self.aws.client("s3").upload_file(str(package), bucket, key)
        package.unlink()
        return self.aws.create(
            f"{STACK}-refresh",
            "refresher",
            RepositoryStack=STACK,
            CodeKey=key,
            Runtime=f"python3.{sys.version_info.minor}",
            Schedule="rate(1 minute)",
            AlarmEmail="oncall@acme.example",
        )

    def device(self) -> Device:
        """A device that was made today, on its first day."""
        words = ("--to", self.top / "device", "--server", self.url)
        self.firmroot("Builder", "factory", "export", "gateway", *words)
        made = Device(self.top / "device", self.url)
        made("init")
        return made

    @contextlib.contextmanager
    def resting(self) -> Iterator[None]:
        """In the block the schedule starts nothing."""
        events = self.aws.client("events")
        [rule] = events.list_rules(NamePrefix=f"{STACK}-refresh")["Rules"]
        events.disable_rule(Name=rule["Name"])
        try:
            yield
        finally:
            events.enable_rule(Name=rule["Name"])

    @contextlib.contextmanager
    def code_without(self, prefix: str) -> Iterator[None]:
        """In the block the function has a package that lacks some files."""
        bucket, function = self.outputs["StateBucketName"], self.aws.client("lambda")
        objects = self.aws.client("s3")
        [listed] = objects.list_objects_v2(Bucket=bucket, Prefix="code/")["Contents"]
        whole = objects.get_object(Bucket=bucket, Key=listed["Key"])["Body"].read()
        less = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(whole)) as old, zipfile.ZipFile(less, "w") as new:
            for each in old.infolist():
                if not each.filename.startswith(prefix):
                    new.writestr(each, old.read(each))
        function.update_function_code(FunctionName=FUNCTION, ZipFile=less.getvalue())
        try:
            yield
        finally:
            function.update_function_code(
                FunctionName=FUNCTION, S3Bucket=bucket, S3Key=listed["Key"]
            )

    def invoke(self) -> dict[str, Any]:
        """Run the function now; what it returned, or its error."""
        answer = self.aws.client("lambda").invoke(FunctionName=FUNCTION)
        found: dict[str, Any] = json.loads(answer["Payload"].read())
        return found

    def live_timestamp(self) -> dict[str, Any]:
        """The signed part of what is live, from the storage."""
        answer = self.aws.client("s3").get_object(
            Bucket=self.outputs["BucketName"], Key="metadata/timestamp.json"
        )
        found: dict[str, Any] = json.loads(answer["Body"].read())["signed"]
        return found

    def await_version(self, version: int) -> dict[str, Any]:
        """The live timestamp, once it has at least that version."""
        ends = time.monotonic() + 2 * WITHIN
        while (found := self.live_timestamp())["version"] < version:
            assert time.monotonic() < ends, found
            time.sleep(0.5)
        return found

    def log(self) -> str:
        """Everything that the function said."""
        logs = self.aws.client("logs")
        events = logs.filter_log_events(logGroupName=f"/aws/lambda/{FUNCTION}")["events"]
        return "\n".join(each["message"] for each in events)


@dataclass(frozen=True)
class Device:
    """A device that left the factory, and what it says.

    Attributes:
        top: its folder, with `factory/` in it.
        server: where it asks.
    """

    top: Path
    server: str

    def __post_init__(self) -> None:
        """Its configuration."""
        (self.top / "slots").mkdir(exist_ok=True)
        (self.top / "device.toml").write_text(
            f"""\
schema = 1
[repository]
product = "gateway"
channel = "stable"
mirrors = ["{self.server}"]
[identity]
hardware = "literal:{HARDWARE}"
device_id = "literal:one"
[trust]
factory = "factory"
state = "state"
[download]
directory = "cache"
[install]
handler = "slot"
bootloader = "file"
slots = {{ A = "slots/A.img", B = "slots/B.img" }}
reboot = "ask"
"""
        )

    def __call__(self, *words: str) -> Any:  # noqa: ANN401 # whatever it printed
        """One command, under `--json`."""
        said, told = io.StringIO(), io.StringIO()
        line = ["--config", str(self.top / "device.toml"), "--json", *words]
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(told):
            code = device_main(line, os.environ)
        assert code == 0, f"{words}: {code}\n{told.getvalue()}"
        return json.loads(said.getvalue())
