"""The file that an export writes, and the directory that it may not leave.

Owns: the way from the directory to the file, the unfinished file beside it, its checksum, the words for what the
system refuses. Knows no query and no job.

Every step of a path is opened relative to the one before, without following symlinks, so nothing that changes
meanwhile can lead elsewhere. The unfinished file is locked while it is written: of two jobs with the same path, or
of a worker that has lost its lease and the next one, only one writes.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import gzip
import hashlib
import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pipeline.core.export import PART, Column, Saved
from pipeline.core.export_format import Rows, encoder_for
from pipeline.errors import Busy, TaskError

MODE = 0o640  # what an export holds is not for everybody on the machine
READ_BYTES = 1 << 20
GZIP_LEVEL = 6
_REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the quota is used up",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "the daemon may not write there",
    errno.EPERM: "the daemon may not write there",
    errno.ENOENT: "the directory is missing",
    errno.ENOTDIR: "a part of the path is no directory, or a symlink",
    errno.ELOOP: "a part of the path is a symlink",
    errno.EISDIR: "there is a directory of that name",
    errno.ENAMETOOLONG: "the name is too long",
}


@contextlib.contextmanager
def explained(path: str) -> Iterator[None]:
    """Turn what the system refuses into a TaskError. path: as the job gave it."""
    try:
        yield
    except OSError as error:
        reason = _REASONS.get(error.errno or 0) or os.strerror(error.errno or 0)
        raise TaskError(
            f"the export to {path} cannot be written: {reason}",
            hint="Mend it on the daemon's machine, below jobs.export_dir; what is finished stays as it was.",
        ) from error


class PartFile:
    """A file that becomes visible when it is whole. Use as a context; without `publish` nothing has appeared.

    rows, bytes: so far. Blocking throughout. Raises Busy when another export writes the same file, OSError.
    """

    def __init__(self, root: Path, parts: Sequence[str]) -> None:
        self.name = parts[-1]
        self.path = "/".join(parts)
        self.bytes = 0
        self._digest = hashlib.sha256()
        self._folder = _folder(root, parts[:-1])
        try:
            self._file = os.open(
                self.name + PART, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, MODE, dir_fd=self._folder
            )
        except BaseException:
            os.close(self._folder)
            raise
        try:
            self._own()
        except BaseException:
            self.close()
            raise

    def _own(self) -> None:
        with contextlib.suppress(BlockingIOError, FileNotFoundError):
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            there = os.stat(self.name + PART, dir_fd=self._folder, follow_symlinks=False)
            if there.st_ino == os.fstat(self._file).st_ino:
                return
        raise Busy(
            f"another export is writing {self.path}", hint="It is tried again; give each export a path of its own."
        )

    def go_on(self, saved: Saved | None) -> bool:
        """Cut the file to what was saved; False, and empty, when that is not what is there."""
        self._digest, self.bytes = hashlib.sha256(), 0
        if saved is not None and os.fstat(self._file).st_size >= saved.bytes:
            digest, left = hashlib.sha256(), saved.bytes
            os.lseek(self._file, 0, os.SEEK_SET)
            while left > 0 and (block := os.read(self._file, min(READ_BYTES, left))):
                digest.update(block)
                left -= len(block)
            if left == 0 and digest.hexdigest() == saved.digest:
                self._digest, self.bytes = digest, saved.bytes
        os.ftruncate(self._file, self.bytes)
        os.lseek(self._file, self.bytes, os.SEEK_SET)
        return self.bytes > 0

    def write(self, data: bytes | memoryview) -> int:
        """Append; all of it, or OSError."""
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._file, rest) :]
        self._digest.update(data)
        self.bytes += len(data)
        return len(data)

    def sync(self) -> None:
        """Have it all on disk."""
        os.fsync(self._file)

    def digest(self) -> str:
        """SHA-256 of all that was written, in hex."""
        return self._digest.hexdigest()

    def publish(self) -> None:
        """Put the file in its place, instead of what was there."""
        self.sync()
        os.rename(self.name + PART, self.name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
        os.fsync(self._folder)

    def discard(self) -> None:
        """Remove it."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.name + PART, dir_fd=self._folder)

    def close(self) -> None:
        """Let go of it; what was written stays for the next attempt."""
        os.close(self._file)
        os.close(self._folder)


def _folder(root: Path, parts: Sequence[str]) -> int:
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    for part in parts:
        try:
            inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        finally:
            os.close(folder)
        folder = inner
    return folder


class LineWriter:
    """Writes CSV or NDJSON. Each batch is a gzip member of its own, so that a retry can go on behind any."""

    def __init__(
        self, file: PartFile, format: str, columns: Sequence[Column], *, zipped: bool, spreadsheet_safe: bool
    ) -> None:
        self._file = file
        self._encoder = encoder_for(format, columns, spreadsheet_safe=spreadsheet_safe)
        self._zipped = zipped

    def begin(self) -> None:
        self._put(self._encoder.header())

    def write(self, rows: Rows) -> None:
        self._put(self._encoder.rows(rows))

    def end(self) -> None:
        """Nothing closes a file of lines."""

    def abandon(self) -> None:
        """Nothing is held back here."""

    def _put(self, data: bytes) -> None:
        if data:
            self._file.write(gzip.compress(data, GZIP_LEVEL, mtime=0) if self._zipped else data)


class Appending(io.RawIOBase):
    """The part file as a stream that only grows, for a library that wants a stream."""

    def __init__(self, file: PartFile) -> None:
        self._part = file
        self._abandoned = False

    def abandon(self) -> None:
        """From now on swallow everything: a library that cleans up late must not reach the file."""
        self._abandoned = True

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._part.bytes

    def write(self, data: Any) -> int:
        block = memoryview(data).cast("B")
        return len(block) if self._abandoned else self._part.write(block)
