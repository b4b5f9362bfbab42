#!/usr/bin/env bash
# Makes what the virtual machine of the tests boots from Debian packages, below build/vm: a kernel, a small initial file system that
# finds the disk, and the root file system as a folder. The disk itself is made by `run`, with the project's programs on it.
#
#   tests/vm/build.sh OUT
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
out=${1:?the folder to write to}
root=$out/root

readonly PACKAGES=(linux-image-cloud-amd64 busybox-static kmod mount util-linux iproute2 nftables iptables ca-certificates
    systemd-sysv dbus procps runc containernetworking-plugins apparmor python3-minimal python3 musl-tools gcc libc6-dev
    libmicrohttpd12 libcurl4 libuv1 libyajl2 libarchive13 libsqlite3-0 libpq5 libcriterion3)
# What stands between the kernel and the disk.
readonly DISK_MODULES=(virtio_pci virtio_blk ext4)

# Where this machine gets its own Debian packages; nothing when it is no Debian: mmdebstrap then knows a mirror itself.
mirror() {
    # shellcheck disable=SC2016 # $(RELEASE) is apt's
    apt-get indextargets --no-release-info --format '$(RELEASE) $(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
        awk '$1 == "bookworm" || $1 == "stable" { print $2; exit }'
}

make_root() {
    local include sources
    include=$(IFS=, && echo "${PACKAGES[*]}")
    sources=$(mirror)
    rm -rf "$root"
    local options=(--mode=root --variant=apt --include="$include"
        --dpkgopt=path-exclude=/usr/share/doc/* --dpkgopt=path-exclude=/usr/share/man/* --dpkgopt=path-exclude=/usr/share/locale/*)
    if [ -n "$sources" ]; then
        mmdebstrap "${options[@]}" bookworm "$root" - <<<"deb $sources bookworm main"
    else
        mmdebstrap "${options[@]}" bookworm "$root"
    fi
    rm -rf "$root"/var/lib/apt/lists "$root"/var/cache/apt
    install -m 0755 "$here/init" "$root/sbin/faas-vm-init"
    install -m 0755 "$here/run-tests" "$root/sbin/faas-vm-tests"
    install -m 0644 "$here/faas-vm-tests.service" "$root/lib/systemd/system/"
}

# The modules in the order in which they are loaded, and a shell that loads them.
make_initrd() {
    local tree=$out/initrd version module
    version=$(basename "$(echo "$root"/lib/modules/*)")
    rm -rf "$tree"
    mkdir -p "$tree"/{bin,proc,sys,dev,disk,modules}
    cp "$root/bin/busybox" "$tree/bin/busybox"
    for module in "${DISK_MODULES[@]}"; do
        chroot "$root" modprobe --show-depends --set-version "$version" "$module" | sed -n 's/^insmod \([^ ]*\).*/\1/p'
    done | awk '!seen[$0]++' >"$tree/modules/order"
    while read -r module; do
        cp "$root$module" "$tree/modules/"
    done <"$tree/modules/order"
    install -m 0755 "$here/initrd-init" "$tree/init"
    (cd "$tree" && find . -print0 | cpio --null --quiet -o -H newc) | gzip -1 >"$out/initrd.gz"
    cp "$root"/boot/vmlinuz-* "$out/vmlinuz"
}

mkdir -p "$out"
make_root
make_initrd
