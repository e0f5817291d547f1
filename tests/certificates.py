"""Certificates for a test: an authority and a server certificate of its for this machine."""

from __future__ import annotations

from pathlib import Path

import trustme


def make_certificates(folder: Path) -> Path:
    """ca.pem, cert.pem and key.pem in `folder`, which is returned."""
    authority = trustme.CA()
    server = authority.issue_cert("127.0.0.1", "localhost")
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    server.private_key_pem.write_to_path(str(folder / "key.pem"))
    (folder / "cert.pem").write_bytes(b"".join(part.bytes() for part in server.cert_chain_pems))
    return folder
