#!/usr/bin/env bash
# Proves the README's promise where nothing is installed: a minimal Debian 12 chroot, a user without rights, only `make`
# added. Preflight must name what is missing in one line; that line and no other is run; then set-up, doctor, demo.
#
#   scripts/bare.sh [FOLDER]     FOLDER keeps the chroot for the next run; without it a temporary one is removed
#
# Environment: DEBIAN_MIRROR, DEBIAN_SUITE, TORCH_INDEX. pip's and apt's own settings of this machine (configuration
# files, PIP_* variables, local wheel folders, resolver) are passed on as they are.
# Exit codes: 0 proved, 1 a step failed, 3 not possible on this machine (the reason is printed).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

impossible() { echo "bare: not possible here: $*" >&2; exit 3; }
step() { echo "bare: $*" >&2; }

[[ "$(uname -s)-$(uname -m)" == Linux-x86_64 ]] || impossible "Linux on x86_64 is needed"
[[ "$(id -u)" == 0 ]] || impossible "making a chroot needs root: sudo make bare"
command -v debootstrap >/dev/null || impossible "debootstrap is missing: apt-get install debootstrap"
command -v git >/dev/null || impossible "git is missing: the tracked files are what gets tested"
if [[ -z "${MMDG_BARE_INSIDE:-}" ]]; then
    # Mounts made in a namespace of our own vanish with us, however we end.
    unshare --mount --propagation private true 2>/dev/null || impossible "no mount namespace (a locked-down container?)"
    MMDG_BARE_INSIDE=1 exec unshare --mount --propagation private -- "$0" "$@"
fi

mounts_below_root() { awk -v root="$root/" 'index($2, root) == 1 {print $2}' /proc/mounts | sort -r; }
remove_root() {
    # A folder of this machine that is still mounted below would be emptied with the chroot: --one-file-system does
    # not see a bind mount of the same file system. So nothing is removed while anything is mounted.
    mounts_below_root | xargs -r umount || true
    if [[ -n "$(mounts_below_root)" ]]; then
        step "left as it is, something is still mounted below: $root"
        return
    fi
    rm -rf --one-file-system "$root"
}

suite=${DEBIAN_SUITE:-bookworm}
if [[ $# -gt 0 ]]; then
    root=$(realpath -m "$1")
else
    root=$(mktemp -d /var/tmp/mmdg-bare.XXXXXX)
    chmod 755 "$root"  # it becomes / of a user without rights
    # --one-file-system: never through a mount, should one be left.
    trap remove_root EXIT
fi
if [[ ! -e "$root/etc/debian_version" ]]; then
    step "debootstrap --variant=minbase $suite"
    debootstrap --variant=minbase "$suite" "$root" "${DEBIAN_MIRROR:-http://deb.debian.org/debian}" >"$root.log" 2>&1 \
        || { tail -5 "$root.log" >&2; impossible "debootstrap failed, its log is $root.log"; }
    rm -f "$root.log"
fi
mount -t proc proc "$root/proc" || impossible "proc cannot be mounted"
mount --rbind /dev "$root/dev" || impossible "/dev cannot be bound"
# Every Linux has it; mediapipe's allocator counts the processors there and aborts without.
mount -t sysfs -o ro sysfs "$root/sys" || mount --rbind /sys "$root/sys" || impossible "/sys cannot be mounted"

pass_on() {  # a file or folder of this machine, at the same path inside
    if [[ -e "$1" ]]; then
        mkdir -p "$root$(dirname "$1")"
        cp -aL "$1" "$root$(dirname "$1")/"
    fi
}
for path in /etc/resolv.conf /etc/hosts /etc/pip.conf /etc/xdg/pip "${PIP_CONFIG_FILE:-}"; do
    [[ -z "$path" ]] || pass_on "$path"
done
# Under a path of its own: installing ca-certificates inside rewrites the usual one.
bundle=${PIP_CERT:-${REQUESTS_CA_BUNDLE:-${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}}}
if [[ -e "$bundle" ]]; then
    cp -L "$bundle" "$root/etc/passed-on-certificates.crt"
    export PIP_CERT=/etc/passed-on-certificates.crt
fi
for folder in ${PIP_FIND_LINKS:-}; do
    if [[ -d "$folder" ]]; then
        mkdir -p "$root$folder"
        mount --bind "$folder" "$root$folder"
        mount -o remount,bind,ro "$root$folder"  # whatever goes wrong here, that folder stays as it is
    fi
done
apt-config dump | grep -E '^Acquire::(http|https)::' >"$root/etc/apt/apt.conf.d/90passed-on" || true

inside() {  # run a command in the chroot with pip's and proxy settings only
    local passed=()
    while IFS= read -r name; do passed+=("$name=${!name}"); done \
        < <(compgen -e | grep -iE '^(PIP_|(http|https|no|all)_proxy$)')
    env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive \
        "${passed[@]}" chroot "$root" "$@" </dev/null
}
as_user() {  # the same as the user without rights, in the clone
    local kept
    kept=$(compgen -e | grep -iE '^(PIP_|(http|https|no|all)_proxy$)' | paste -sd, -)
    inside su --login visitor --whitelist-environment="$kept" --command "cd mmdg-live && $*"
}

step "adding a user and make, nothing else"
inside apt-get update -qq
inside apt-get install -y -qq --no-install-recommends make >/dev/null
inside id visitor >/dev/null 2>&1 || inside useradd --create-home visitor
rm -rf --one-file-system "$root/home/visitor/mmdg-live"
mkdir "$root/home/visitor/mmdg-live"
git ls-files -z | tar --null --files-from=- --create --ignore-failed-read | tar --extract --directory="$root/home/visitor/mmdg-live"
inside chown -R visitor: /home/visitor/mmdg-live

if [[ ! -e "$root/usr/lib/x86_64-linux-gnu/libGLESv2.so.2" ]]; then
    step "make set-up must stop and name one line"
    if complaint=$(as_user make set-up 2>&1); then
        echo "$complaint"; step "set-up succeeded on a machine that lacks libraries: preflight looks wrong"; exit 1
    fi
    echo "$complaint" >&2
    line=$(grep 'apt-get install' <<<"$complaint") || { step "no apt-get line in the answer"; exit 1; }
    [[ "$(wc -l <<<"$line")" == 1 ]] || { step "more than one apt-get line"; exit 1; }
    step "running that line"
    inside sh -c "${line//sudo /}" >/dev/null
fi
step "make set-up"
as_user "make set-up TORCH_INDEX='${TORCH_INDEX:-}'"
step "mmdg doctor"
as_user "env OMP_WAIT_POLICY=PASSIVE .venv/bin/mmdg doctor"
step "make demo"
as_user "make demo TORCH_INDEX='${TORCH_INDEX:-}'"
step "proved: preflight, set-up, doctor and demo on a minimal Debian $suite"
