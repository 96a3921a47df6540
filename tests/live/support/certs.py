"""Certificates that are made for a test and are good nowhere else."""

from __future__ import annotations

import datetime
import shutil
import tempfile
from pathlib import Path
from typing import Any, Self

import trustme

PAST = datetime.datetime(2021, 2, 3, tzinfo=datetime.UTC)


class Authority:
    """Who vouches for servers and clients; its files are in a folder that goes with it.

    `ca` is the path of its own certificate. Each `issue` gives the path of a file with a chain and its key.
    """

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="iok-certs-"))
        # Servers that run as another user read them.
        self.folder.chmod(0o755)
        self._ca = trustme.CA()
        self._count = 0
        self.ca = self._write("ca.pem", self._ca.cert_pem.bytes())

    def issue(self, *names: str, expired: bool = False, name: str = "", rsa: bool = False) -> str:
        """For `localhost` and 127.0.0.1, unless other names are given. `name` is the file's, which may be there."""
        options: dict[str, Any] = {"key_type": trustme.KeyType.RSA if rsa else trustme.KeyType.ECDSA}
        if expired:
            options |= {"not_before": PAST - datetime.timedelta(days=30), "not_after": PAST}
        leaf = self._ca.issue_cert(*(names or ("localhost", "127.0.0.1")), **options)
        self._count += 1
        return self._write(name or f"{self._count}.pem", leaf.private_key_and_cert_chain_pem.bytes())

    def _write(self, name: str, content: bytes) -> str:
        """Put in the place of what was there in one step, so that nobody reads half of it."""
        path, fresh = self.folder / name, self.folder / f".{name}"
        fresh.write_bytes(content)
        fresh.chmod(0o644)
        fresh.rename(path)
        return str(path)

    def close(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
