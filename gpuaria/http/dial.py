"""Open a TCP connection along a route, for range connections and the relay in front of aria2c."""

import socket

from gpuaria.http.route import Proxy, Route, Routes

_HEAD = 16 * 1024  # maximum bytes of a proxy's response head


def dial(route: Route, routes: Routes) -> socket.socket:
    """Connect to a server, through its proxy if there is one. Raises OSError.

    TLS has not started on the socket. Its time-out is the connect time-out.
    """
    seconds = routes.timeouts.connect
    if route.proxy is None:
        return _connect_directly(route, routes, seconds)
    sock = socket.create_connection((route.proxy.host, route.proxy.port), seconds)
    try:
        if route.proxy.scheme.startswith("socks5"):
            _socks5_tunnel(sock, route, route.proxy)
        elif route.proxy.scheme == "http":
            _http_tunnel(sock, route, route.proxy)
        else:  # TLS in TLS: two threads cannot use one ssl.SSLSocket concurrently
            raise ConnectionError(f"unsupported proxy type {route.proxy.scheme}")
    except BaseException:
        sock.close()
        raise
    return sock


def _connect_directly(route: Route, routes: Routes, seconds: float) -> socket.socket:
    failure = OSError(f"no IP address found for {route.host}")
    for address in route.addresses or (route.host,):
        try:
            sock = socket.create_connection((address, route.port), seconds)
        except OSError as error:
            failure = error
            continue
        if route.addresses:
            routes.address_source.confirm(route.host, address)
        return sock
    raise failure


def _http_tunnel(sock: socket.socket, route: Route, proxy: Proxy) -> None:
    """Open a tunnel by CONNECT (RFC 9110 9.3.6)."""
    host = f"[{route.host}]" if ":" in route.host else route.host
    head = f"CONNECT {host}:{route.port} HTTP/1.1\r\nHost: {host}:{route.port}\r\n"
    if proxy.authorization:
        head += f"Proxy-Authorization: {proxy.authorization}\r\n"
    sock.sendall(f"{head}\r\n".encode("latin-1"))
    response = b""
    while not response.endswith(b"\r\n\r\n"):
        byte = sock.recv(1)  # bytes after the head come from the server
        response += byte
        if not byte or len(response) > _HEAD:
            raise ConnectionError(f"the proxy {proxy} sent an invalid response to CONNECT")
    status = response.split(b"\r\n")[0].decode("latin-1").partition(" ")[2][:60]
    if not status.startswith("2"):
        raise ConnectionError(f"the proxy {proxy} refuses a tunnel: {status}")


def _socks5_tunnel(sock: socket.socket, route: Route, proxy: Proxy) -> None:
    """Open a tunnel by SOCKS 5, with or without a password (RFC 1928, 1929); the proxy resolves the name."""
    credential = proxy.credential()
    sock.sendall(b"\x05\x01\x02" if credential else b"\x05\x01\x00")
    method = _receive_exactly(sock, 2)[1]
    if method == 2 and credential:
        user, password = (text.encode()[:255] for text in credential)
        sock.sendall(b"\x01" + bytes([len(user)]) + user + bytes([len(password)]) + password)
        accepted = _receive_exactly(sock, 2)[1] == 0
    else:
        accepted = method == 0
    if not accepted:
        raise ConnectionError(f"the proxy {proxy} rejects the credentials")
    host = route.host.encode("idna")[:255]
    sock.sendall(b"\x05\x01\x00\x03" + bytes([len(host)]) + host + route.port.to_bytes(2, "big"))
    _, status, _, kind = _receive_exactly(sock, 4)
    if status:
        raise ConnectionError(f"the proxy {proxy} refuses a tunnel: status {status}")
    bound = {1: 4, 4: 16}.get(kind) or _receive_exactly(sock, 1)[0]  # length of the bound address, which is skipped
    _receive_exactly(sock, bound + 2)


def _receive_exactly(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        chunk = sock.recv(count - len(data))
        if not chunk:
            raise ConnectionError("the proxy closed the connection")
        data += chunk
    return data
