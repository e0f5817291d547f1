"""The running cluster: etcd, API server, controller-manager, scheduler and node agent in one network namespace.

What it is and where its files are stands in a JSON file for the tests (`SKYTORCH_DEVCLUSTER`); over a socket beside
it they can kill a part and start it again. The subtle thing is the order: the controller-manager exits if the API
server is not ready, and it learns about new kinds of resources only every 30 s, so CRDs are better there before it.
"""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingUnixStreamServer
from typing import Any

from binaries import CACHE, Binaries
from component import STOP_S, Component
from credentials import ADMINS, USERS, Credentials
from images import table
from namespaces import mount

GATEWAY, PREFIX_LENGTH, FIRST_POD = "10.127.0.1", 17, "10.127.1.1"
SERVICES, API_SERVICE = "10.127.128.0/17", "10.127.128.1"
PORT, KUBELET_PORT = 6443, 10250
NODES = [{"name": f"node-{n}", "address": f"10.127.0.1{n}", "gpus": 4} for n in (1, 2)]
ETCD = "http://127.0.0.1:2379"
READY_S = 60.0
POLL_S = 0.05
# They keep the old form of EndpointSlices, which nothing here reads, by requests of their own for each pod.
UNUSED_CONTROLLERS = ("endpoints-controller", "endpointslice-mirroring-controller")

AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata"}],
}
STORAGE_CLASS = {
    "apiVersion": "storage.k8s.io/v1",
    "kind": "StorageClass",
    "metadata": {"name": "standard", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
    "provisioner": "kubernetes.io/host-path",
    "reclaimPolicy": "Delete",
}
# The API server would write this itself, but then it takes seconds to stop.
API_ENDPOINT = {
    "apiVersion": "discovery.k8s.io/v1",
    "kind": "EndpointSlice",
    "metadata": {"name": "kubernetes", "labels": {"kubernetes.io/service-name": "kubernetes"}},
    "addressType": "IPv4",
    "endpoints": [{"addresses": [GATEWAY], "conditions": {"ready": True}}],
    "ports": [{"name": "https", "port": PORT, "protocol": "TCP"}],
}


class Cluster:
    """Started by `start()`, which returns when pods can be created; ended by `stop()`."""

    def __init__(self, binaries: Binaries, checkout: Path, logs: Path | None, backoff_s: float, backoff_max_s: float):
        self._binaries = binaries
        self.folder = CACHE / "devcluster/run"  # a tmpfs of this mount namespace alone
        self.folder.mkdir(parents=True, exist_ok=True)
        mount("devcluster", str(self.folder), "tmpfs")
        # The path is fixed in the controller-manager's provisioner.
        volumes = Path("/tmp/hostpath_pv")
        volumes.mkdir(exist_ok=True)
        mount("devcluster", str(volumes), "tmpfs")
        self.logs = logs or self.folder / "logs"
        self.logs.mkdir(parents=True, exist_ok=True)
        addresses = [GATEWAY, API_SERVICE, "127.0.0.1", *(str(node["address"]) for node in NODES)]
        self.credentials = Credentials(self.folder / "credentials", f"https://{GATEWAY}:{PORT}", addresses)
        self.state = self.folder / "cluster.json"
        self.kubeconfig = self.credentials.kubeconfig("admin")
        self._images = self._json("images.json", table(checkout, binaries))
        self._agent = self._json("agent.json", self._agent_config(backoff_s, backoff_max_s))
        self.components = {
            name: Component(name, command, self.logs, kept=name == "scheduler")
            for name, command in self._commands().items()
        }
        self._context = ssl.create_default_context(cafile=str(self.credentials.authority))
        user = json.loads(self.kubeconfig.read_text())["users"][0]["user"]
        self._headers = {"Authorization": f"Bearer {user['token']}", "Content-Type": "application/json"}
        self._control: ThreadingUnixStreamServer | None = None
        self._started_s: float | None = None

    def start(self, custom_resources: Path | None) -> None:
        """`custom_resources`: a file of CRDs that are there from the start."""
        began = time.monotonic()
        subprocess.run([self._binaries.ours / "agent", "network", self._agent], check=True)
        self._start("etcd", "apiserver")
        self._wait("the API server", self._answers)
        if custom_resources is not None:
            self.kubectl("apply", "--server-side", "-f", str(custom_resources))
        self.request("POST", "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", API_ENDPOINT)
        self.request("POST", "/apis/storage.k8s.io/v1/storageclasses", STORAGE_CLASS)
        self._start("controller-manager", "scheduler", "agent")
        self._wait("nodes and accounts", self._takes_pods)
        self._serve_control()
        self._started_s = time.monotonic() - began
        self._write_state()

    def stop(self) -> None:
        """Everything at once but etcd, which the API server writes to until its end."""
        if self._control is not None:
            self._control.shutdown()
        deadline = time.monotonic() + STOP_S
        users = [component for name, component in self.components.items() if name != "etcd"]
        for component in users:
            component.ask_to_stop()
        for component in (*users, self.components["etcd"]):
            component.stop(deadline)

    def kubectl(self, *arguments: str) -> str:
        """Runs kubectl as admin and returns what it prints."""
        command = [str(self._binaries.control_plane / "kubectl"), f"--kubeconfig={self.kubeconfig}", *arguments]
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout

    def request(self, method: str, path: str, body: object | None = None) -> Any:
        """One request to the API server as admin."""
        data = json.dumps(body).encode() if body is not None else None
        url = f"https://{GATEWAY}:{PORT}{path}"
        request = urllib.request.Request(url, data=data, method=method, headers=self._headers)
        with urllib.request.urlopen(request, timeout=10, context=self._context) as response:
            return json.load(response)

    def environment(self) -> dict[str, str]:
        """What a command that uses the cluster gets."""
        path = os.pathsep.join((str(self._binaries.control_plane), os.environ.get("PATH", os.defpath)))
        return {"KUBECONFIG": str(self.kubeconfig), "SKYTORCH_DEVCLUSTER": str(self.state), "PATH": path}

    def _start(self, *names: str) -> None:
        for name in names:
            self.components[name].start()

    def _wait(self, what: str, there: Any) -> None:
        deadline = time.monotonic() + READY_S
        while not there():
            for component in self.components.values():
                component.check()
            if time.monotonic() > deadline:
                raise RuntimeError(f"{what}: not there after {READY_S:.0f} s; see the logs with --logs FOLDER")
            time.sleep(POLL_S)

    def _answers(self) -> bool:
        request = urllib.request.Request(f"https://{GATEWAY}:{PORT}/readyz", headers=self._headers)
        try:
            with urllib.request.urlopen(request, timeout=2, context=self._context):
                return True
        except OSError:  # and its kind HTTPError: not ready
            return False

    def _takes_pods(self) -> bool:
        nodes = self.request("GET", "/api/v1/nodes")["items"]
        ready = [
            node["metadata"]["name"]
            for node in nodes
            if not node["spec"].get("taints")
            and any(c["type"] == "Ready" and c["status"] == "True" for c in node["status"].get("conditions", []))
        ]
        try:
            self.request("GET", "/api/v1/namespaces/default/serviceaccounts/default")
        except urllib.error.HTTPError:
            return False
        return len(ready) == len(NODES)

    def _json(self, name: str, content: object) -> Path:
        path = self.folder / name
        path.write_text(json.dumps(content, indent=1))
        return path

    def _write_state(self) -> None:
        temporary = self._json(
            "cluster.json.new",
            {
                "kubeconfig": str(self.kubeconfig),
                "kubeconfigs": {user: str(self.credentials.kubeconfig(user)) for user in (*ADMINS, *USERS)},
                "server": f"https://{GATEWAY}:{PORT}",
                "folder": str(self.folder),
                "logs": str(self.logs),
                "audit": str(self.folder / "audit.log"),
                "images": str(self._images),
                "kubectl": str(self._binaries.control_plane / "kubectl"),
                "control_plane": str(self._binaries.control_plane),
                "ours": str(self._binaries.ours),
                "control": str(self.folder / "control.sock"),
                "nodes": NODES,
                "started_s": self._started_s,
                "pids": {name: component.pid for name, component in self.components.items()},
            },
        )
        temporary.rename(self.state)

    def _serve_control(self) -> None:
        cluster = self

        class Handler(StreamRequestHandler):
            """One line "kill|start|restart COMPONENT"; the answer is "ok" or what is wrong."""

            def handle(self) -> None:
                verb, _, name = self.rfile.readline().decode().strip().partition(" ")
                self.wfile.write((cluster._control_line(verb, name) + "\n").encode())

        self._control = ThreadingUnixStreamServer(str(self.folder / "control.sock"), Handler)
        self._control.daemon_threads = True
        threading.Thread(target=self._control.serve_forever, name="control", daemon=True).start()

    def _control_line(self, verb: str, name: str) -> str:
        if name not in self.components or verb not in ("kill", "start", "restart"):
            return f"cannot {verb} {name}: kill, start or restart one of {', '.join(self.components)}"
        component = self.components[name]
        if verb != "start":
            component.kill()
        if verb != "kill":
            component.start()
            if name == "apiserver":
                self._wait("the API server", self._answers)
                # Their informers wait longer after each cut, up to a minute, and until then they decide by what they
                # knew. Where leaders are elected they would have lost their leases, ended, and been started again.
                for user in (self.components["controller-manager"], self.components["scheduler"]):
                    if user.pid is not None:  # a test may want it down
                        user.kill()
                        user.start()
        self._write_state()
        return "ok"

    def _agent_config(self, backoff_s: float, backoff_max_s: float) -> dict[str, object]:
        return {
            "kubeconfig": str(self.credentials.kubeconfig("agent")),
            "folder": str(self.folder),
            "pod_program": str(self._binaries.ours / "pod"),
            "images": str(self._images),
            "nodes": NODES,
            "kubelet_port": KUBELET_PORT,
            "serving_cert": str(self.credentials.certificate("kubelet")),
            "serving_key": str(self.credentials.key("kubelet")),
            "client_ca": str(self.credentials.authority),
            "gateway": GATEWAY,
            "prefix_length": PREFIX_LENGTH,
            "first_pod": FIRST_POD,
            "service_network": SERVICES,
            "api_service": API_SERVICE,
            "backoff_s": backoff_s,
            "backoff_max_s": backoff_max_s,
        }

    def _commands(self) -> dict[str, list[str]]:
        programs, files = self._binaries.control_plane, self.credentials
        policy = self._json("audit-policy.json", AUDIT_POLICY)
        return {
            "etcd": [
                f"{programs}/server",
                f"--data-dir={self.folder}/etcd",
                "--unsafe-no-fsync",
                "--log-level=warn",
                f"--listen-client-urls={ETCD}",
                f"--advertise-client-urls={ETCD}",
                "--listen-peer-urls=http://127.0.0.1:2380",
                "--initial-advertise-peer-urls=http://127.0.0.1:2380",
                "--initial-cluster=default=http://127.0.0.1:2380",
            ],
            "apiserver": [
                f"{programs}/kube-apiserver",
                f"--etcd-servers={ETCD}",
                f"--advertise-address={GATEWAY}",
                f"--secure-port={PORT}",
                "--endpoint-reconciler-type=none",
                "--authorization-mode=Node,RBAC",
                "--allow-privileged",
                f"--client-ca-file={files.authority}",
                f"--token-auth-file={files.tokens}",
                f"--tls-cert-file={files.certificate('apiserver')}",
                f"--tls-private-key-file={files.key('apiserver')}",
                f"--service-cluster-ip-range={SERVICES}",
                "--service-account-issuer=https://kubernetes.default.svc",
                f"--service-account-signing-key-file={files.key('service-account')}",
                f"--service-account-key-file={files.key('service-account')}",
                f"--kubelet-certificate-authority={files.authority}",
                f"--kubelet-client-certificate={files.certificate('kubelet-client')}",
                f"--kubelet-client-key={files.key('kubelet-client')}",
                "--kubelet-preferred-address-types=InternalIP",
                f"--audit-policy-file={policy}",
                f"--audit-log-path={self.folder}/audit.log",
                "--audit-log-maxsize=200",
                "--audit-log-maxbackup=1",
            ],
            "controller-manager": [
                f"{programs}/kube-controller-manager",
                f"--kubeconfig={files.kubeconfig('controller-manager')}",
                "--leader-elect=false",
                f"--controllers=*,{','.join(f'-{name}' for name in UNUSED_CONTROLLERS)}",
                "--use-service-account-credentials",
                f"--service-account-private-key-file={files.key('service-account')}",
                f"--root-ca-file={files.authority}",
                "--kube-api-qps=500",
                "--kube-api-burst=1000",
                "--pvclaimbinder-sync-period=1s",
                "--enable-hostpath-provisioner=true",
                "--secure-port=0",
            ],
            "scheduler": [
                f"{programs}/kube-scheduler",
                f"--kubeconfig={files.kubeconfig('scheduler')}",
                "--leader-elect=false",
                "--secure-port=0",
            ],
            "agent": [f"{self._binaries.ours}/agent", "nodes", str(self._agent)],
        }
