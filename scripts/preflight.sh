#!/bin/sh
# What this machine lacks, and the one line that cures it. POSIX sh: Python itself may be missing.
#
#   scripts/preflight.sh            prints the Python to use on stdout; complaints go to stderr
#
# Exit codes: 0 all there; 1 something is missing (one apt-get line on stderr); 2 this platform cannot work.
# Set PYTHON to choose the interpreter.
set -eu

say() { printf 'preflight: %s\n' "$*" >&2; }

case "$(uname -s)-$(uname -m)" in
    Linux-x86_64) ;;
    *) say "$(uname -s) on $(uname -m) is not supported: pyrealsense2, mediapipe and embreex are locked for Linux on x86_64"
       exit 2 ;;
esac

python=
for candidate in ${PYTHON:-python3 python3.12 python3.11}; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' >/dev/null 2>&1; then
        python=$candidate
        break
    fi
done
if [ -n "${PYTHON:-}" ] && [ -z "$python" ]; then
    say "PYTHON=$PYTHON is not a working Python 3.11 or 3.12"
    exit 2
fi

missing=
need() { case " $missing " in *" $1 "*) ;; *) missing="$missing $1" ;; esac; }

if [ -z "$python" ]; then
    if command -v python3 >/dev/null 2>&1; then
        say "python3 is $(python3 --version 2>&1 | cut -d' ' -f2), 3.11 or 3.12 is needed"
    fi
    need python3
    need python3-venv
elif ! "$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then
    need python3-venv
fi

# Debian keeps ldconfig outside a user's PATH. A library that only LD_LIBRARY_PATH knows is found by opening it.
has_library() {
    if [ -n "$python" ]; then
        "$python" -c "import ctypes; ctypes.CDLL('$1')" >/dev/null 2>&1
    else
        PATH="$PATH:/sbin:/usr/sbin" ldconfig -p 2>/dev/null | grep -q "$1 .*x86-64"
    fi
}

# Found by ldd over the wheels of the lock: mediapipe links the first two, pyrealsense2 libudev and libstdc++
# (its libusb comes with the libusb-package wheel), the rest is in every glibc system.
while read -r library package; do
    has_library "$library" || need "$package"
done <<'TABLE'
libEGL.so.1 libegl1
libGLESv2.so.2 libgles2
libudev.so.1 libudev1
libstdc++.so.6 libstdc++6
TABLE

if [ -n "$missing" ]; then
    say "missing on this machine:$missing"
    root=
    [ "$(id -u)" = 0 ] || root="sudo "
    say "install it with this one line, then run the same make command again:"
    printf '%sapt-get update && %sapt-get install --yes --no-install-recommends%s\n' "$root" "$root" "$missing" >&2
    exit 1
fi
printf '%s\n' "$python"
