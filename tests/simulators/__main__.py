"""The services of the tests by hand: `sh infra/dev/services s3 vault`.

Each is started as the tests start it, on loopback and on a free port, with a folder of its own.
What a command needs to find it is printed as `export` lines. Ctrl-C ends all of them, and their
data go.
"""

from __future__ import annotations

import argparse
import contextlib
import shlex
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.simulators.seaweed import ACCESS, SECRET, seaweed
from tests.simulators.services import PIN, SoftHsm, ministack, openbao

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

BUCKET, LABEL = "firmware", "acme"
DAY = 86_400


@contextlib.contextmanager
def s3(directory: Path) -> Iterator[tuple[Mapping[str, str], str]]:
    """SeaweedFS with an empty bucket."""
    with seaweed(directory) as service:
        service.client().create_bucket(Bucket=BUCKET)
        keys = {"AWS_ACCESS_KEY_ID": ACCESS, "AWS_SECRET_ACCESS_KEY": SECRET}
        url = f"s3://{BUCKET}/acme?endpoint={service.endpoint}"
        yield {**keys, "AWS_REGION": "us-east-1"}, f"firmroot init acme --storage '{url}'"


@contextlib.contextmanager
def vault(directory: Path) -> Iterator[tuple[Mapping[str, str], str]]:
    """OpenBao with a transit engine and a key."""
    import hvac

    with openbao(directory) as environment:
        client = hvac.Client(environment["VAULT_ADDR"], environment["VAULT_TOKEN"])
        client.sys.enable_secrets_engine("transit")
        client.secrets.transit.create_key("publisher", key_type="ed25519")
        yield (
            environment,
            "firmroot key import hv:publisher --name online --role snapshot --role timestamp",
        )


@contextlib.contextmanager
def aws(directory: Path) -> Iterator[tuple[Mapping[str, str], str]]:
    """An emulator of AWS that asks who may do what; its bearer is the root user."""
    with ministack(directory, auth=True) as environment:
        yield environment, "the stacks of infra/aws can be made there, with RequireTls=false"


@contextlib.contextmanager
def token(directory: Path) -> Iterator[tuple[Mapping[str, str], str]]:
    """A token of SoftHSM with a key."""
    made = SoftHsm(directory)
    made.token(LABEL)
    made.key(LABEL, 1, "secp256r1")
    yield made.environment, f"firmroot key import 'hsm:1?label={LABEL}' --name it  # PIN: {PIN}"


SERVICES = {"s3": s3, "vault": vault, "aws": aws, "token": token}


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


def main() -> int:
    """Start what is named; say how to find it; wait."""
    parser = argparse.ArgumentParser(prog="infra/dev/services", description=__doc__)
    parser.add_argument("service", nargs="+", choices=sorted(SERVICES))
    wanted = parser.parse_args().service
    signal.signal(signal.SIGTERM, _interrupt)
    with contextlib.ExitStack() as stack:
        try:
            for name in dict.fromkeys(wanted):
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=f"{name}-")))
                environment, hint = stack.enter_context(SERVICES[name](folder))
                print(f"# {name}: {hint}")
                for key, value in environment.items():
                    print(f"export {key}={shlex.quote(value)}")
            print("# ready; Ctrl-C ends it", flush=True)
            while True:
                time.sleep(DAY)
        except KeyboardInterrupt:
            return 0
        except (pytest.skip.Exception, pytest.fail.Exception) as error:
            print(f"error: {error.msg}", file=sys.stderr)
            return 2


if __name__ == "__main__":
    sys.exit(main())
