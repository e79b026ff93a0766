"""The byte server as a real nginx in a separate process, which ends with this one."""

from __future__ import annotations

import grp
import http.client
import itertools
import json
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from .bytes_server import ByteServer
from .http_server import SYNC_PATH, Seen
from .repo import Repo
from .signing import AUTH_REFUSED, BAD_SIGNATURE, EXPIRED, NO_SUCH_KEY, Signer

# fd 3: the listening socket, inherited as in an nginx binary upgrade (no race for the port);
# fd 4: a pipe that closes when the parent process closes it or dies.
_WATCH = """
exec 3<&0 4<&1 </dev/null >/dev/null
NGINX="3;" "$@" 4<&- &
exec 3<&-
read -r _ <&4
kill $! 2>/dev/null
wait $!
rm -rf "$PREFIX"
"""
_LOGGED = ("authorization", "cookie", "range", "user_agent", "host", "accept_encoding", "referer", "if_range")
_CONF = """
daemon off;
%(user)s
worker_processes 1;
pid "%(prefix)s/nginx.pid";
error_log "%(prefix)s/error.log" warn;
events { worker_connections 4096; }
http {
  client_body_temp_path "%(prefix)s/temp/body"; proxy_temp_path "%(prefix)s/temp/proxy";
  fastcgi_temp_path "%(prefix)s/temp/fastcgi"; uwsgi_temp_path "%(prefix)s/temp/uwsgi";
  scgi_temp_path "%(prefix)s/temp/scgi";
  log_format standin escape=json '{"method":"$request_method","target":"$request_uri","status":"$status",'
    '"sent":"$body_bytes_sent","headers":{%(logged)s}}';
  access_log "%(prefix)s/access.log" standin;
  sendfile on; tcp_nopush on; tcp_nodelay on; keepalive_requests 1000000; server_tokens off;
  etag off; max_ranges 1; limit_rate %(limit_rate)d; types {} default_type application/octet-stream;
  map $args $signature { ~(?:^|&)(?:X-Amz-)?Signature=([^&]+) $1; }
  map $args $expiry { ~(?:^|&)(?:Expires|X-Amz-Security-Token)=([0-9]+) $1; }
  map "$request_method $args" $method_signed { ~^HEAD.*X-Amz-Signature= 0; default 1; }
  server {
    listen %(host)s:%(port)d;
    if ($http_authorization) { return 463; }
    error_page 463 =400 @auth; error_page 464 =403 @bad; error_page 465 =403 @expired; error_page 404 @missing;
    location @auth { default_type application/xml; return 400 '%(auth)s'; }
    location @bad { default_type application/xml; return 403 '%(bad)s'; }
    location @expired { default_type application/xml; return 403 '%(expired)s'; }
    location @missing { default_type application/xml; return 404 '%(missing)s'; }
    location = %(sync)s { return 204; }
    location / { return 404; }
    location ~ "^/xet-bridge-us/[0-9a-f]{24}/(?<object>[0-9a-f]{64})$" {
      secure_link $signature,$expiry;
      secure_link_md5 "$secure_link_expires$uri %(secret)s";
      if ($method_signed = 0) { return 464; }
      if ($secure_link = "") { return 464; }
      if ($secure_link = "0") { return 465; }
      root "%(prefix)s/root";
      add_header ETag '"$object"';
    }
  }
}
"""


def find_nginx() -> str | None:
    """Return the path of an nginx binary, None if there is none."""
    return shutil.which("nginx") or shutil.which("/usr/sbin/nginx")


class NginxBytes(ByteServer):
    """The byte server run by nginx. Its journal has finished requests only, with a few of their headers."""

    def __init__(self, signer: Signer, *, host: str = "127.0.0.1", port: int = 0, limit_rate: int = 0) -> None:
        binary = find_nginx()
        if binary is None:
            raise ValueError("nginx is not installed: use Hub(..., server='embedded')")
        self.signer = signer
        self._prefix = Path(tempfile.mkdtemp(prefix="standin-nginx-"))
        self._ticket = itertools.count(1)
        with socket.create_server((host, port), backlog=512) as listener:
            self._address: tuple[str, int] = listener.getsockname()[:2]
            self._prepare(limit_rate)
            self._watch, pipe = self._launch(binary, listener)
        self._pipe = pipe
        self.url = f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{self._address[1]}"
        try:
            self._sync()
        except (OSError, http.client.HTTPException) as error:
            log = (self._prefix / "start.log").read_text()
            self.close()
            raise RuntimeError(f"nginx did not start: {log.strip() or error}") from error

    @property
    def requests(self) -> list[Seen]:
        """The finished requests so far. Waits until nginx has logged all requests finished before this call."""
        mark = self._sync()
        path = self._prefix / "access.log"
        while True:
            lines = path.read_bytes().splitlines(keepends=True)
            seen = [_parse(line) for line in lines if line.endswith(b"\n")]
            if any(one.target == mark for one in seen):
                return [one for one in seen if not one.target.startswith(SYNC_PATH)]
            time.sleep(0.001)

    def reset(self) -> None:
        """Clear the journal."""
        self._sync()
        os.truncate(self._prefix / "access.log", 0)

    def close(self) -> None:
        """Stop nginx, wait until it has exited, and remove its folder."""
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1
            self._watch.wait(timeout=20)

    def attach(self, key: str, folder: Path, repo: Repo) -> None:
        """Serve the files of folder below key."""
        link = self._prefix / "root" / "xet-bridge-us" / key
        if not link.is_symlink():
            link.symlink_to(folder)

    def _prepare(self, limit_rate: int) -> None:
        for name in ("temp", "root/xet-bridge-us"):
            (self._prefix / name).mkdir(parents=True)
        user = ""
        if os.geteuid() == 0:  # a worker without root could not read private folders
            user = f"user {pwd.getpwuid(0).pw_name} {grp.getgrgid(os.getegid()).gr_name};"
        values = {
            "prefix": self._prefix,
            "user": user,
            "host": self._address[0],
            "port": self._address[1],
            "logged": ",".join(f'"{name.replace("_", "-")}":"$http_{name}"' for name in _LOGGED),
            "limit_rate": limit_rate,
            "secret": self.signer.secret,
            "sync": SYNC_PATH,
            "auth": AUTH_REFUSED.decode(),
            "bad": BAD_SIGNATURE.decode(),
            "expired": EXPIRED.decode(),
            "missing": NO_SUCH_KEY.decode(),
        }
        conf = self._prefix / "nginx.conf"
        conf.write_text(_CONF % values)
        conf.chmod(0o600)

    def _launch(self, binary: str, listener: socket.socket) -> tuple[subprocess.Popen[bytes], int]:
        reader, writer = os.pipe()
        command = [binary, "-e", "stderr", "-p", str(self._prefix), "-c", str(self._prefix / "nginx.conf")]
        try:
            with (self._prefix / "start.log").open("wb") as log:
                watch = subprocess.Popen(
                    ["/bin/sh", "-c", _WATCH, "sh", *command],
                    stdin=listener.fileno(),
                    stdout=reader,
                    stderr=log,
                    env={**os.environ, "PREFIX": str(self._prefix)},
                    start_new_session=True,
                )
        except OSError:
            os.close(writer)
            shutil.rmtree(self._prefix)
            raise
        finally:
            os.close(reader)
        return watch, writer

    def _sync(self) -> str:
        """Send a logged request and return its target: the only worker has then logged all earlier requests."""
        target = f"{SYNC_PATH}?{next(self._ticket)}"
        connection = http.client.HTTPConnection(*self._address, timeout=20)
        try:
            connection.request("GET", target)
            connection.getresponse().read()
        finally:
            connection.close()
        return target


def _parse(line: bytes) -> Seen:
    record = json.loads(line)
    headers = {name: value for name, value in record["headers"].items() if value}
    return Seen(record["method"], record["target"], headers, int(record["status"]), int(record["sent"]))
