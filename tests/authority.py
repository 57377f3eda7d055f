"""A certificate authority for tests, and the files that a service with TLS reads."""

import datetime as dt
import ssl
from pathlib import Path

import trustme


class Authority:
    """Issues certificates into a folder, under the names that Kubernetes and cert-manager use."""

    def __init__(self, folder: Path) -> None:
        self._ca = trustme.CA()
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self.ca = folder / "ca.crt"
        self._ca.cert_pem.write_to_path(str(self.ca))

    def issue(self, name: str = "tls", *, days: int = 30) -> tuple[Path, Path]:
        """A certificate for this machine, ending after so many days from now, and its key."""
        until = dt.datetime.now(dt.UTC) + dt.timedelta(days=days)
        issued = self._ca.issue_cert(
            "localhost", "127.0.0.1", not_before=until - dt.timedelta(days=365), not_after=until
        )
        certificate, key = self.folder / f"{name}.crt", self.folder / f"{name}.key"
        issued.cert_chain_pems[0].write_to_path(str(certificate))
        issued.private_key_pem.write_to_path(str(key))
        return certificate, key

    def pair(self, name: str = "client") -> Path:
        """A certificate and its key in one file, as a client shows it."""
        certificate, key = self.issue(name)
        both = self.folder / f"{name}.pem"
        both.write_bytes(key.read_bytes() + certificate.read_bytes())
        return both

    def trusting(self, *, showing: Path | None = None) -> ssl.SSLContext:
        """What a client has that trusts this authority alone."""
        context = ssl.create_default_context(cafile=self.ca)
        if showing is not None:
            context.load_cert_chain(showing)
        return context
