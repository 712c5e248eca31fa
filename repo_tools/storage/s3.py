"""A repository on S3, or on anything that speaks it: conditional writes and checksums.

`s3://bucket/prefix`, and `?endpoint=https://host` for one that is not AWS. With `?roots=hold` each
root is created under a legal hold, where the bucket has object lock. Credentials and region come by
the usual chain of the SDK (environment, profile, role of the machine), never from us.

Rules:

* Create-only is `If-None-Match: *`, replace-if-unchanged is `If-Match` with the ETag that was read.
  Each upload carries its SHA-256 and the storage refuses bytes that do not match.
* An answer may be lost after the request was executed, and the SDK then sends it again: a refused
  condition (412) is therefore looked at, and is no rival if what is there is what we wrote.
* A service that ignores conditions lets rivals overwrite each other in silence. So the first object
  that is created is offered once more, under conditions that cannot hold: who does not refuse is
  refused.
* 409 (two writers at one moment) and 503 are asked again, after pauses; what still fails is "retry
  later", and running the command again resumes.
* 403 is never "not there": without permission to list, S3 answers so for both, and to take a root
  for absent that is there would fork the chain. It is an error that names the permission.
* A large object goes up in parts, several at a time. Parts that an interrupted publish left are
  used again if their checksums are those of the source; the last request creates the object.
* What an object holds is told by the checksum that the storage computed, never by metadata that its
  writer could choose.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import os
import re
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias
from urllib.parse import parse_qs, urlsplit

from client_reference.errors import (
    ConfigurationError,
    FirmrootError,
    LockedError,
    NotFoundError,
    NotTrustedError,
    RefusedError,
    RetryLaterError,
)
from repo_tools.sdks import show
from repo_tools.storage.protocol import (
    AccessDeniedError,
    Blob,
    Created,
    Entry,
    Unfinished,
    check_path,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path


S3Client: TypeAlias = Any
"""The SDK's; it is not there in every environment."""

__all__ = ["Place", "S3Storage", "disconnect", "parse_place"]

PART = 8 << 20
"""Bytes of a part; more for an object that would have too many of them."""
_MOST_PARTS = 10_000
LARGE = 32 << 20
"""From so many bytes on an object goes up in parts."""
WORKERS = 8
ATTEMPTS = 5
CONFLICTS = 5
"""How often a 409 is asked again; the SDK does not."""
PAUSE = 0.2
"""Seconds before a 409 is asked again; each further one waits twice as long."""
_NEVER = '"00000000000000000000000000000000"'
"""An ETag that no object has."""
_AT_ONCE = 1000
_CHUNK = 1 << 20
_WINDOW = 1 << 20
_IMMUTABLE = "public, max-age=31536000, immutable"
_BRIEF = "public, max-age=60"


@dataclass(frozen=True)
class Place:
    """Where a repository is.

    Attributes:
        bucket: its name.
        prefix: what every key begins with; empty, or ends with a slash.
        endpoint: URL of the service; empty for AWS.
        held: roots are created under a legal hold: no version of one goes before that is lifted.
    """

    bucket: str
    prefix: str
    endpoint: str
    held: bool = False


def parse_place(url: str) -> Place:
    """Read `s3://bucket/prefix?endpoint=URL&roots=hold`.

    Raises:
        ConfigurationError: it is something else.
    """
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise ConfigurationError(f"{url!r} is not a storage on S3: {error}", _FORM) from error
    query = parse_qs(parts.query, keep_blank_values=True)
    endpoint = query.pop("endpoint", None)
    roots = query.pop("roots", [""])[-1]
    if roots not in {"", "hold"}:
        raise ConfigurationError(
            f"{url!r}: roots={roots}: expected roots=hold",
            "it asks for a legal hold on each root, on a bucket with object lock",
        )
    prefix = parts.path.strip("/")
    if (
        parts.scheme != "s3"
        or not _BUCKET.fullmatch(parts.netloc)
        or not {".", ".."}.isdisjoint(prefix.split("/"))
        or query
        or parts.fragment
    ):
        raise ConfigurationError(f"{url!r} is not a storage on S3", _FORM)
    # Empty is a variable that was not set: to go to AWS with it would be somebody else's bucket.
    if endpoint is not None and not _is_endpoint(endpoint[-1]):
        raise ConfigurationError(
            f"{url!r}: the endpoint must begin with https:// or http:// and name a host, "
            f"found {endpoint[-1]!r}",
            _FORM,
        )
    return Place(
        parts.netloc.lower(),
        f"{prefix}/" if prefix else "",
        endpoint[-1] if endpoint else "",
        roots == "hold",
    )


_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")
_FORM = (
    "it is s3://BUCKET or s3://BUCKET/PREFIX, and for a service that is not AWS "
    "s3://BUCKET/PREFIX?endpoint=https://HOST"
)


def _is_endpoint(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # no port, or no address
        return False


def connect(place: Place) -> S3Client:
    """The client of this process: as `make_client`, once, since it is slow to make."""
    # A child that a process forked off must not speak on the connections of its parent: each would
    # read the other's answers.
    return _connect(place, os.getpid())


@cache
def _connect(place: Place, _process: int) -> S3Client:
    return make_client(place)


def disconnect() -> None:
    """Forget the clients of this process, which keep the credentials that they were made with."""
    _connect.cache_clear()


def make_client(place: Place) -> S3Client:
    """A client by the SDK's own chain of credentials, with connections of its own.

    Raises:
        ConfigurationError: the SDK is not installed, or has no region or profile to work with.
    """
    show()
    try:
        import boto3  # noqa: PLC0415 # a fifth of a second, for those whose storage it is
        from botocore.config import Config  # noqa: PLC0415 # likewise
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 # likewise
    except ImportError as error:
        raise ConfigurationError(
            "the storage is on S3, and boto3 is not installed", "pip install 'firmroot[s3]'"
        ) from error
    settings = Config(
        retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
        request_checksum_calculation="when_supported",
        response_checksum_validation="when_supported",
        connect_timeout=15,
        read_timeout=60,
        max_pool_connections=WORKERS + 2,
        # A bucket of another service need not have a name of its own in the DNS.
        s3={"addressing_style": "path" if place.endpoint else "auto"},
    )
    try:
        client: S3Client = boto3.session.Session().client(
            "s3", endpoint_url=place.endpoint or None, config=settings
        )
    except (BotoCoreError, ValueError) as error:
        raise ConfigurationError(
            f"no connection to S3 can be made: {error}",
            "set AWS_REGION and AWS_PROFILE, or what your credentials need",
        ) from error

    def refuse(**_: object) -> None:
        # The SDK asks it for the region of a bucket when it is redirected, and of a service that
        # redirects that too, without a region, it asks until the stack ends.
        raise ClientError({"ResponseMetadata": {"HTTPHeaders": {}}}, "HeadBucket")

    client.meta.events.register("before-call.s3.HeadBucket", refuse)
    return client


class S3Storage:
    """Objects in one bucket, below one prefix. See `repo_tools.storage.protocol.Storage`.

    Args:
        url: as written in `firmroot.toml`.
        client: of the SDK; made at the first request if not given.
        part: bytes of a part of a large object.
        large: from so many bytes on an object goes up in parts.
        proof: a file that says which storages are known to refuse what they must; without one it
            is asked anew.
    """

    def __init__(
        self,
        url: str,
        client: S3Client | None = None,
        *,
        part: int = PART,
        large: int = LARGE,
        proof: Path | None = None,
    ) -> None:
        self._url = url
        self._place = parse_place(url)
        self._made = client
        self._lock = threading.Lock()
        self._part = part
        self._large = large
        self._proof = proof
        self._proven = False

    @property
    def url(self) -> str:
        """How this storage is written in `firmroot.toml`."""
        return self._url

    @property
    def _client(self) -> S3Client:
        with self._lock:
            if self._made is None:
                self._made = connect(self._place)
            return self._made

    def read(self, path: str, max_length: int) -> Blob:
        """One whole object; its tag is its ETag. See `Storage.read`."""
        with self._failures(path):
            answer = self._client.get_object(**self._at(path))
            with contextlib.closing(answer["Body"]) as body:
                if answer["ContentLength"] > max_length:
                    raise NotTrustedError(f"{path} is longer than the {max_length} bytes allowed")
                data = body.read()
            if tag := answer.get("ETag"):
                return Blob(data, tag)
            raise RetryLaterError(f"{path} in {self._url}: the service names no ETag of it", _AGAIN)

    @contextlib.contextmanager
    def open(self, path: str) -> Iterator[BinaryIO]:
        """A seekable stream of one object, read in ranges of one version. See `Storage.open`."""
        with self._failures(path):
            head = self._head(path)
        raw = _Ranges(
            lambda first, last: self._range(path, head["ETag"], first, last),
            head["ContentLength"],
        )
        with io.BufferedReader(raw, _WINDOW) as stream:
            yield stream

    def create(self, path: str, source: bytes | Path, sha256: str) -> Created:
        """Create the object, or find the identical one. See `Storage.create`."""
        check_path(path)
        with self._failures(path):
            length = len(source) if isinstance(source, bytes) else source.stat().st_size
            if length >= self._large:
                # Gigabytes are not sent in vain.
                if self._is_there(path, source, sha256):
                    return Created.IDENTICAL
                return self._create_in_parts(path, source, length, sha256)
            data = source if isinstance(source, bytes) else source.read_bytes()
            _require_digest(path, hashlib.sha256(data).hexdigest(), sha256)
            written = self._conditional(
                path,
                lambda: self._client.put_object(
                    **self._at(path),
                    Body=data,
                    IfNoneMatch="*",
                    ChecksumSHA256=_base64(sha256),
                    CacheControl=_IMMUTABLE,
                    ContentType=_content_type(path),
                    **self._hold(path),
                ),
            )
            if written is None and not self._is_there(path, source, sha256):
                raise RetryLaterError(f"{path} in {self._url}: was there, and is gone again")
            self._prove(path, data)
            return Created.IDENTICAL if written is None else Created.NEW

    def replace(self, path: str, data: bytes, tag: str | None) -> str:
        """Replace the object if its ETag is still `tag`. See `Storage.replace`."""
        check_path(path)
        condition = {"IfNoneMatch": "*"} if tag is None else {"IfMatch": tag}
        with self._failures(path):
            written = self._conditional(
                path,
                lambda: self._client.put_object(
                    **self._at(path),
                    Body=data,
                    ChecksumSHA256=_base64(hashlib.sha256(data).hexdigest()),
                    CacheControl=_BRIEF,
                    ContentType=_content_type(path),
                    **condition,
                ),
            )
        if written is not None and (tag := written.get("ETag")):
            return str(tag)
        # Refused; or executed, the answer lost, and refused when the SDK asked again.
        with contextlib.suppress(NotFoundError, NotTrustedError):
            found = self.read(path, len(data))
            if found.data == data:
                return found.tag
        raise LockedError(
            f"{path} changed since it was read: somebody else published",
            "run the command again; it starts from what is live now",
        )

    def remove(self, path: str) -> None:
        """Remove an object, or find it gone. See `Storage.remove`."""
        check_path(path)
        with self._failures(path):
            self._client.delete_object(**self._at(path))

    def remove_all(self, paths: Sequence[str]) -> None:
        """Up to 1,000 objects with one request. See `Storage.remove_all`."""
        for path in paths:
            check_path(path)
        for first in range(0, len(paths), _AT_ONCE):
            some = paths[first : first + _AT_ONCE]
            with self._failures(some[0]):
                keys = [{"Key": self._place.prefix + path} for path in some]
                answer = self._client.delete_objects(
                    Bucket=self._place.bucket, Delete={"Objects": keys, "Quiet": True}
                )
            for error in answer.get("Errors", ()):
                raise _not_removed(error, self._url)

    def unfinished(self, before: datetime) -> Sequence[Unfinished]:
        """Uploads in parts that nobody completed. See `Storage.unfinished`."""
        with self._failures("the unfinished uploads"):
            pages = self._client.get_paginator("list_multipart_uploads").paginate(
                Bucket=self._place.bucket, Prefix=self._place.prefix
            )
            return [
                Unfinished(
                    one["Key"].removeprefix(self._place.prefix), one["UploadId"], one["Initiated"]
                )
                for page in pages
                for one in page.get("Uploads", ())
                if one["Initiated"] < before
            ]

    def abandon(self, upload: Unfinished) -> None:
        """Drop its parts. See `Storage.abandon`."""
        with contextlib.suppress(NotFoundError), self._failures(upload.path):
            self._client.abort_multipart_upload(**self._at(upload.path), UploadId=upload.id)

    def paths(self, prefix: str) -> Iterator[str]:
        """Every object under a prefix, sorted. See `Storage.paths`."""
        yield from (entry.path for entry in self.entries(prefix))

    def entries(self, prefix: str) -> Iterator[Entry]:
        """The same with size and age. See `Storage.entries`."""
        with self._failures(prefix or "the listing"):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._place.bucket, Prefix=self._place.prefix + prefix
            )
            # By the bytes of UTF-8, page by page: S3's own order (general purpose buckets).
            for page in pages:
                for found in page.get("Contents", ()):
                    path = found["Key"].removeprefix(self._place.prefix)
                    yield Entry(path, found["Size"], found["LastModified"])

    # One request

    def _at(self, path: str) -> dict[str, Any]:
        check_path(path)
        return {"Bucket": self._place.bucket, "Key": self._place.prefix + path}

    def _head(self, path: str) -> Mapping[str, Any]:
        """What an object is, without its bytes."""
        client = self._client
        try:
            head: Mapping[str, Any] = client.head_object(**self._at(path), ChecksumMode="ENABLED")
        except client.exceptions.ClientError as error:
            if _status(error) in {400, 403}:
                # Such an answer has no body, and so no reason: expired credentials, a wrong key or
                # clock and a missing permission look alike. The same question with one is told it.
                client.get_object(**self._at(path))["Body"].close()
            raise
        return head

    def _hold(self, path: str) -> dict[str, str]:
        """With the first byte, so that no root is ever there without it."""
        held = self._place.held and path.endswith(".root.json")
        return {"ObjectLockLegalHoldStatus": "ON"} if held else {}

    def _range(self, path: str, tag: str, first: int, last: int) -> bytes:
        with self._failures(path):
            answer = self._client.get_object(
                **self._at(path), Range=f"bytes={first}-{last}", IfMatch=tag
            )
            with contextlib.closing(answer["Body"]) as body:
                data: bytes = body.read()
            return data

    def _conditional(self, path: str, request: Callable[[], Any]) -> Any:  # noqa: ANN401 # the SDK's answer
        """Send a conditional write; None if its condition does not hold."""
        from botocore.exceptions import ClientError  # noqa: PLC0415 # only who is connected

        for attempt in range(CONFLICTS):
            try:
                return request()
            except ClientError as error:
                status = _status(error)
                # 404: `If-Match` on an object that is gone.
                if status in {404, 412} and _code(error) != "NoSuchBucket":
                    return None
                if status != 409 or attempt == CONFLICTS - 1:  # noqa: PLR2004 # RFC 9110
                    raise
                time.sleep(PAUSE * 2**attempt)
        raise RetryLaterError(f"{path} in {self._url}: conflicts again and again")

    def _prove(self, path: str, data: bytes) -> None:
        """Whether conditions are heeded; of an object that is there, with the bytes that it has.

        Raises:
            ConfigurationError: they are not. Nothing changed: the bytes are the same.
        """
        from botocore.exceptions import ClientError  # noqa: PLC0415 # only who is connected

        if self._proven or self._is_noted():
            return
        for condition, name in (
            ({"IfNoneMatch": "*"}, "If-None-Match"),
            ({"IfMatch": _NEVER}, "If-Match"),
        ):
            try:
                self._client.put_object(
                    **self._at(path), Body=data, CacheControl=_IMMUTABLE, **condition
                )
            except ClientError as error:
                # A policy of the bucket may demand the other condition; that refuses as well.
                if _status(error) in {409, 412} or _code(error) == "AccessDenied":
                    continue
                raise
            raise ConfigurationError(
                f"{self._url}: this service ignores conditional writes: it was asked to write "
                f"{path}, which is there, only if {name} holds, which it does not, and wrote it; "
                "expected 412. Two publishers at once would overwrite each other there",
                "publish to a service that has them (AWS S3, SeaweedFS, MinIO, Ceph do; a gateway "
                "in front of one may drop the header)",
            )
        self._proven = True
        if self._proof is not None:
            self._proof.parent.mkdir(parents=True, exist_ok=True)
            with self._proof.open("a", encoding="utf-8") as file:
                file.write(f"{self._url}\n")

    def _is_noted(self) -> bool:
        if self._proof is None or not self._proof.exists():
            return False
        return self._url in self._proof.read_text("utf-8").splitlines()

    def _is_there(self, path: str, source: bytes | Path, sha256: str) -> bool:
        """Whether the identical object is there; a different one is a rival."""
        try:
            head = self._head(path)
        except self._client.exceptions.ClientError as error:
            if _status(error) == 404:  # noqa: PLR2004 # RFC 9110
                return False
            raise
        stored = head.get("ChecksumSHA256", "")
        length = len(source) if isinstance(source, bytes) else source.stat().st_size
        if stored == _base64(sha256):
            return True
        if head["ContentLength"] == length and self._same_parts(stored, source):
            return True
        if not stored or "-" in stored:
            # Written by other means, or in other parts: only its bytes tell.
            digest = hashlib.sha256()
            with self.open(path) as stream:
                for piece in _pieces(stream, _CHUNK):
                    digest.update(piece)
            found = digest.hexdigest()
            if found == sha256:
                return True
        else:
            found = base64.b64decode(stored).hex()
        raise LockedError(
            f"{path} exists with sha256 {found}, expected {sha256}: a rival published it",
            "run the command again; it starts from what is live now",
        )

    def _same_parts(self, stored: str, source: bytes | Path) -> bool:
        """Whether a checksum of checksums is that of the source in parts of our size."""
        if "-" not in stored or isinstance(source, bytes):
            return False
        size = self._part_of(source.stat().st_size)
        with source.open("rb") as file:
            digests = [hashlib.sha256(piece).digest() for piece in _pieces(file, size)]
        whole = base64.b64encode(hashlib.sha256(b"".join(digests)).digest()).decode()
        return stored == f"{whole}-{len(digests)}"

    # Large objects

    def _create_in_parts(
        self, path: str, source: bytes | Path, length: int, sha256: str
    ) -> Created:
        """Whoever completes it first creates the object; the other finds the identical one."""
        written = False
        try:
            written = self._upload(path, source, length, sha256)
        except self._client.exceptions.ClientError as error:
            # Somebody ended it: a publisher that went on with the same one, a clean-up, a rule of
            # the bucket.
            if _code(error) != "NoSuchUpload":
                raise
        if written:
            return Created.NEW
        if self._is_there(path, source, sha256):
            return Created.IDENTICAL
        raise RetryLaterError(
            f"{path} in {self._url}: not all of its {length} bytes arrived, and the upload is gone",
            _AGAIN,
        )

    def _upload(self, path: str, source: bytes | Path, length: int, sha256: str) -> bool:
        """Read once: what is read for the digest of the whole is what is sent.

        Returns:
            whether the object was created; otherwise there is one, or the upload is gone.
        """
        upload, listed = self._begin(path)
        try:
            parts = self._send_parts(path, source, length, sha256, (upload, listed))
        except RefusedError:
            # The source has changed: what was sent of it is of no use to anybody.
            self._client.abort_multipart_upload(**self._at(path), UploadId=upload)
            raise
        try:
            written = self._conditional(
                path,
                lambda: self._client.complete_multipart_upload(
                    **self._at(path),
                    UploadId=upload,
                    MultipartUpload={"Parts": parts},
                    IfNoneMatch="*",
                ),
            )
        except self._client.exceptions.ClientError as error:
            if _status(error) == 400:  # noqa: PLR2004 # RFC 9110: a part is not what it seemed
                self._client.abort_multipart_upload(**self._at(path), UploadId=upload)
            raise
        return written is not None

    def _send_parts(
        self,
        path: str,
        source: bytes | Path,
        length: int,
        sha256: str,
        begun: tuple[str, Mapping[int, Mapping[str, Any]]],
    ) -> list[dict[str, Any]]:
        """Send every part that is not there yet, some at a time; what the last request names.

        Raises:
            RefusedError: the source does not have that digest.
        """
        upload, listed = begun
        whole = hashlib.sha256()
        sent: list[Future[dict[str, Any]]] = []
        # As many parts are in memory as there are workers, and one that waits for one.
        free = threading.Semaphore(WORKERS + 1)

        def send(number: int, data: bytes) -> dict[str, Any]:
            try:
                digest = hashlib.sha256(data)
                part = {"PartNumber": number, "ChecksumSHA256": _base64(digest.hexdigest())}
                if (there := listed.get(number)) and _is_part(there, data, digest.digest()):
                    return {**part, "ETag": there["ETag"]}
                answer = self._client.upload_part(
                    **self._at(path), **part, UploadId=upload, Body=data
                )
                return {**part, "ETag": answer["ETag"]}
            finally:
                free.release()

        with (
            io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as file,
            ThreadPoolExecutor(WORKERS) as pool,
        ):
            for number, data in enumerate(_pieces(file, self._part_of(length)), 1):
                free.acquire()
                if any(each.done() and each.exception() for each in sent[-2 * WORKERS :]):
                    break
                sent.append(pool.submit(send, number, data))
                whole.update(data)
        parts = [each.result() for each in sent]
        _require_digest(path, whole.hexdigest(), sha256)
        return parts

    def _part_of(self, length: int) -> int:
        """Bytes of each part of an object: S3 takes 10,000 at most."""
        return max(self._part, -(-length // _MOST_PARTS))

    def _begin(self, path: str) -> tuple[str, Mapping[int, Mapping[str, Any]]]:
        """An upload to go on with, and its parts by number; with luck one that was interrupted."""
        at = self._at(path)
        open_ones = self._client.list_multipart_uploads(Bucket=at["Bucket"], Prefix=at["Key"]).get(
            "Uploads", []
        )
        for one in open_ones:
            if one["Key"] != at["Key"]:
                continue
            pages = self._client.get_paginator("list_parts").paginate(
                **at, UploadId=one["UploadId"]
            )
            there = {part["PartNumber"]: part for page in pages for part in page.get("Parts", ())}
            if there:
                return one["UploadId"], there
        begun = self._client.create_multipart_upload(
            **at, ChecksumAlgorithm="SHA256", CacheControl=_IMMUTABLE
        )
        return begun["UploadId"], {}

    @contextlib.contextmanager
    def _failures(self, path: str) -> Iterator[None]:
        """The one place where errors of the SDK become those of the protocol."""
        try:
            yield
        except FirmrootError:
            raise
        except Exception as error:
            raise _translated(error, path, self._url) from error


class _Ranges(io.RawIOBase):
    """A seekable stream over requests for ranges."""

    def __init__(self, fetch: Callable[[int, int], bytes], length: int) -> None:
        self._fetch = fetch
        self._length = length
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._length}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 # as io.RawIOBase
        wanted = min(len(buffer), self._length - self._at)
        if wanted <= 0:
            return 0
        data = self._fetch(self._at, self._at + wanted - 1)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def _is_part(listed: Mapping[str, Any], data: bytes, digest: bytes) -> bool:
    """Whether an uploaded part is this one, so far as the listing tells.

    Not every service lists checksums; every one compares those of the last request with its own
    before the object exists. MD5 is what ETags are made of, no proof of anything.
    """
    if checksum := listed.get("ChecksumSHA256"):
        return bool(checksum == base64.b64encode(digest).decode())
    md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
    return bool(listed["ETag"].strip('"') == md5)


def _pieces(file: BinaryIO, size: int) -> Iterator[bytes]:
    while piece := file.read(size):
        yield piece


def _require_digest(path: str, found: str, expected: str) -> None:
    if found != expected:
        raise RefusedError(
            f"{path}: expected sha256 {expected}, the source has {found}",
            "the file changed while it was read; add it again",
        )


def _content_type(path: str) -> str:
    """What an object is. A CDN compresses what it is told is JSON: a snapshot of many bins is."""
    named = path.startswith("metadata/") and path.endswith(".json")
    return "application/json" if named else "application/octet-stream"


def _base64(sha256: str) -> str:
    return base64.b64encode(bytes.fromhex(sha256)).decode()


def _status(error: Any) -> int:  # noqa: ANN401 # a ClientError; importing it here costs everybody
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _code(error: Any) -> str:  # noqa: ANN401 # likewise
    return str(error.response.get("Error", {}).get("Code", ""))


_CREDENTIALS = {
    "InvalidAccessKeyId": "this access key does not exist there",
    "SignatureDoesNotMatch": "the secret key is wrong",
    "ExpiredToken": "the credentials have expired",
    "ExpiredTokenException": "the credentials have expired",
    "InvalidToken": "the session token is wrong",
}
_REGION = {
    "PermanentRedirect",
    "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException",
}
_PERMISSION = {
    "GetObject": "s3:GetObject",
    "HeadObject": "s3:GetObject",
    "PutObject": "s3:PutObject",
    "CreateMultipartUpload": "s3:PutObject",
    "UploadPart": "s3:PutObject",
    "CompleteMultipartUpload": "s3:PutObject",
    "DeleteObject": "s3:DeleteObject",
    "DeleteObjects": "s3:DeleteObject",
    "ListParts": "s3:ListMultipartUploadParts",
    "AbortMultipartUpload": "s3:AbortMultipartUpload",
}
_ON_BUCKET = {
    "ListObjectsV2": "s3:ListBucket",
    "ListMultipartUploads": "s3:ListBucketMultipartUploads",
}


def _translated(  # noqa: PLR0911 # one for each thing that can be wrong
    error: Exception, path: str, url: str
) -> FirmrootError:
    """What an error of the SDK means to whoever publishes."""
    from botocore import exceptions as sdk  # noqa: PLC0415 # only who is connected

    place = f"{path} in {url}"
    match error:
        case sdk.ClientError():
            return _answered(error, path, url)
        case sdk.NoCredentialsError() | sdk.PartialCredentialsError() | sdk.ProfileNotFound():
            return ConfigurationError(
                f"{place}: {error}", "sign in, or set AWS_PROFILE or AWS_ACCESS_KEY_ID"
            )
        case sdk.TokenRetrievalError() | sdk.SSOError() | sdk.CredentialRetrievalError():
            return ConfigurationError(f"{place}: {error}", _SIGN_IN)
        case sdk.ParamValidationError():
            return ConfigurationError(f"{place}: {error}", _FORM)
        case sdk.NoRegionError():
            return ConfigurationError(f"{place}: {error}", "set AWS_REGION")
        case sdk.FlexibleChecksumError():
            return RetryLaterError(
                f"{place}: the bytes that arrived are not those of its checksum", _AGAIN
            )
        case sdk.BotoCoreError() | OSError():
            return RetryLaterError(f"{place}: {error}", _AGAIN)
    raise error


_AGAIN = "run the same command again; what was stored stays"
_SIGN_IN = f"sign in again, then {_AGAIN}"


def _answered(  # noqa: PLR0911 # one for each thing that can be wrong
    error: Any,  # noqa: ANN401 # a ClientError
    path: str,
    url: str,
) -> FirmrootError:
    place, status, code = f"{path} in {url}", _status(error), _code(error)
    if code in _CREDENTIALS:
        return ConfigurationError(f"{place}: {_CREDENTIALS[code]} ({code})", _SIGN_IN)
    if code == "RequestTimeTooSkewed":
        return ConfigurationError(f"{place}: {_clocks(error)}", "set the clock (NTP), then run it")
    if code in _REGION or status == 301:  # noqa: PLR2004 # RFC 9110
        return _elsewhere(error, place)
    if code == "InvalidRequest" and "ObjectLock" in str(error):
        return ConfigurationError(
            f"{place}: the bucket has no object lock, so that no root can be held (roots=hold)",
            "take `?roots=hold` out of `storage`, or make a bucket with object lock",
        )
    if code == "NoSuchBucket":
        return ConfigurationError(
            f"{place}: there is no such bucket ({code})",
            "correct its name where it is written (`storage` or `recovery_storage` in "
            "firmroot.toml, or the command), or make the bucket",
        )
    if code == "NotImplemented" or status == 501:  # noqa: PLR2004 # RFC 9110
        return ConfigurationError(
            f"{place}: this service does not know conditional writes, without which rivals "
            f"overwrite each other, or checksums ({error})",
            "publish to a service that has them",
        )
    if status == 404:  # noqa: PLR2004 # RFC 9110
        return NotFoundError(f"{place}: not there")
    if status in {401, 403}:
        return _denied(error, path, url)
    if status == 412:  # noqa: PLR2004 # RFC 9110
        return RetryLaterError(f"{place}: changed while it was read", _AGAIN)
    return RetryLaterError(f"{place}: {error}", _AGAIN)


def _not_removed(error: Mapping[str, Any], url: str) -> FirmrootError:
    """One object of many that could not be removed."""
    place, code = f"{error.get('Key', '?')} in {url}", error.get("Code", "")
    if code == "AccessDenied":
        at = parse_place(url)
        return ConfigurationError(
            f"{place}: access denied to DeleteObject ({error.get('Message', '')})",
            f"these credentials need s3:DeleteObject on arn:aws:s3:::{at.bucket}/{at.prefix}*; an "
            "object that is locked goes when its lock has ended",
        )
    return RetryLaterError(f"{place}: not removed ({code}: {error.get('Message', '')})", _AGAIN)


def _clocks(error: Any) -> str:  # noqa: ANN401 # a ClientError
    """Both clocks, so far as the answer tells."""
    told = error.response.get("Error", {})
    here, there = told.get("RequestTime"), told.get("ServerTime")
    both = f": it says {here}, the service says {there}" if here and there else ""
    return f"the clock of this machine is wrong{both} (RequestTimeTooSkewed)"


def _elsewhere(error: Any, place: str) -> ConfigurationError:  # noqa: ANN401 # a ClientError
    """The bucket is in another region, which the answer may name."""
    headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    region = error.response.get("Error", {}).get("Region") or headers.get("x-amz-bucket-region")
    where = f"in region {region}" if region else "in another region"
    return ConfigurationError(
        f"{place}: the bucket is {where}, and was asked for in another one ({error})",
        f"set AWS_REGION={region}" if region else "set AWS_REGION to the region of the bucket",
    )


def _denied(error: Any, path: str, url: str) -> AccessDeniedError:  # noqa: ANN401 # a ClientError
    """No permission: which one, for what."""
    at = parse_place(url)
    operation = str(error.operation_name)
    if operation in _ON_BUCKET:
        needed = f"{_ON_BUCKET[operation]} on arn:aws:s3:::{at.bucket}"
    else:
        permission = _PERMISSION.get(operation, f"s3:{operation}")
        needed = f"{permission} on arn:aws:s3:::{at.bucket}/{at.prefix}*"
    reading = operation in {"GetObject", "HeadObject"}
    absent = (
        f"; if the object is not there: s3:ListBucket on arn:aws:s3:::{at.bucket}, without which "
        "S3 answers so for that as well"
        if reading
        else ""
    )
    return AccessDeniedError(
        f"{path} in {url}: access denied to {operation} ({error})",
        f"these credentials need {needed}{absent}",
    )
