"""From the secret to the served certificate on one instance: how long, and how many AWS calls.

    python -m bench.install

One instance with a real nginx, and State Manager and Secrets Manager of the sandbox. The installer
runs as the agent runs it, out of the document. Beside it, in the same run, what no installer can
avoid: Python that starts and makes one AWS call, and nginx that tests, reloads, and answers.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import boto3

from fleet.document import PARAMETERS, script
from sandbox.instances import Instance, filled
from sandbox.resources import ACCOUNT, throwaway_certificate
from sandbox.rules.statemanager import state_manager
from sandbox.server import Server

ROUNDS = 7
REGION = "eu-central-1"
SECRET = "tls/shop/bundle"  # noqa: S105 (its name)
ADDRESS = "127.0.0.1"
NGINX = """\
pid {root}/nginx.pid;
error_log {root}/error.log;
events {{ worker_connections 64; }}
http {{
  access_log off;
  client_body_temp_path {root}/spool/body;
  proxy_temp_path {root}/spool/proxy;
  fastcgi_temp_path {root}/spool/fastcgi;
  uwsgi_temp_path {root}/spool/uwsgi;
  scgi_temp_path {root}/spool/scgi;
  server {{
    listen {address}:{port} ssl;
    ssl_certificate {root}/etc/certrail/web/live/fullchain.pem;
    ssl_certificate_key {root}/etc/certrail/web/live/privkey.pem;
    return 204;
  }}
}}
"""


def main() -> int:
    with Server() as server, tempfile.TemporaryDirectory() as folder:
        os.environ |= {
            "AWS_ENDPOINT_URL": server.endpoint,
            "AWS_ACCESS_KEY_ID": "bench",
            "AWS_SECRET_ACCESS_KEY": "bench",
            "AWS_DEFAULT_REGION": REGION,
        }
        root = Path(folder)
        root.chmod(0o755)
        port = free_port()
        instance = machine(root, port)
        state_manager(ACCOUNT, REGION).instances[instance.id] = instance
        secrets = boto3.client("secretsmanager")
        certificate, key = throwaway_certificate(["shop.example.com"])
        secrets.create_secret(Name=SECRET, SecretString=document(certificate, key))
        nginx = str(root / "bin/nginx")
        install(instance, port, "none")
        subprocess.run([nginx], check=True)
        try:
            return measure(server, instance, port, nginx)
        finally:
            subprocess.run([nginx, "-s", "quit"], check=True)


def measure(server: Server, instance: Instance, port: int, nginx: str) -> int:
    secrets = boto3.client("secretsmanager")
    took: list[float] = []
    unchanged: list[float] = []
    calls: Counter[str] = Counter()
    idle: Counter[str] = Counter()
    for _ in range(ROUNDS):
        certificate, key = throwaway_certificate(["shop.example.com"])
        secrets.put_secret_value(SecretId=SECRET, SecretString=document(certificate, key))
        wanted = hashlib.sha256(ssl.PEM_cert_to_DER_cert(certificate.decode())).hexdigest()
        server.calls.clear()
        took.append(timed(lambda: install(instance, port, "nginx")))
        calls = Counter(call.action for call in server.calls.all())
        if shown(port) != wanted:
            sys.stdout.write("another certificate is served\n")
            return 1
        server.calls.clear()
        unchanged.append(timed(lambda: install(instance, port, "nginx")))
        idle = Counter(call.action for call in server.calls.all())
    call = f"import boto3; boto3.client('secretsmanager').get_secret_value(SecretId='{SECRET}')"
    asks = floor(lambda: run([sys.executable, "-c", call]))
    reloads = floor(lambda: served_after_reload(nginx, port))
    least = asks + reloads
    print(f"secret to served, {ROUNDS} times, the middle one: {statistics.median(took):.2f} s")
    print(f"  AWS calls: {said(calls)}")
    print(f"nothing new: {statistics.median(unchanged):.2f} s")
    print(f"  AWS calls: {said(idle)}")
    print(f"what nothing can avoid: {least:.2f} s")
    print(f"  Python, boto3 and one call: {asks:.2f} s")
    print(f"  nginx -t, reload, and an answer: {reloads:.2f} s")
    print(f"ratio: {statistics.median(took) / least:.2f}")
    return 0


def machine(root: Path, port: int) -> Instance:
    for name in ("bin", "spool"):
        (root / name).mkdir()
    configuration = root / "nginx.conf"
    configuration.write_text(NGINX.format(root=root, address=ADDRESS, port=port))
    programs = {
        "nginx": f"exec /usr/sbin/nginx -p {root} -c {configuration}",
        "python3": f"exec {sys.executable}",
    }
    for name, line in programs.items():
        (root / "bin" / name).write_text(f'#!/bin/sh\n{line} "$@"\n')
        (root / "bin" / name).chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    return Instance("i-00000000000000001", {}, root, ADDRESS, environment)


def install(instance: Instance, port: int, service: str) -> None:
    given = dict.fromkeys((name for name, *_ in PARAMETERS), "")
    given |= {"Secret": SECRET, "Region": REGION, "Fleet": "web", "Service": service}
    given |= {"Directory": "/etc/certrail/web"}
    given |= {"Connect": f"{ADDRESS}:{port}"} if service != "none" else {}
    run_ = instance.run("bench", REGION, filled(script().splitlines(), instance.here(given)))
    if run_.exit_code:
        raise SystemExit(run_.log)


def document(certificate: bytes, key: bytes) -> str:
    return json.dumps(
        {"certificate": certificate.decode(), "chain": "", "private_key": key.decode()}
    )


def served_after_reload(nginx: str, port: int) -> None:
    run([nginx, "-t"])
    run([nginx, "-s", "reload"])
    shown(port)


def shown(port: int) -> str:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection((ADDRESS, port), 10) as connection,
        context.wrap_socket(connection) as tls,
    ):
        return hashlib.sha256(tls.getpeercert(binary_form=True) or b"").hexdigest()


def run(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True)


def floor(act: Callable[[], None]) -> float:
    return statistics.median(timed(act) for _ in range(ROUNDS))


def timed(act: Callable[[], None]) -> float:
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def said(calls: Counter[str]) -> str:
    return (
        f"{calls.total()} (" + ", ".join(f"{n} {name}" for name, n in sorted(calls.items())) + ")"
    )


def free_port() -> int:
    with socket.socket() as unused:
        unused.bind((ADDRESS, 0))
        port: int = unused.getsockname()[1]
        return port


if __name__ == "__main__":
    sys.exit(main())
