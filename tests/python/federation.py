"""Homeservers that find each other over TLS on this machine: Parlour, and a real Synapse."""

import contextlib
import datetime
import json
import pathlib
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

PASSWORD = "correct horse battery staple"


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


class Authority:
    """Signs the certificates of all servers of a test, which believe it."""

    def __init__(self, directory):
        self.directory = directory
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Authority of the tests")])
        self.file = directory / "ca.pem"
        constraints = x509.BasicConstraints(ca=True, path_length=None)
        self.certificate = self.sign(self.name, self.key.public_key(), constraints)
        self.file.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))

    def sign(self, subject, public_key, *extensions):
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=1))
        )
        for extension in extensions:
            builder = builder.add_extension(extension, critical=False)
        return builder.sign(self.key, hashes.SHA256())

    def issue(self, name):
        """Certificate and key for `localhost`, as files."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
        names = x509.SubjectAlternativeName([x509.DNSName("localhost")])
        certificate = self.sign(subject, key.public_key(), names)
        paths = self.directory / f"{name}.pem", self.directory / f"{name}.key"
        paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        private = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        paths[1].write_bytes(private)
        return paths


class User:
    """A registered user of any homeserver."""

    def __init__(self, url, name):
        self.url, self.token = url, None
        body = {"username": name, "password": PASSWORD, "auth": {"type": "m.login.dummy"}}
        answer = self.ask("POST", "/_matrix/client/v3/register", body)
        self.id, self.token = answer["user_id"], answer["access_token"]

    def ask(self, method, path, body=None):
        """The answer, which must be a success."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, method=method)
        if self.token:
            request.add_header("Authorization", f"Bearer {self.token}")
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{method} {path}: {error.code} {error.read()}") from error

    def set_name(self, name):
        path = f"/_matrix/client/v3/profile/{quote(self.id)}/displayname"
        self.ask("PUT", path, {"displayname": name})

    def profile(self, of):
        return self.ask("GET", f"/_matrix/client/v3/profile/{quote(of)}")


def quote(text):
    return urllib.parse.quote(text, safe="")


class Synapse:
    """A Synapse with its own directory, on SQLite."""

    def __init__(self, directory, authority):
        directory.mkdir()
        self.authority = authority
        self.log = directory / "synapse.log"
        secure, plain = free_port(), free_port()
        self.name, self.url = f"localhost:{secure}", f"http://127.0.0.1:{plain}"
        certificate, key = authority.issue("synapse")
        self.config = directory / "homeserver.yaml"
        self.config.write_text(yaml.safe_dump(self.settings(directory, secure, plain) | {
            "tls_certificate_path": str(certificate),
            "tls_private_key_path": str(key),
            "federation_custom_ca_list": [str(authority.file)],
        }))
        self.command = [sys.executable, "-m", "synapse.app.homeserver", "-c", str(self.config)]
        made = subprocess.run([*self.command, "--generate-keys"], capture_output=True, text=True)
        assert made.returncode == 0, made.stderr
        self.process = None

    def settings(self, directory, secure, plain):
        logging = directory / "log.yaml"
        logging.write_text(yaml.safe_dump({
            "version": 1,
            "formatters": {"plain": {"format": "%(asctime)s %(levelname)s %(name)s %(message)s"}},
            "handlers": {"out": {"class": "logging.StreamHandler", "formatter": "plain"}},
            "root": {"level": "INFO", "handlers": ["out"]},
        }))
        resources = [{"names": ["client", "federation"]}]
        local = {"bind_addresses": ["127.0.0.1"], "type": "http", "resources": resources}
        # A test makes many requests at once.
        unlimited = {"per_second": 100_000, "burst_count": 100_000}
        return {
            "server_name": self.name,
            "pid_file": str(directory / "pid"),
            "listeners": [{"port": secure, "tls": True} | local, {"port": plain} | local],
            "database": {"name": "sqlite3", "args": {"database": str(directory / "db.sqlite")}},
            "log_config": str(logging),
            "media_store_path": str(directory / "media"),
            "signing_key_path": str(directory / "signing.key"),
            "macaroon_secret_key": "secret",
            "form_secret": "secret",
            "report_stats": False,
            "trusted_key_servers": [],
            "allow_public_rooms_over_federation": True,
            "allow_device_name_lookup_over_federation": True,
            "room_list_publication_rules": [{"action": "allow"}],
            "enable_registration": True,
            "enable_registration_without_verification": True,
            "federation_ip_range_blacklist": [],
            "ip_range_blacklist": [],
            "rc_login": dict.fromkeys(["address", "account", "failed_attempts"], unlimited),
            "rc_joins": dict.fromkeys(["local", "remote"], unlimited),
            "rc_message": unlimited,
            "rc_registration": unlimited,
        }

    def configure(self, log_level, **settings):
        """Changes settings before the start."""
        changed = yaml.safe_load(self.config.read_text()) | settings
        self.config.write_text(yaml.safe_dump(changed))
        logging = pathlib.Path(changed["log_config"])
        logged = yaml.safe_load(logging.read_text())
        logged["root"]["level"] = log_level
        logging.write_text(yaml.safe_dump(logged))

    def start(self):
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        await_answer(self.process, f"{self.url}/_matrix/client/versions", self.log)

    def stop(self):
        if self.process:
            self.process.kill()
            self.process.wait()


def await_answer(process, url, log):
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, f"the server ended:\n{log.read_text()}"
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            urllib.request.urlopen(url, timeout=5).close()
            return
        time.sleep(0.05)
    raise AssertionError(f"the server did not answer:\n{log.read_text()}")


def federated_config(directory, authority):
    """A Parlour's configuration, its name and where clients find it."""
    secure, plain = free_port(), free_port()
    certificate, key = authority.issue("parlour")
    text = f"""
[server]
name = "localhost:{secure}"
data_dir = "{directory / 'data'}"
test_mode = true

[[listeners]]
address = "127.0.0.1"
port = {plain}
apis = ["client", "admin", "federation"]

[[listeners]]
address = "127.0.0.1"
port = {secure}
apis = ["federation"]
tls_certificate = "{certificate}"
tls_key = "{key}"

[registration]
mode = "open"

[federation]
extra_ca_files = ["{authority.file}"]
allowed_private_ranges = ["127.0.0.0/8", "::1"]
allow_servers = ["localhost"]
trusted_key_servers = []
"""
    return text, f"localhost:{secure}", f"http://127.0.0.1:{plain}"
