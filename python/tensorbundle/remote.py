# SPDX-License-Identifier: Apache-2.0
"""Checkpoints in remote stores: ``http(s)://``, ``s3://``, ``gs://`` and the other URLs of fsspec.

1. `locate` finds the files of a URL, by requests for the few names that they can have.
2. The core reads the index at once, and plans reads as for local files. It joins ranges of a file
   with short gaps into requests of at most 4 MiB, and makes several at a time (``io/file.h``).
3. `RemoteFile.read_into` answers one request, on a thread of the core: exactly the bytes that were
   asked for, of the version of the file that was opened, or an exception.

The only module that imports fsspec and requests.
"""

from __future__ import annotations

import abc
import contextlib
import errno
import hashlib
import importlib
import os
import re
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from tensorbundle.errors import (
    CheckpointNotFoundError,
    CorruptionError,
    Error,
    IOFailure,
    UnsupportedError,
)
from tensorbundle.filenames import (
    INDEX_SUFFIX,
    AnyPath,
    as_url,
    data_file_prefix,
    v1_pattern_parts,
    v1_shard,
)
from tensorbundle.paths import DirectoryWithoutCheckpointError, Location
from tensorbundle.state import DEFAULT_STATE_FILE
from tensorbundle.text_format import ParseError, parse_checkpoint_state

_THREADS = 16
# A host or a bucket without a path: not the beginning of a file's name.
_ROOT = re.compile(r"(?:.*::)?(?:https?|s3a?|gc?s)://[^/]*", re.IGNORECASE)
_CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)")
_ATTEMPTS = 5  # of a request that brings nothing
_MAX_REQUESTS = 64  # for one range, each of which brings a part of it
_PAUSE = 0.1  # seconds before the second attempt; doubled before each further one
_PIECE = 1 << 18  # bytes of a response that are read at a time
_HTTP_OPTIONS = {"auth", "cert", "headers", "proxies", "timeout", "verify"}
_TIMEOUT = 60.0  # seconds without a byte
_BLOCK = 1 << 20  # bytes of a file in the cache
_MAX_STATE = 1 << 20  # bytes of a state file


class RemoteFile(abc.ABC):
    """One version of a file in a store.

    Attributes:
        url: For messages.
        size: In bytes.
        version: A text that differs between versions of the file, or None if the store has none.
    """

    def __init__(self, url: str, size: int, version: str | None) -> None:
        self.url = url
        self.size = size
        self.version = version

    @abc.abstractmethod
    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fills a buffer with the bytes from `offset` on. Any thread may call it.

        Raises:
            CorruptionError: The file is another version now.
            CheckpointNotFoundError: The file was deleted.
            IOFailure: The store failed the read.
        """


class Store(abc.ABC):
    """A file system, or a server."""

    @abc.abstractmethod
    def open(self, url: str) -> RemoteFile:
        """Opens a file.

        Raises:
            CheckpointNotFoundError: There is no such file.
            UnsupportedError: The store cannot read a part of a file.
            IOFailure: The store failed.
        """

    def names_in(self, url: str) -> list[str] | None:  # noqa: ARG002
        """Returns the names in a directory; None if the store cannot list them."""
        return None


# ---- HTTP


class _HttpFile(RemoteFile):
    def __init__(self, store: _HttpStore, url: str, size: int, headers: Mapping[str, str]) -> None:
        self._store = store
        self._tag = headers.get("ETag")
        self._modified = headers.get("Last-Modified")
        super().__init__(url, size, self._tag or self._modified)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        done, failure, attempt = 0, "", 0
        for _ in range(_MAX_REQUESTS):
            if attempt == _ATTEMPTS:
                break
            if attempt:
                time.sleep(_PAUSE * 2**attempt)
            begin, end = offset + done, offset + len(buffer)
            with self._store.get(self.url, begin, end, self._if_match()) as response:
                self._check(response, begin, end)
                read, failure = self._store.read_body(response, buffer[done:])
            done += read
            attempt = 0 if read else attempt + 1
            if done == len(buffer):
                return
        raise IOFailure(
            f"cannot read {self.url} at offset {offset}: {done} of {len(buffer)} bytes came, then "
            f"none in {attempt} attempts ({failure})",
            errno.EIO,
            self.url,
        )

    def _if_match(self) -> dict[str, str]:
        is_strong = self._tag is not None and not self._tag.startswith("W/")
        return {"If-Match": str(self._tag)} if is_strong else {}

    def _check(self, response: Any, begin: int, end: int) -> None:
        """Raises unless a response has the bytes [begin, end) of this version."""
        if response.status_code == 412 or response.status_code == 416:
            raise _replaced(self.url)
        if response.status_code != 206:
            raise _status_error(self.url, response)
        tag, modified = response.headers.get("ETag"), response.headers.get("Last-Modified")
        if tag != self._tag or (tag is None and modified != self._modified):
            raise _replaced(self.url)
        header = response.headers.get("Content-Range", "")
        found = _CONTENT_RANGE.fullmatch(header)
        if found is None or found[1] is None or (int(found[1]), int(found[2])) != (begin, end - 1):
            raise IOFailure(
                f"cannot read {self.url}: the server was asked for bytes {begin}-{end - 1}, and "
                f"answered with {header or 'no Content-Range'!r}",
                errno.EIO,
                self.url,
            )
        if found[3] not in ("*", str(self.size)):
            raise _replaced(self.url)


class _HttpStore(Store):
    """Files of an HTTP server, which must serve ranges.

    A query in the URL of the checkpoint, such as a signature, is sent with each request.
    """

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:
        unknown = sorted(set(options) - _HTTP_OPTIONS)
        if unknown:
            raise ValueError(
                f"storage_options of {url!r} cannot have {unknown}; an HTTP server takes "
                f"{sorted(_HTTP_OPTIONS)}, which have the meaning that requests gives them"
            )
        _, self._query = _path_and_query(url)
        self._options = dict(options)
        self._timeout = self._options.pop("timeout", _TIMEOUT)
        self._sessions: dict[int, Any] = {}  # by process: a child must not share a connection

    def _session(self) -> Any:
        session = self._sessions.get(os.getpid())
        if session is None:
            requests = _import("requests", "the URL of an HTTP server")
            retry = _import("urllib3").Retry(
                _ATTEMPTS - 1,
                backoff_factor=2 * _PAUSE,
                status_forcelist=(408, 429, 500, 502, 503, 504),
                raise_on_status=False,
            )
            session = requests.Session()
            adapter = requests.adapters.HTTPAdapter(pool_maxsize=2 * _THREADS, max_retries=retry)
            for scheme in ("http://", "https://"):
                session.mount(scheme, adapter)
            for name, value in self._options.items():
                if name == "headers":
                    session.headers.update(value)
                else:
                    setattr(session, name, value)
            session = self._sessions.setdefault(os.getpid(), session)
        return session

    @contextlib.contextmanager
    def get(self, url: str, begin: int, end: int, headers: Mapping[str, str]) -> Iterator[Any]:
        """Requests bytes [begin, end) of a file, and yields the response, without its body."""
        wanted = {"Range": f"bytes={begin}-{end - 1}", "Accept-Encoding": "identity", **headers}
        session = self._session()
        with _store_errors(url):
            response = session.get(
                url + self._query, headers=wanted, stream=True, timeout=self._timeout
            )
        with response:
            yield response

    @staticmethod
    def read_body(response: Any, buffer: memoryview) -> tuple[int, str]:
        """Fills a buffer from a response. Returns the bytes that came, and why no more came."""
        done = 0
        try:
            while done < len(buffer):
                read = response.raw.readinto(buffer[done : done + _PIECE])
                if not read:
                    return done, "the body ended early"
                done += read
        except Exception as error:  # urllib3 and the modules below it have many classes
            first = error.args[0] if error.args else ""
            return done, first if isinstance(first, str) else str(error)
        return done, ""

    def open(self, url: str) -> RemoteFile:
        with self.get(url, 0, 1, {}) as response:
            headers, status = response.headers, response.status_code
            found = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", ""))
            if status == 206 and found is not None and found[3] != "*":
                return _HttpFile(self, url, int(found[3]), headers)
            is_empty = status == 416 and found is not None and found[3] == "0"
            if is_empty or (status == 200 and headers.get("Content-Length") == "0"):
                return _HttpFile(self, url, 0, headers)
            if status in (200, 206):
                raise UnsupportedError(
                    f"the server of {url} does not serve parts of a file, which are all that is "
                    "read of a remote checkpoint: download the checkpoint first"
                )
            raise _status_error(url, response)


def _is_http(url: str) -> bool:
    return url.lower().startswith(("http://", "https://"))


def _path_and_query(url: str) -> tuple[str, str]:
    """Returns the path of an HTTP URL, and its query with the ``?``.

    In the pattern of V1 shards ``?`` begins no query.
    """
    path, mark, query = url.partition("?")
    end = len(path) + len("?????-of-NNNNN")
    if v1_pattern_parts(url[:end]) is not None and url[end : end + 1] in ("", "?"):
        return url[:end], url[end:]
    return path, mark + query


def _replaced(url: str) -> CorruptionError:
    return CorruptionError(
        f"{url} was replaced since it was opened: it has another ETag, time or size; open the "
        "checkpoint again"
    )


def _status_error(url: str, response: Any) -> Error:
    status = response.status_code
    answer = f"the server answered {status} {response.reason or ''}".rstrip()
    if status in (404, 410):
        return CheckpointNotFoundError(f"no such file: {url} ({answer})", url)
    number = errno.EACCES if status in (401, 403, 407) else errno.EIO
    return IOFailure(f"cannot read {url}: {answer}", number, url)


# ---- fsspec


class _FsspecFile(RemoteFile):
    def __init__(self, file: Any, url: str, size: int, version: str | None) -> None:
        super().__init__(url, size, version)
        self._file = file
        self._lock = threading.Lock()  # the position of a file is shared
        # A range of a buffered file is one request, for this version of the file if the store can
        # ask for it. A wrapped file has a cache of its own, which is behind the position.
        self._fetch: Callable[[int, int], bytes] | None = None
        if "::" not in url and isinstance(file, _import("fsspec.spec").AbstractBufferedFile):
            self._fetch = file._fetch_range

    def read_into(self, offset: int, buffer: memoryview) -> None:
        data = b""
        for attempt in range(_ATTEMPTS):
            if attempt:
                time.sleep(_PAUSE * 2**attempt)
            with _store_errors(self.url):
                data = self._read(offset, len(buffer))
            if len(data) == len(buffer):
                buffer[:] = data
                return
        raise IOFailure(
            f"cannot read {self.url} at offset {offset}: {len(buffer)} bytes were asked for, "
            f"{len(data)} came, in {_ATTEMPTS} attempts",
            errno.EIO,
            self.url,
        )

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self._file.close()

    def _read(self, offset: int, size: int) -> bytes:
        if self._fetch is not None:
            return self._fetch(offset, offset + size)
        with self._lock:
            self._file.seek(offset)
            data: bytes = self._file.read(size)
            return data


class _FsspecStore(Store):
    def __init__(self, url: str, options: Mapping[str, Any]) -> None:
        self._core = _import("fsspec.core", f"the URL {url!r}")
        self._options = dict(options)
        self._find(url)

    def _find(self, url: str) -> tuple[Any, str]:
        """Returns fsspec's file system of a URL, and its path there."""
        try:
            with _store_errors(url):
                return self._core.url_to_fs(url, **self._options)  # type: ignore[no-any-return]
        except ImportError as error:
            raise ImportError(
                f"{error}; pip install 'tensorbundle[remote]' installs it for S3 and Google Cloud "
                "Storage"
            ) from None
        except ValueError as error:
            if "rotocol not known" not in str(error):
                raise
            raise UnsupportedError(f"fsspec knows no file system for {url!r}: {error}") from None

    def open(self, url: str) -> RemoteFile:
        system, path = self._find(url)
        with _store_errors(url):
            info = system.info(path)
            if info.get("type") == "directory":
                raise FileNotFoundError(path)
            is_wrapped = "::" in url  # and has a cache of its own
            file = system.open(path, "rb", **({} if is_wrapped else {"cache_type": "none"}))
        tags = (info.get(key) for key in ("ETag", "etag", "generation", "LastModified", "mtime"))
        version = next((str(tag) for tag in tags if tag), None)
        return _FsspecFile(file, url, int(info["size"]), version)

    def names_in(self, url: str) -> list[str] | None:
        system, path = self._find(url)
        try:
            with _store_errors(url):
                found = system.ls(path, detail=False)
        except CheckpointNotFoundError:
            return []
        except IOFailure:
            return None
        return [str(each).rstrip("/").rpartition("/")[2] for each in found]


@contextlib.contextmanager
def _store_errors(url: str) -> Iterator[None]:
    """Raises this package's exceptions in place of those of a library of a store."""
    try:
        yield
    except (Error, ImportError, TypeError, ValueError, MemoryError):
        raise
    except FileNotFoundError:
        raise CheckpointNotFoundError(f"no such file: {url}", url) from None
    except Exception as error:
        if type(error).__name__ == "FileExpired":  # of s3fs
            raise _replaced(url) from error
        cause = _system_error(error) or error
        text = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
        number = getattr(cause, "errno", None)
        if isinstance(cause, TimeoutError) or "timed out" in text.lower():
            number = errno.ETIMEDOUT
        if not isinstance(number, int) or number <= 0:  # names of hosts have negative numbers
            number = errno.EIO
        said = "" if text == os.strerror(number) else f" ({text})"  # IOFailure says the latter
        raise IOFailure(f"cannot read {url}{said}", number, url) from error


def _system_error(error: BaseException) -> OSError | None:
    """Returns the system's error behind those of the libraries, which repeat it at length."""
    seen: set[int] = set()
    while id(error) not in seen:
        if isinstance(error, TimeoutError) or (isinstance(error, OSError) and error.errno):
            return error
        seen.add(id(error))
        below = (error.__cause__, getattr(error, "reason", None), *error.args, error.__context__)
        error = next((each for each in below if isinstance(each, BaseException)), error)
    return None


def _import(name: str, purpose: str = "") -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            f"{purpose} needs the package {name.partition('.')[0]}: pip install "
            f"'tensorbundle[remote]' ({error})"
        ) from None


# ---- Cache on disk


class _CachedFile(RemoteFile):
    """A file whose blocks are kept on disk: ``<cache_dir>/<hash of URL and version>/<block>``.

    A block appears under its name when it is complete. Processes may share the directory. If the
    disk is full or the directory cannot be written to, blocks are read from the store.
    """

    def __init__(self, file: RemoteFile, directory: str) -> None:
        super().__init__(file.url, file.size, file.version)
        self._file = file
        name = hashlib.sha256(f"{file.url}\0{file.version}\0{file.size}".encode()).hexdigest()
        self._directory = os.path.join(directory, name[:32])

    def read_into(self, offset: int, buffer: memoryview) -> None:
        first, last = offset // _BLOCK, (offset + len(buffer) - 1) // _BLOCK
        blocks = {block: self._load(block) for block in range(first, last + 1)}
        missing = [block for block, data in blocks.items() if data is None]
        for begin, end in _runs(missing):
            start = begin * _BLOCK
            data = bytearray(min(end * _BLOCK, self.size) - start)
            self._file.read_into(start, memoryview(data))
            for block in range(begin, end):
                at = (block - begin) * _BLOCK
                blocks[block] = bytes(data[at : at + _BLOCK])
                self._keep(block, blocks[block])
        for block, content in blocks.items():
            start = block * _BLOCK
            begin, end = max(offset, start), min(offset + len(buffer), start + _BLOCK)
            assert content is not None
            buffer[begin - offset : end - offset] = content[begin - start : end - start]

    def _load(self, block: int) -> bytes | None:
        try:
            with open(os.path.join(self._directory, f"{block:08d}"), "rb") as file:
                data = file.read()
        except OSError:
            return None
        size = min(_BLOCK, self.size - block * _BLOCK)
        return data if len(data) == size else None

    def _keep(self, block: int, data: bytes | None) -> None:
        with contextlib.suppress(OSError):
            os.makedirs(self._directory, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=self._directory)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(data or b"")
                os.replace(temporary, os.path.join(self._directory, f"{block:08d}"))
            except BaseException:
                os.unlink(temporary)
                raise


def _runs(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yields the runs [begin, end) of ascending numbers."""
    begin = end = None
    for number in numbers:
        if begin is None or number != end:
            if begin is not None and end is not None:
                yield begin, end
            begin = number
        end = number + 1
    if begin is not None and end is not None:
        yield begin, end


# ---- Checkpoints


class RemoteFiles:
    """Opens the files of a remote checkpoint.

    Attributes:
        threads: Threads for reads: they wait for the store most of the time.

    Args:
        url: The URL of the checkpoint.
        storage_options: Arguments of fsspec's file system; for HTTP, attributes of a
            ``requests.Session``, and ``timeout``, in seconds.
        cache_dir: A directory for blocks of files, or None. Nothing is removed from it.
    """

    def __init__(
        self,
        url: str,
        storage_options: Mapping[str, Any] | None = None,
        cache_dir: AnyPath | None = None,
    ) -> None:
        self.threads = _THREADS
        options = storage_options or {}
        self._store: Store = (_HttpStore if _is_http(url) else _FsspecStore)(url, options)
        self._cache_dir = None if cache_dir is None else os.fsdecode(cache_dir)
        self._found: dict[str, RemoteFile] = {}  # what `exists` has opened

    def open_file(self, url: str) -> RemoteFile:
        """Opens a file, with the cache. Raises as ``Store.open``."""
        file = self._found.pop(url, None) or self._store.open(url)
        if self._cache_dir is not None and file.version is not None and file.size:
            return _CachedFile(file, self._cache_dir)
        return file

    def open_for_core(self, url: str) -> tuple[int, Callable[[int, memoryview], None]]:
        """Opens a file, as the `open` of ``_core.Checkpoint.open_remote``."""
        file = self.open_file(url)
        return file.size, file.read_into

    def exists(self, url: str) -> bool:
        """Returns whether there is such a file, and keeps it open for `open_file`."""
        try:
            self._found[url] = self._store.open(url)
        except CheckpointNotFoundError:
            return False
        return True

    def forget(self) -> None:
        """Closes the files that `exists` opened and `open_file` did not return."""
        self._found.clear()

    def read_text(self, url: str) -> str:
        """Returns the text of a state file."""
        file = self.open_file(url)
        if file.size > _MAX_STATE:
            raise CorruptionError(f"{url} has {file.size} bytes: it is no state file")
        data = bytearray(file.size)
        if data:
            file.read_into(0, memoryview(data))
        return data.decode("utf-8")

    def names_in(self, url: str) -> list[str] | None:
        """Returns the names in a directory; None if the store cannot list them."""
        return self._store.names_in(url)


def locate(files: RemoteFiles, url: str) -> Location:
    """Finds the checkpoint of a URL, as ``paths.resolve`` does for a local path.

    Raises:
        CheckpointNotFoundError: There is no checkpoint.
        CorruptionError: The directory's state file is invalid.
        UnsupportedError: The store cannot read a part of a file.
        IOFailure: The store failed.
    """
    text = (_path_and_query(url)[0] if _is_http(url) else url).rstrip("/")
    if _ROOT.fullmatch(text):
        found = _in_directory(files, text)
        if found is not None:
            return found
        raise CheckpointNotFoundError(
            f"no checkpoint at {url!r}: there is no {text}/{DEFAULT_STATE_FILE}; "
            "append the path of a checkpoint",
            url,
        )
    prefix = data_file_prefix(text) or text.removesuffix(INDEX_SUFFIX)
    found = _bundle_at(files, prefix)
    if found is None and prefix == text:
        found = _in_directory(files, text) or _table_at(files, text)
    if found is not None:
        return found
    raise CheckpointNotFoundError(
        f"no checkpoint at {url!r}: there is no {prefix}{INDEX_SUFFIX}"
        + (f", no {text}/{DEFAULT_STATE_FILE}, and no file of that name" if prefix == text else ""),
        url,
    )


def _bundle_at(files: RemoteFiles, prefix: str) -> Location | None:
    index = prefix + INDEX_SUFFIX
    return Location(2, prefix, (index,)) if files.exists(index) else None


def _table_at(files: RemoteFiles, text: str) -> Location | None:
    """Returns the V1 checkpoint of one file, or of the pattern of its shards."""
    pattern = v1_pattern_parts(text)
    if pattern is not None:
        stem, count = pattern
        return Location(1, text, tuple(v1_shard(stem, shard, count) for shard in range(count)))
    return Location(1, text, (text,)) if files.exists(text) else None


def _in_directory(files: RemoteFiles, directory: str) -> Location | None:
    state_file = f"{directory}/{DEFAULT_STATE_FILE}"
    if files.exists(state_file):
        try:
            recorded = parse_checkpoint_state(files.read_text(state_file)).model_checkpoint_path
        except (ParseError, UnicodeDecodeError) as error:
            raise CorruptionError(
                f"{state_file} is not a state file of TensorFlow: {error}"
            ) from None
        moved = f"{directory}/{recorded.replace(chr(92), '/').rpartition('/')[2]}"
        inside = f"{directory}/{recorded}" if as_url(recorded) is None else recorded
        for prefix in dict.fromkeys((inside, moved) if recorded[:1] != "/" else (moved,)):
            found = _bundle_at(files, prefix) or _table_at(files, prefix)
            if found is not None:
                return found
        raise DirectoryWithoutCheckpointError(
            f"{state_file} names {recorded!r}, which does not exist, also not in {directory}",
            directory,
        )
    saved_model = _bundle_at(files, f"{directory}/variables/variables")
    if saved_model is not None:
        return saved_model
    names = files.names_in(directory) or []
    prefixes = sorted(n.removesuffix(INDEX_SUFFIX) for n in names if n.endswith(INDEX_SUFFIX))
    if len(prefixes) > 1:
        raise DirectoryWithoutCheckpointError(
            f"{directory} has several checkpoints and no state file; give one of "
            f"{', '.join(prefixes[:5])}{', ...' if len(prefixes) > 5 else ''}",
            directory,
        )
    return _bundle_at(files, f"{directory}/{prefixes[0]}") if prefixes else None
