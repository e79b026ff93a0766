#!/bin/sh
# Create a virtual environment and install packages: bootstrap.sh VENV PIP-INSTALL-ARGUMENT...
# PYTHON: the interpreter to try first.
set -eu
venv=$1
shift

find_python() {
    for name in ${PYTHON:-} python3.11 python3.12 python3.13 python3.14 python3; do
        path=$(command -v "$name" 2>/dev/null) || continue
        if "$path" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$path"
            return
        fi
    done
    echo "gpuaria needs Python 3.11 or later; there is none on this machine (apt install python3)." >&2
    exit 1
}

make_venv() {
    python=$(find_python)
    "$python" -m venv "$venv" >/dev/null 2>&1 && return
    rm -rf "$venv"
    # Debian has ensurepip in a separate package.
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        { apt-get update -qq && apt-get install -y -qq "python$version-venv"; } >/dev/null 2>&1 || true
    fi
    "$python" -m venv "$venv" >/dev/null && return
    echo "Python cannot make a virtual environment here: apt install python3-venv, then try again." >&2
    exit 1
}

[ -x "$venv/bin/python" ] || make_venv
echo "setting up $venv ..." >&2
if ! "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "$@" 2>"$venv/pip.log"; then
    cat "$venv/pip.log" >&2
    echo "The packages could not be installed; is a package index reachable?" >&2
    exit 1
fi
