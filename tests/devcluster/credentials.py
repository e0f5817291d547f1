"""Who may talk to the API server, and how the cluster's parts trust each other: certificates, users, kubeconfigs.

Users have tokens, which kubectl, kube-rs and Python all know. Those in ADMINS may do everything; the others are
bound to nothing, and a test gives them the rights that it is about.
"""

from __future__ import annotations

import json
import secrets
from pathlib import Path

import trustme

ADMINS = ("admin", "agent", "controller-manager", "scheduler")
USERS = ("alice", "bob", "carol")


class Credentials:
    """The files, made anew for each run."""

    def __init__(self, folder: Path, server: str, addresses: list[str]) -> None:
        self.folder = folder
        folder.mkdir()
        self._server = server
        authority = trustme.CA(organization_name="devcluster")
        self.authority = folder / "ca.pem"
        authority.cert_pem.write_to_path(str(self.authority))
        self._issue(authority, "apiserver", *addresses, "localhost", "kubernetes", "kubernetes.default",
                    "kubernetes.default.svc", "kubernetes.default.svc.cluster.local")  # fmt: skip
        self._issue(authority, "kubelet", *addresses)
        self._issue(authority, "kubelet-client", "apiserver-kubelet-client")
        self._issue(authority, "service-account", "service-account")
        self.tokens = folder / "tokens.csv"
        lines = []
        for user in (*ADMINS, *USERS):
            token = secrets.token_hex(16)
            group = ',"system:masters"' if user in ADMINS else ""
            lines.append(f"{token},{user},{user}{group}\n")
            self.kubeconfig(user).write_text(json.dumps(self._kubeconfig(user, token), indent=1))
        self.tokens.write_text("".join(lines))

    def kubeconfig(self, user: str) -> Path:
        """The kubeconfig of one of ADMINS or USERS."""
        return self.folder / f"{user}.kubeconfig"

    def certificate(self, name: str) -> Path:
        """Its chain; `key` is beside it."""
        return self.folder / f"{name}.pem"

    def key(self, name: str) -> Path:
        """Its private key."""
        return self.folder / f"{name}.key"

    def _issue(self, authority: trustme.CA, name: str, *identities: str) -> None:
        issued = authority.issue_cert(*identities, common_name=name)
        self.certificate(name).write_bytes(b"".join(part.bytes() for part in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(str(self.key(name)))

    def _kubeconfig(self, user: str, token: str) -> dict[str, object]:
        cluster = {"server": self._server, "certificate-authority": str(self.authority)}
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "devcluster", "cluster": cluster}],
            "users": [{"name": user, "user": {"token": token}}],
            "contexts": [{"name": user, "context": {"cluster": "devcluster", "user": user, "namespace": "default"}}],
            "current-context": user,
        }
