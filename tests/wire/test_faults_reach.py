"""Wrong certificates, redirects, names that stop resolving, and the hub's own responses."""

from __future__ import annotations

import os
import random
import shutil
import socket
import ssl
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from standin import Repo
from tests.support.fronts import Front, openssl
from tests.support.repos import contents, expected
from tests.support.user import GPUARIA, Serve, User, wait_until

QUICK = {"GPUARIA_TIMEOUT": "1s", "GPUARIA_CONNECT_TIMEOUT": "1s"}


CONF = """[ca]
default_ca = own
[own]
database = {0}/index
new_certs_dir = {0}
serial = {0}/serial
default_md = sha256
policy = any
x509_extensions = san
[any]
commonName = supplied
[san]
subjectAltName = IP:{1}
"""


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return files with key and certificate by defect; each file is also the CA bundle that trusts it."""
    made = {}
    for name, ip, end in (
        ("good", "127.0.0.1", "20990101000000Z"),
        ("expired", "127.0.0.1", "20210101000000Z"),
        ("wrong", "10.9.8.7", "20990101000000Z"),
    ):
        folder = tmp_path_factory.mktemp(name)
        (folder / "index").touch()
        (folder / "serial").write_text("01\n")
        (folder / "conf").write_text(CONF.format(folder, ip))
        openssl(
            folder, "req", "-new", "-newkey", "rsa:2048", "-nodes", "-keyout", "key", "-out", "csr", "-subj", "/CN=x"
        )
        times = ["-startdate", "20200101000000Z", "-enddate", end]
        openssl(
            folder,
            "ca",
            "-config",
            "conf",
            "-batch",
            "-selfsign",
            "-keyfile",
            "key",
            "-in",
            "csr",
            "-out",
            "crt",
            *times,
        )
        made[name] = folder / "both.pem"
        made[name].write_text((folder / "key").read_text() + (folder / "crt").read_text())
    return made


# --- TLS ----------------------------------------------------------------------------------------------------------

TLS: dict[str, Any] = {
    "where": "server",
    "does": "Refuses the connection. Drops a mirror; for the hub itself, stops the run.",
    "sees": "the host, and why its certificate is not trusted",
    "status": 7,
}
BAD = [
    pytest.param("expired", "expired", marks=pytest.mark.fault("TLS: the certificate has expired", **TLS)),
    pytest.param("wrong", "not valid for", marks=pytest.mark.fault("TLS: the certificate is for another host", **TLS)),
    pytest.param("good", "self", marks=pytest.mark.fault("TLS: no trusted authority signed the certificate", **TLS)),
]


def bundle(certificates: dict[str, Path], which: str) -> dict[str, str]:
    """Return the bundle variable; the untrusted certificate is the good one without its bundle."""
    return {} if which == "good" else {"SSL_CERT_FILE": str(certificates[which])}


@pytest.mark.parametrize(("which", "says"), BAD)
def test_a_hub_with_a_bad_certificate(
    user: User, serve: Serve, big: Repo, front: Front, certificates: dict[str, Path], which: str, says: str
) -> None:
    hub = serve(big)
    endpoint = front(hub.url, certificates[which])
    env = {"HF_ENDPOINT": endpoint, **bundle(certificates, which), **QUICK}
    user.quick("fetch", "org/big", "--patience", "1s", **env).refused(7, "certificate of", says)
    assert hub.count() == 0


@pytest.mark.parametrize(("which", "says"), BAD)
def test_a_byte_server_with_a_bad_certificate(
    user: User, serve: Serve, big: Repo, front: Front, certificates: dict[str, Path], which: str, says: str
) -> None:
    hub = serve(big)
    hub.location_base = front(hub.cdn.url, certificates[which])
    env = {**bundle(certificates, which), **QUICK}
    done = user.quick("fetch", "org/big", "--patience", "1s", "--json", **env)
    assert done.status == 7
    assert [problem["path"] for problem in done.report["problems"]] == ["model.safetensors"]
    assert hub.cdn.count() == 0


@pytest.mark.parametrize(("which", "says"), BAD)
def test_a_mirror_with_a_bad_certificate(
    user: User, serve: Serve, big: Repo, front: Front, certificates: dict[str, Path], which: str, says: str
) -> None:
    serve(big)
    mirror = front(serve(big).url, certificates[which])
    env = {**bundle(certificates, which), **QUICK}
    done = user.quick("fetch", "org/big", "--to", "out", "--mirror", mirror, "--json", **env).ok()
    assert contents(user.home / "out") == expected(big)
    assert any(says in use["rejected"] for use in done.report["mirrors"])


def test_a_good_certificate_is_accepted(
    user: User, serve: Serve, big: Repo, front: Front, certificates: dict[str, Path]
) -> None:
    """Shows that the tests above fail for their stated reason."""
    hub = serve(big)
    hub.location_base = front(hub.cdn.url, certificates["good"])
    env = {"HF_ENDPOINT": front(hub.url, certificates["good"]), "SSL_CERT_FILE": str(certificates["good"]), **QUICK}
    user.quick("fetch", "org/big", "--to", "out", **env).ok()
    assert contents(user.home / "out") == expected(big)
    assert any("want-digest" in seen.headers for seen in hub.cdn.requests), "aria2c was not there"


OLD = {
    "where": "server",
    "does": "Refuses the connection: gpuaria and aria2c require TLS 1.2.",
    "sees": "the host, and that the connection failed",
    "status": 7,
}


def speaks(url: str) -> str:
    """Return the TLS version that a server negotiates with a client that accepts any."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1
    parts = urlsplit(url)
    with (
        socket.create_connection((parts.hostname or "", parts.port or 0), 10) as plain,
        context.wrap_socket(plain) as line,
    ):
        return str(line.version())


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
@pytest.mark.parametrize(
    "who",
    [
        pytest.param("endpoint", marks=pytest.mark.fault("TLS: the endpoint offers only TLS 1.1", **OLD)),
        pytest.param("bytes", marks=pytest.mark.fault("TLS: the byte server offers only TLS 1.1", **OLD)),
    ],
)
def test_tls_1_1_is_rejected(
    user: User, serve: Serve, big: Repo, front: Front, certificates: dict[str, Path], who: str
) -> None:
    hub, good = serve(big), certificates["good"]
    places = {"endpoint": hub.url, "bytes": hub.cdn.url}
    env = {"SSL_CERT_FILE": str(good), **QUICK}
    for newest, status in ((ssl.TLSVersion.TLSv1_1, 7), (ssl.TLSVersion.TLSv1_2, 0)):
        place = front(places[who], good, newest=newest)
        assert speaks(place) == newest.name.replace("_", ".")
        hub.location_base = place if who == "bytes" else front(hub.cdn.url, good)
        env["HF_ENDPOINT"] = place if who == "endpoint" else hub.url
        name = f"out-{status}"
        done = user.quick("fetch", "org/big", "model.safetensors", "--to", name, "--patience", "1s", **env)
        assert done.status == status, done.err
        assert hub.cdn.count() == 0 or status == 0
    assert contents(user.home / "out-0")["model.safetensors"] == expected(big)["model.safetensors"]


# --- elsewhere ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.fault(
    "redirect: to another host",
    where="server",
    does="Follows it for the bytes, and sends no token there.",
    sees="nothing",
    status=0,
)
def test_a_redirect_to_another_host(user: User, serve: Serve, big: Repo, front: Front, status: int) -> None:
    hub = serve(big)
    other = front(hub.cdn.url, host="127.0.0.2")
    hub.cdn.fault("model.safetensors", "redirect", times=20, status=status, to=other)
    user.quick("fetch", "org/big", "--to", "out", HF_TOKEN="hf_good", **QUICK).ok()
    assert contents(user.home / "out") == expected(big)
    assert not any("authorization" in seen.headers for seen in hub.cdn.requests)


@pytest.mark.fault(
    "redirect: from HTTP to HTTPS",
    where="server",
    does="Follows it and verifies the certificate.",
    sees="nothing",
    status=0,
)
def test_a_redirect_from_http_to_https(
    user: User, serve: Serve, big: Repo, front: Front, certificates: dict[str, Path]
) -> None:
    hub = serve(big)
    there = front(hub.cdn.url, certificates["good"])
    hub.cdn.fault("model.safetensors", "redirect", times=1, status=301, to=there)
    user.quick("fetch", "org/big", "--to", "out", SSL_CERT_FILE=str(certificates["good"]), **QUICK).ok()
    assert contents(user.home / "out") == expected(big)


@pytest.mark.fault(
    "redirect: from HTTPS to HTTP",
    where="server",
    does="Does not follow it.",
    sees="that the redirect leaves the encrypted connection",
    status=7,
)
def test_a_redirect_from_https_to_http(
    user: User, serve: Serve, big: Repo, front: Front, certificates: dict[str, Path]
) -> None:
    hub = serve(big)
    env = {"HF_ENDPOINT": front(hub.url, certificates["good"]), "SSL_CERT_FILE": str(certificates["good"]), **QUICK}
    done = user.quick("fetch", "org/big", "--to", "out", "--patience", "1s", "--json", **env)
    assert done.status == 7
    assert "not encrypted" in done.out
    assert hub.cdn.count() == 0


# --- the hub's own answers ----------------------------------------------------------------------------------------

HUB: list[Any] = []
for name, target, args, does in (
    ("hub: 503 for the first request, a few times", "/revision/", {"status": 503, "times": 2}, "Retries."),
    ("hub: 502 for the file list, a few times", "/tree/", {"status": 502, "times": 2}, "Retries."),
    ("hub: 500 when a file is resolved, a few times", "/resolve/", {"status": 500, "times": 2}, "Retries."),
    (
        "hub: 429 when a file is resolved, with Retry-After",
        "/resolve/",
        {"status": 429, "times": 2, "headers": {"Retry-After": "1"}},
        "Waits for the requested time.",
    ),
    (
        "hub: login page when a file is resolved, a few times",
        "/resolve/",
        {"status": 200, "times": 2, "body": b"<html>", "headers": {"Content-Type": "text/html"}},
        "Detects that the response is not a hub's, and retries.",
    ),
):
    text = {"where": "server", "does": does, "sees": "nothing, or one line about the wait", "status": 0}
    HUB.append(pytest.param(target, args, id=name, marks=pytest.mark.fault(name, **text)))


@pytest.mark.parametrize(("target", "args"), HUB)
def test_a_hub_with_temporary_errors(user: User, serve: Serve, big: Repo, target: str, args: dict[str, Any]) -> None:
    serve(big).fault(target, **args)
    user.quick("fetch", "org/big", "--to", "out", "--patience", "20s", **QUICK).ok()
    assert contents(user.home / "out") == expected(big)


@pytest.mark.parametrize(
    ("target", "args", "says"),
    [
        pytest.param(
            "/revision/",
            {"status": 302, "headers": {"Location": "?again"}},
            "loop",
            id="circle",
            marks=pytest.mark.fault(
                "hub: redirect loop",
                where="server",
                does="Follows a few redirects, then stops.",
                sees="the URL that redirects in a loop",
                status=7,
            ),
        ),
        pytest.param(
            "/revision/",
            {"status": 200, "body": b"<html>", "headers": {"Content-Type": "text/html"}},
            "captive portal",
            id="login page",
            marks=pytest.mark.fault(
                "hub: login page with 200",
                where="server",
                does="Stops.",
                sees="that the response is not a hub's, perhaps a captive portal",
                status=7,
            ),
        ),
        pytest.param(
            "/tree/",
            {"status": 429, "headers": {"Retry-After": "3600"}},
            "patience",
            id="429",
            marks=pytest.mark.fault(
                "hub: 429 with a wait longer than `--patience`",
                where="server",
                does="Stops at once.",
                sees="the requested wait, and that a token raises the quota",
                status=7,
            ),
        ),
    ],
)
def test_an_unusable_hub(user: User, serve: Serve, big: Repo, target: str, args: dict[str, Any], says: str) -> None:
    hub = serve(big)
    hub.fault(target, **args)
    user.quick("fetch", "org/big", "--patience", "1s", **QUICK).refused(7, says)
    assert hub.cdn.count() == 0


# --- names --------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("unshare") is None, reason="needs root and unshare")
@pytest.mark.fault(
    "DNS: no response in mid-run, for a while",
    where="server",
    does="Open connections continue; new ones are retried until the name resolves again.",
    sees="nothing, or one line about the wait",
    status=0,
)
def test_a_name_that_stops_resolving_for_a_while(user: User, serve: Serve, tmp_path: Path) -> None:
    """The run uses its own hosts file, and a name server that does not respond."""
    data = random.Random(14).randbytes(9_000_000)  # one in 256 random files passes for a safetensors header
    repo = Repo.build("org/r", {f"{n}.safetensors": data[n:] for n in range(2)}, folder=tmp_path / "r", direct=True)
    hub = serve(repo, limit_rate=200_000)
    hosts, known = tmp_path / "hosts", "127.0.0.1 localhost hub.test\n"
    hosts.write_text(known)
    (tmp_path / "resolv").write_text("nameserver 127.0.0.9\noptions timeout:1 attempts:1\n")
    hub.location_base = hub.cdn.url.replace("127.0.0.1", "hub.test")
    env = {"HF_ENDPOINT": hub.url.replace("127.0.0.1", "hub.test"), **QUICK}
    own = f'mount --bind {hosts} /etc/hosts && mount --bind {tmp_path}/resolv /etc/resolv.conf && exec "$@"'
    words = ["unshare", "-m", "sh", "-c", own, "sh", *GPUARIA, "fetch", "org/r", "--to", "out", "-j", "1"]
    done: list[Any] = []
    run = threading.Thread(target=lambda: done.append(user.command(*words, "--patience", "30s", env=env)))
    run.start()
    wait_until(lambda: sum(seen.sent for seen in hub.cdn.requests) > 2_000_000)
    hosts.write_text("127.0.0.1 localhost\n")
    hub.cdn.fault("0.safetensors", "reset", times=3, after=100_000)
    time.sleep(4)
    hosts.write_text(known)
    run.join()
    done[0].ok()
    assert contents(user.home / "out") == expected(repo)
