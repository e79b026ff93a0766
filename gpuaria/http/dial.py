"""A plain connection to a server along its route: for range connections, and for the relay in front of aria2c."""

import socket

from gpuaria.http.route import Proxy, Route, Routes

_HEAD = 16 * 1024  # bytes of a proxy's response at most


def dial(route: Route, routes: Routes) -> socket.socket:
    """Connect to a server, through its proxy if it has one. Raises OSError.

    The socket carries the server's bytes, TLS not begun; its time-out is the one for connecting.
    """
    seconds = routes.timeouts.connect
    if route.proxy is None:
        return _direct(route, routes, seconds)
    line = socket.create_connection((route.proxy.host, route.proxy.port), seconds)
    try:
        if route.proxy.scheme == "https":
            line = routes.context().wrap_socket(line, server_hostname=route.proxy.host)
        _connect(line, route, route.proxy)
    except BaseException:
        line.close()
        raise
    return line


def _direct(route: Route, routes: Routes, seconds: float) -> socket.socket:
    failure = OSError(f"no address is known for {route.host}")
    for address in route.addresses or (route.host,):
        try:
            line = socket.create_connection((address, route.port), seconds)
        except OSError as error:
            failure = error
            continue
        if route.addresses:
            routes.names.good(route.host, address)
        return line
    raise failure


def _connect(line: socket.socket, route: Route, proxy: Proxy) -> None:
    """CONNECT (RFC 9110 9.3.6)."""
    host = f"[{route.host}]" if ":" in route.host else route.host
    head = f"CONNECT {host}:{route.port} HTTP/1.1\r\nHost: {host}:{route.port}\r\n"
    if proxy.authorization:
        head += f"Proxy-Authorization: {proxy.authorization}\r\n"
    line.sendall(f"{head}\r\n".encode("latin-1"))
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        byte = line.recv(1)  # what follows the head is the server's
        answer += byte
        if not byte or len(answer) > _HEAD:
            raise ConnectionError(f"the proxy {proxy} does not answer properly")
    status = answer.split(b"\r\n")[0].decode("latin-1").partition(" ")[2][:60]
    if not status.startswith("2"):
        raise ConnectionError(f"the proxy {proxy} refuses a tunnel: {status}")
