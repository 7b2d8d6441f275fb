#!/usr/bin/env bash
# Install a GIMP for the tests: prepare.sh FOLDER SUITE, FOLDER absolute, SUITE of Debian (trixie: 3.0, forky: 3.2).
#
# The folder becomes a small Debian system; a second call does nothing. Needs root on Debian. Mounts live in a
# namespace of their own, so nothing has to be torn down, however this ends.
set -euo pipefail
folder=$1 suite=$2
[ -e "$folder/.ready" ] && exit 0
if [ "${PCONV_UNSHARED-}" != yes ]; then
    PCONV_UNSHARED=yes exec unshare --mount "$0" "$@"
fi

step() { "$@" >>"$folder.log" 2>&1 || { tail -n 20 "$folder.log" >&2; echo "$* failed, see $folder.log" >&2; exit 1; }; }
mirror() { # what this machine itself installs from; GIMP_TEST_MIRROR names another
    { apt-get indextargets --format '$(SITE) $(RELEASE)' 'Created-By: Packages' 2>/dev/null || true; } |
        awk '$2 !~ /security/ && $1 ~ /debian\/?$/ { print $1; exit }'
}

mkdir -p "$(dirname "$folder")"
: >"$folder.log"
exec 9>"$(dirname "$folder")/.prepare.lock"
flock 9 # two of these may run at once
if ! command -v debootstrap >/dev/null; then
    step apt-get update
    step env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends debootstrap
fi
exec 9>&-
scripts=/usr/share/debootstrap/scripts
script=$scripts/$suite
[ -e "$script" ] || script=$scripts/sid # a suite newer than this debootstrap
from=${GIMP_TEST_MIRROR-$(mirror)}
[ -n "$from" ] || { echo "no Debian mirror in this machine's apt sources; name one in GIMP_TEST_MIRROR" >&2; exit 1; }

rm -rf --one-file-system "$folder"
step debootstrap --variant=minbase "$suite" "$folder" "$from" "$script"
mount -t proc proc "$folder/proc"
mount --rbind /dev "$folder/dev"
cp -n /etc/apt/apt.conf.d/* "$folder/etc/apt/apt.conf.d/" # this machine's way to the mirror
printf '#!/bin/sh\nexit 101\n' >"$folder/usr/sbin/policy-rc.d" # starts no service
chmod +x "$folder/usr/sbin/policy-rc.d"
echo force-unsafe-io >"$folder/etc/dpkg/dpkg.cfg.d/fast" # a crash costs a new installation, nothing else
inside() { step chroot "$folder" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive "$@"; }
inside apt-get update
inside apt-get install -y --no-install-recommends gimp gir1.2-gimp-3.0 python3-gi \
    xvfb xauth xdotool openbox imagemagick dbus-x11
inside apt-get clean
touch "$folder/.ready"
