"""The sandbox's certificate authority: Pebble, as a child process of this one."""

from __future__ import annotations

import ipaddress
import json
import os
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType

import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from certrail.errors import CertrailError
from sandbox.find_pebble import find
from sandbox.part import Part

HOST = "127.0.0.1"
START_TIMEOUT = 20.0
HANDSHAKE_TIMEOUT = 1.0
STOP_TIMEOUT = 5.0
# A port that was free may be somebody else's by the time Pebble wants it.
START_ATTEMPTS = 3

# The profiles of Let's Encrypt (letsencrypt.org/docs/profiles) and how long theirs live.
CLASSIC: Mapping[str, timedelta] = MappingProxyType({"classic": timedelta(days=90)})
PROFILES: Mapping[str, timedelta] = MappingProxyType(
    {**CLASSIC, "tlsserver": timedelta(days=45), "shortlived": timedelta(hours=160)}
)

# Linux ends the child when the thread that started it ends, however that comes about (prctl(2)).
# A preexec_fn would do the same, but may not be used where there are threads.
LAUNCHER = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""


class PebbleFailed(CertrailError):
    """Pebble ended, or did not answer in time; the message has the end of its log."""


@dataclass(frozen=True)
class Options:
    """How Pebble behaves.

    profiles: name -> validity. An order that names no profile gets one of these at random: Pebble
        has no default, so by default there is only one.
    bad_nonces: percentage of good nonces that it refuses.
    reuse: percentage of new orders in which it reuses valid authorizations.
    intermediates: how many stand between leaf and root, at least 1.
    alternate_roots: how many further chains it offers.
    always_valid: believe every challenge without looking.
    blocked: domains (and all names below) for which it refuses to issue.
    retry_after: the most seconds that its Retry-After asks for; at least 1, or Pebble panics.
    account_bindings: key id -> MAC key (base64url). Accounts must then be bound to one of these.
    """

    profiles: Mapping[str, timedelta] = field(default_factory=lambda: CLASSIC)
    bad_nonces: int = 0
    reuse: int = 0
    intermediates: int = 1
    alternate_roots: int = 0
    always_valid: bool = False
    blocked: tuple[str, ...] = ()
    retry_after: int = 1
    account_bindings: Mapping[str, str] = field(default_factory=dict, repr=False)


class Pebble(Part):
    """A running Pebble; ends with `stop()`, with its block, or with this process.

    nameserver: the address of the DNS server that it asks. preferred_port: where it listens if
    that is free; else, and with 0, it is any free port. `start()` raises PebbleMissing (see
    find_pebble) or PebbleFailed.
    """

    def __init__(
        self,
        nameserver: tuple[str, int],
        options: Options | None = None,
        *,
        preferred_port: int = 0,
    ) -> None:
        self.nameserver = nameserver
        self.options = options or Options()
        self._preferred_port = preferred_port
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._process: subprocess.Popen[str] | None = None
        self._keeper: threading.Thread | None = None
        self._launched = threading.Event()
        self._launch_error: OSError | None = None
        self._log: list[str] = []

    def start(self) -> None:
        """Return once Pebble answers over TLS with its own certificate."""
        program = find()
        for attempt in range(START_ATTEMPTS):
            try:
                self._start(program)
                return
            except PebbleFailed:
                taken = "address already in use" in self.log
                if not taken or attempt == START_ATTEMPTS - 1:
                    raise

    def _start(self, program: Path) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="certrail-pebble-")
        try:
            folder = Path(self._folder.name)
            write_server_certificate(folder)
            port, management = free_ports(2)
            if is_free(self._preferred_port):
                port = self._preferred_port
            self.directory = f"https://localhost:{port}/dir"
            self.management = f"https://localhost:{management}"
            self.ca_bundle = folder / "ca.pem"
            self._write_config(folder, port, management)
            self._launch(program, folder)
            self._await_tls(port)
            self._await_tls(management)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the child and wait for its end. Calling it again changes nothing."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._keeper is not None:
            self._keeper.join()
        if self._folder is not None:
            self._folder.cleanup()
        self._process = self._keeper = self._folder = None

    @property
    def pid(self) -> int | None:
        """The child's process id; None when there is no child."""
        return self._process.pid if self._process else None

    @property
    def log(self) -> str:
        """All that Pebble has said so far, also after its end."""
        return "\n".join(self._log)

    def root(self, number: int = 0) -> str:
        """PEM of the root that chains end at; from 1 on, those of the alternate chains."""
        answer = requests.get(
            f"{self.management}/roots/{number}", verify=str(self.ca_bundle), timeout=10
        )
        answer.raise_for_status()
        return answer.text

    def suggest_renewal(
        self, certificate: str, start: datetime, end: datetime, explanation: str | None = None
    ) -> None:
        """From now on, let the renewal information of a certificate, PEM, have this window."""
        window = {"start": start.isoformat(), "end": end.isoformat()}
        told: dict[str, object] = {"suggestedWindow": window}
        if explanation is not None:
            told["explanationURL"] = explanation
        answer = requests.post(
            f"{self.management}/set-renewal-info/",
            json={"certificate": certificate, "ariResponse": json.dumps(told)},
            verify=str(self.ca_bundle),
            timeout=10,
        )
        answer.raise_for_status()

    def _write_config(self, folder: Path, port: int, management: int) -> None:
        options = self.options
        config = {
            "listenAddress": f"{HOST}:{port}",
            "managementListenAddress": f"{HOST}:{management}",
            "certificate": str(folder / "cert.pem"),
            "privateKey": str(folder / "key.pem"),
            # Where it would look for http-01 and tls-alpn-01, which nobody answers here.
            "httpPort": 5002,
            "tlsPort": 5001,
            "ocspResponderURL": "",
            "externalAccountBindingRequired": bool(options.account_bindings),
            "externalAccountMACKeys": dict(options.account_bindings),
            "domainBlocklist": list(options.blocked),
            "retryAfter": {"authz": options.retry_after, "order": options.retry_after},
            # Of its own keys: making RSA keys would take most of the start.
            "keyAlgorithm": "ecdsa",
            "profiles": {
                name: {
                    "description": f"lives for {validity / timedelta(days=1):.3g} days",
                    "validityPeriod": int(validity.total_seconds()),
                }
                for name, validity in options.profiles.items()
            },
        }
        (folder / "config.json").write_text(json.dumps({"pebble": config}))

    def _launch(self, program: Path, folder: Path) -> None:
        command = [
            str(program),
            *("-config", str(folder / "config.json")),
            *("-dnsserver", "{}:{}".format(*self.nameserver)),
        ]
        self._log.clear()
        self._launched.clear()
        self._launch_error = None
        # A daemon: where nobody calls stop(), the end of the process ends the child.
        self._keeper = threading.Thread(
            target=self._keep, args=[command], name="pebble", daemon=True
        )
        self._keeper.start()
        self._launched.wait()
        if self._launch_error is not None:
            raise PebbleFailed(str(self._launch_error), where=str(program)) from self._launch_error

    def _keep(self, command: list[str]) -> None:
        """Start the child and read its log until it ends: one thread for its whole life, because
        it is the end of this thread, not only of the process, at which Linux ends the child."""
        if sys.platform == "linux":
            parent = str(os.getpid())
            command = [sys.executable, "-I", "-S", "-c", LAUNCHER, parent, *command]
        options = self.options
        environment = {
            "PEBBLE_VA_NOSLEEP": "1",
            "PEBBLE_VA_ALWAYS_VALID": str(int(options.always_valid)),
            "PEBBLE_WFE_NONCEREJECT": str(options.bad_nonces),
            "PEBBLE_AUTHZREUSE": str(options.reuse),
            "PEBBLE_CHAIN_LENGTH": str(options.intermediates),
            "PEBBLE_ALTERNATE_ROOTS": str(options.alternate_roots),
        }
        try:
            process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                # Ctrl-C on the terminal is for us: we end the child when we no longer need it.
                start_new_session=True,
            )
        except OSError as error:
            self._launch_error = error
            self._launched.set()
            return
        self._process = process
        self._launched.set()
        assert process.stdout is not None  # noqa: S101 (it is a pipe)
        with process.stdout:
            for line in process.stdout:
                self._log.append(line.rstrip())

    def _await_tls(self, port: int) -> None:
        """Wait until the port answers with our certificate: another process may have the port."""
        context = ssl.create_default_context(cafile=str(self.ca_bundle))
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            try:
                with (
                    socket.create_connection((HOST, port), timeout=HANDSHAKE_TIMEOUT) as connection,
                    context.wrap_socket(connection, server_hostname="localhost"),
                ):
                    return
            except OSError as error:
                self._check_alive(error)
                if time.monotonic() > deadline:
                    raise self._failed("did not answer in time") from error
                time.sleep(0.005)

    def _check_alive(self, cause: OSError) -> None:
        assert self._process is not None  # noqa: S101 (it was launched)
        if self._process.poll() is not None:
            if self._keeper is not None:
                self._keeper.join()
            raise self._failed(f"ended with status {self._process.returncode}") from cause

    def _failed(self, how: str) -> PebbleFailed:
        said = "\n".join(self._log[-5:])
        return PebbleFailed(
            f"Pebble {how}; its last words: {said}", where=self.directory, retryable=True
        )


def is_free(port: int) -> bool:
    """Whether somebody could listen there now; not, if it is port 0."""
    with socket.socket() as probe:
        # As Go does: connections of a server that ended do not keep its port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return port != 0


def free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago, all different."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind((HOST, 0))
        return [int(each.getsockname()[1]) for each in sockets]
    finally:
        for each in sockets:
            each.close()


def write_server_certificate(folder: Path) -> None:
    """ca.pem, and cert.pem with key.pem that it signed for localhost: what Pebble serves TLS with.

    As strict clients want it: key usages and key identifiers are there (RFC 5280, 4.2.1).
    """
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca_name = _name("certrail sandbox, TLS of Pebble")
    ca_id = x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key())
    ca = (
        _certificate(ca_name, ca_name, ca_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(ca_id, critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address(HOST))]
    leaf = (
        _certificate(_name("localhost"), ca_name, key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(ca_id), critical=False
        )
        .sign(ca_key, hashes.SHA256())
    )
    (folder / "ca.pem").write_bytes(ca.public_bytes(Encoding.PEM))
    (folder / "cert.pem").write_bytes(leaf.public_bytes(Encoding.PEM))
    secret = folder / "key.pem"
    secret.touch(mode=0o600)
    secret.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=30))
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
