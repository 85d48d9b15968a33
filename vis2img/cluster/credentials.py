"""The key of a run: who has it may speak with its scheduler and workers, all others are refused.

Whoever reaches a scheduler or a worker of Dask can have it run any code. So every connection is of TLS, and both ends
show a certificate that is made for the run, signed by a key that is never the same again (decision 11).
"""

from __future__ import annotations

import datetime
from dataclasses import asdict, dataclass
from pathlib import Path

from distributed.security import Security

_SKEW = datetime.timedelta(days=1)  # that clocks of other machines may be behind
_LIFE = datetime.timedelta(days=3650)


@dataclass(frozen=True)
class Credentials:
    """A certificate and its key, as PEM; ``repr`` shows neither."""

    certificate: str
    key: str

    def __repr__(self) -> str:
        return "Credentials()"

    def record(self) -> dict[str, str]:
        """Return them for the process that is to be let in."""
        return asdict(self)

    def security(self) -> Security:
        """Return what Dask's clients, schedulers and workers take: nothing of it is on a disk."""
        return _security(self.certificate, self.certificate, self.key)

    def write(self, folder: Path) -> Security:
        """Write them to files that only this user can read, and return what names the files."""
        certificate, key = folder / "certificate.pem", folder / "key.pem"
        for path, text in ((certificate, self.certificate), (key, self.key)):
            path.touch(mode=0o600, exist_ok=False)
            path.write_text(text)
        return _security(str(certificate), str(certificate), str(key))


def _security(authority: str, certificate: str, key: str) -> Security:
    roles = ("client", "scheduler", "worker")
    given = {f"tls_{role}_cert": certificate for role in roles} | {f"tls_{role}_key": key for role in roles}
    return Security(require_encryption=True, tls_ca_file=authority, **given)


def new_credentials() -> Credentials:
    """Return a new key and the certificate of it, which is its own authority."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "vis2img run")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    certificate = builder.not_valid_before(now - _SKEW).not_valid_after(now + _LIFE).sign(key, hashes.SHA256())
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return Credentials(certificate.public_bytes(pem).decode(), private.decode())
