"""An account of AWS, emulated: stacks made from the templates of `infra/aws`, and who acts in it.

    with account(tmp_path) as aws:
        outputs = aws.create("acme", "repository", RequireTls="false")
        with aws.acting_as(outputs["PublisherRoleArn"]):
            ...

The emulator (ministack) asks who may do what. It does not know every condition key: those that it
lacks never hold (`tests/infra/test_aws.py` names them).
"""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from unittest.mock import patch
from urllib.parse import urlsplit

from repo_tools.storage.s3 import disconnect
from tests.simulators.services import ministack, missing

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

TEMPLATES = Path(__file__).parent.parent.parent / "infra/aws"
WITHIN = 60.0
NAMES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")


@dataclass(frozen=True)
class Account:
    """An account, and its root user.

    Attributes:
        environment: the variables of the root user.
    """

    environment: Mapping[str, str]
    _sessions: dict[str, Mapping[str, str]] = field(default_factory=dict)
    _clients: dict[tuple[str, str], Any] = field(default_factory=dict)

    @property
    def endpoint(self) -> str:
        """URL of the emulator."""
        return self.environment["AWS_ENDPOINT_URL"]

    def client(self, service: str, role: str = "") -> Any:  # noqa: ANN401 # the SDK's
        """A client of the SDK, of the root user or of a role."""
        import boto3
        from botocore.config import Config

        if (service, role) in self._clients:
            return self._clients[service, role]
        who = self.session(role) if role else self.environment
        session = boto3.session.Session(
            *(who.get(name) for name in NAMES), region_name=self.environment["AWS_REGION"]
        )
        # What is denied is denied; nothing is asked twice.
        config = Config(retries={"total_max_attempts": 1})
        made = session.client(service, endpoint_url=self.endpoint, config=config)
        self._clients[service, role] = made
        return made

    def session(self, role: str) -> Mapping[str, str]:
        """The variables of who has become a role."""
        if role not in self._sessions:
            made = self.client("sts").assume_role(RoleArn=role, RoleSessionName="it")
            found = made["Credentials"]
            values = (found[key] for key in ("AccessKeyId", "SecretAccessKey", "SessionToken"))
            self._sessions[role] = dict(zip(NAMES, values, strict=True))
        return self._sessions[role]

    @contextlib.contextmanager
    def acting_as(self, role: str = "") -> Iterator[None]:
        """In the block, commands of this process have the credentials of a role."""
        import boto3

        cleared = {name: os.environ[name] for name in os.environ if not name.startswith("AWS_")}
        who = {**self.environment, **(self.session(role) if role else {})}
        with patch.dict(os.environ, {**cleared, **who}, clear=True):
            # The signer for KMS uses the SDK's session of the process, a storage the client
            # that was made first: both keep credentials.
            boto3.setup_default_session()
            disconnect()
            try:
                yield
            finally:
                boto3.DEFAULT_SESSION = None
                disconnect()

    def create(self, stack: str, template: str, **parameters: str) -> dict[str, str]:
        """Make a stack from a template of `infra/aws`; its outputs."""
        return self._deploy("create", stack, template, parameters)

    def update(self, stack: str, template: str, **parameters: str) -> dict[str, str]:
        """Change a stack; its outputs."""
        return self._deploy("update", stack, template, parameters)

    def _deploy(
        self, what: str, stack: str, template: str, parameters: Mapping[str, str]
    ) -> dict[str, str]:
        formation = self.client("cloudformation")
        getattr(formation, f"{what}_stack")(
            StackName=stack,
            TemplateBody=(TEMPLATES / f"{template}.yaml").read_text(),
            Capabilities=["CAPABILITY_IAM"],
            Parameters=[
                {"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()
            ],
        )
        ends = time.monotonic() + WITHIN
        while True:
            found = formation.describe_stacks(StackName=stack)["Stacks"][0]
            if not found["StackStatus"].endswith("IN_PROGRESS"):
                break
            assert time.monotonic() < ends, found
            time.sleep(0.2)
        events = formation.describe_stack_events(StackName=stack)["StackEvents"]
        failed = [each for each in events if "FAILED" in each["ResourceStatus"]]
        said = (found.get("StackStatusReason"), failed)
        assert found["StackStatus"] == f"{what.upper()}_COMPLETE", said
        assert failed == []
        return {each["OutputKey"]: each["OutputValue"] for each in found.get("Outputs", ())}


@contextlib.contextmanager
def account(directory: Path) -> Iterator[Account]:
    """An empty account that asks who may do what."""
    try:
        import boto3  # noqa: F401 # only whether it is there
    except ImportError:
        missing("boto3 is not installed: sh scripts/bootstrap services")
    with ministack(directory, auth=True) as environment:
        yield Account(environment)
    for unpacked in directory.glob("ministack-lambda-*"):
        shutil.rmtree(unpacked)


@contextlib.contextmanager
def edge(aws: Account, distribution: str) -> Iterator[str]:
    """The URL of a distribution, over plain HTTP.

    Its name is in no DNS here, so this passes requests on under that name.
    """
    name = aws.client("cloudfront").get_distribution(Id=distribution)["Distribution"]["DomainName"]
    place = urlsplit(aws.endpoint)

    class Passing(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        dropped: ClassVar = {"connection", "transfer-encoding", "content-length", "date", "server"}

        def do_GET(self) -> None:  # of the standard library
            upstream = http.client.HTTPConnection(str(place.hostname), place.port, timeout=10)
            kept = {k: v for k, v in self.headers.items() if k.lower() != "host"}
            upstream.request("GET", self.path, headers={**kept, "Host": name})
            answer = upstream.getresponse()
            body = answer.read()
            upstream.close()
            self.send_response(answer.status)
            for key, value in answer.getheaders():
                if key.lower() not in self.dropped:
                    self.send_header(key, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Passing)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
