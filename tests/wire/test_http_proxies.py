"""One proxy decision for our HTTP client and the real aria2c, for every form of the environment."""

from __future__ import annotations

import base64
import random
from pathlib import Path

import pytest

from gpuaria.aria2.options import proxy_options
from gpuaria.errors import ConfigError
from gpuaria.http.ratelimit import TokenBucket
from gpuaria.http.route import Routes
from gpuaria.transfer.aria2_path import Aria2Path
from standin import Repo
from tests.support.proxies import ForwardProxy, SocksProxy
from tests.support.repos import contents, expected
from tests.support.user import Serve, User

PASSWORD = "Basic " + base64.b64encode(b"me:word").decode()


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    """Return org/r: a large file for aria2 and a small one for our client."""
    files = {"w.safetensors": random.Random(3).randbytes(20_000_000), "config.json": b"{}"}
    return Repo.build("org/r", {**files}, folder=tmp_path / "r", direct=True)


def clients(proxy: ForwardProxy) -> set[str]:
    """Return which clients used the proxy: aria2 by its own request, or by a tunnel of the relay."""
    return {"relay" if one.method == "CONNECT" and not one.client else one.method for one in proxy.asked}


@pytest.mark.parametrize(
    ("environ", "through"),
    [
        ({"http_proxy": "http://PLACE"}, True),
        ({"HTTP_PROXY": "http://PLACE"}, True),
        ({"HTTP_PROXY": "PLACE"}, True),
        ({"ALL_PROXY": "http://PLACE"}, True),
        ({"http_proxy": "http://PLACE", "HTTP_PROXY": "http://127.0.0.1:9"}, True),
        ({"http_proxy": "http://PLACE", "all_proxy": "socks5://127.0.0.1:9"}, True),
        ({"http_proxy": "", "HTTP_PROXY": "http://127.0.0.1:9"}, False),
        ({"https_proxy": "http://127.0.0.1:9"}, False),
        ({"http_proxy": "http://127.0.0.1:9", "no_proxy": "*"}, False),
        ({"HTTP_PROXY": "http://127.0.0.1:9", "NO_PROXY": "127.0.0.1"}, False),
        ({"all_proxy": "socks5://127.0.0.1:9", "no_proxy": "127.0.0.1"}, False),
    ],
)
def test_both_clients_take_the_same_route(
    user: User, serve: Serve, repo: Repo, environ: dict[str, str], through: bool
) -> None:
    hub = serve(repo)
    with ForwardProxy() as proxy:
        env = {name: value.replace("PLACE", proxy.place) for name, value in environ.items()}
        done = user.run("fetch", "org/r", "--to", "out", "--json", **env).ok()
        assert contents(user.home / "out") == expected(repo)
        ranges = sum(seen.status == 206 for seen in hub.cdn.requests)
        assert ranges > 4, "aria2 fetched the large file in segments"
        if not through:
            assert proxy.asked == []
            return
        assert len([one for one in proxy.asked if one.method == "GET"]) >= len(hub.requests)
        assert len(proxy.asked) >= hub.count() + hub.cdn.count(), "every request, of both clients"
        assert not [event for event in done.events if event["event"] == "warned"]


def test_a_proxy_password_does_not_become_an_option(user: User, serve: Serve, repo: Repo) -> None:
    """aria2c uses the relay, which has the password."""
    hub = serve(repo)
    with ForwardProxy(PASSWORD) as proxy:
        user.run("fetch", "org/r", "--to", "out", http_proxy=f"http://me:word@{proxy.place}").ok()
        assert contents(user.home / "out") == expected(repo)
        assert "relay" in clients(proxy)
        assert all(one.authorization == PASSWORD for one in proxy.asked)
        assert sum(seen.status == 206 for seen in hub.cdn.requests) > 4


@pytest.mark.parametrize("password", ["", "me:word"])
def test_a_socks_proxy_serves_both_clients(user: User, serve: Serve, repo: Repo, password: str) -> None:
    """aria2c does not support SOCKS; the relay does."""
    hub = serve(repo)
    with SocksProxy(password) as proxy:
        at = f"{password}@" if password else ""
        user.run("fetch", "org/r", "--to", "out", all_proxy=f"socks5://{at}{proxy.place}").ok()
        assert contents(user.home / "out") == expected(repo)
        places = {one.target for one in proxy.asked}
        assert places == {hub.url.removeprefix("http://"), hub.cdn.url.removeprefix("http://")}
        assert {one.authorization for one in proxy.asked} == {password}
        assert sum(seen.status == 206 for seen in hub.cdn.requests) > 4


def test_options_of_aria2_for_mixed_routes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    both = ["http://one.example/x", "https://two.example/x"]
    assert Aria2Path(Routes(), TokenBucket(0)).options(both) == proxy_options()
    monkeypatch.setenv("https_proxy", "proxy.example:3128")
    assert Aria2Path(Routes(), TokenBucket(0)).options(both) == proxy_options("", "http://proxy.example:3128")
    monkeypatch.setenv("no_proxy", ".local.example")
    near = "https://a.local.example/x"
    path = Aria2Path(Routes(), TokenBucket(0))
    assert path.options([*both, near]) == proxy_options("", "http://proxy.example:3128", ["a.local.example"])
    monkeypatch.setenv("http_proxy", "proxy.example:3128")
    limited = Aria2Path(Routes(), TokenBucket(1000))
    assert limited.options(both[:1]) == {**proxy_options("http://proxy.example:3128"), "max-download-limit": "1000"}
    relayed = limited.options([near])
    assert relayed["https-proxy"].startswith("http://gpuaria:")
    assert (relayed["proxy-method"], relayed["no-proxy"]) == ("tunnel", "")
    limited.close()
    monkeypatch.setenv("https_proxy", "http://[me:word")
    with pytest.raises(ConfigError) as caught:
        Aria2Path(Routes(), TokenBucket(0)).options(both[1:])
    assert "word" not in str(caught.value)
