"""BIND 9 with one zone and three keys, in a folder of its own."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import dns.message
import dns.query
import dns.rdatatype

from sandbox.part import Part
from sandbox.pebble import HOST, LAUNCHER, free_ports

# Debian's place for it, which is not on everybody's path.
SEARCHED = f"{os.environ.get('PATH', '')}:/usr/sbin"
START_ATTEMPTS = 3
STOP_TIMEOUT = 5.0
# What may write, what may only ask, and what may write but is not the default algorithm.
WRITER, READER, LONG = "certrail.", "reader.", "long."
ALGORITHMS = {WRITER: "hmac-sha256", READER: "hmac-sha256", LONG: "hmac-sha512"}


class BindFailed(Exception):
    """named ended before it ran; the message has its log."""


class Bind(Part):
    """Authoritative for `zone` at any free port, on UDP and TCP.

    records: lines of the zone's file. secrets: base64, by the key's name.
    """

    def __init__(self, zone: str, records: str = "") -> None:
        self.zone = zone
        self.secrets = {name: base64.b64encode(os.urandom(32)).decode() for name in ALGORITHMS}
        self._records = records
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._log: list[str] = []

    def start(self) -> None:
        """Return when it answers. Raises BindFailed."""
        for attempt in range(START_ATTEMPTS):
            try:
                self._start()
                return
            except BindFailed as failed:
                self.stop()
                if attempt == START_ATTEMPTS - 1 or "address in use" not in str(failed):
                    raise

    def stop(self) -> None:
        """End it and wait for its end. Calling it again changes nothing."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._reader is not None:
            self._reader.join()
        if self._folder is not None:
            self._folder.cleanup()
        self._process = self._reader = self._folder = None

    @property
    def server(self) -> str:
        return "{}:{}".format(*self.address)

    @property
    def log(self) -> str:
        return "\n".join(self._log)

    def texts(self, name: str) -> set[str]:
        """The TXT records of a name, as it serves them now."""
        host, port = self.address
        answer = dns.query.tcp(
            dns.message.make_query(name, dns.rdatatype.TXT), host, timeout=5, port=port
        )
        return {each.to_text().strip('"') for records in answer.answer for each in records}

    def _start(self) -> None:
        named = shutil.which("named", path=SEARCHED)
        if named is None:
            raise BindFailed("there is no named here: `make test` installs it, or says what does")
        self.address = (HOST, free_ports(1)[0])
        self._folder = tempfile.TemporaryDirectory(prefix="certrail-bind-")
        folder = Path(self._folder.name)
        # Ubuntu's AppArmor lets /usr/sbin/named read Debian's folders only; it goes by the path.
        program = shutil.copy(named, folder / "named")
        (folder / "zone").write_text(self._zone_file())
        (folder / "named.conf").write_text(self._config())
        command = [program, "-g", "-4", "-n", "1", "-c", str(folder / "named.conf")]
        if sys.platform == "linux":
            # It ends when this thread does, however that comes about.
            parent = str(os.getpid())
            command = [sys.executable, "-I", "-S", "-c", LAUNCHER, parent, *command]
        self._log.clear()
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        running = threading.Event()
        self._reader = threading.Thread(target=self._read, args=[running], daemon=True)
        self._reader.start()
        running.wait()
        if self._process.poll() is not None or not self._log[-1].endswith(" running"):
            raise BindFailed(self.log)

    def _read(self, running: threading.Event) -> None:
        assert self._process is not None
        assert self._process.stderr is not None
        with self._process.stderr:
            for line in self._process.stderr:
                self._log.append(line.rstrip())
                if self._log[-1].endswith(" running"):
                    running.set()
        running.set()

    def _zone_file(self) -> str:
        # Negative answers are kept by nobody, so that a record is seen when it is there.
        return (
            "$TTL 1\n"
            f"@ SOA ns.{self.zone}. admin.{self.zone}. 1 3600 600 86400 0\n"
            "@ NS ns\n"
            f"ns A {HOST}\n{self._records}\n"
        )

    def _config(self) -> str:
        host, port = self.address
        keys = "\n".join(
            f'key "{name}" {{ algorithm {ALGORITHMS[name]}; secret "{secret}"; }};'
            for name, secret in self.secrets.items()
        )
        grants = " ".join(f"grant {name} subdomain {self.zone}. TXT;" for name in (WRITER, LONG))
        folder = self._folder.name if self._folder else ""
        return f"""
            options {{
                directory "{folder}";
                listen-on port {port} {{ {host}; }};
                pid-file none;
                session-keyfile none;
                recursion no;
                dnssec-validation no;
                notify no;
                allow-transfer {{ none; }};
            }};
            controls {{ }};
            {keys}
            zone "{self.zone}" {{
                type primary;
                file "zone";
                update-policy {{ {grants} }};
            }};
        """
