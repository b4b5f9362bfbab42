# Steps that the recipes share. A recipe (runtime-images/NAME/recipe.sh) sets
#
#   suites     Debian releases that its packages come from, the first one being the base
#   packages   what is installed, with all that it depends on
#   image_env  the image's environment beyond PATH and LANG, NAME=value
#   image_cmd  what a container of the image runs when nothing else is asked for
#
# and defines customize ROOTFS (what makes the packages' files an image) and check ROOTFS (proof that it works).
# shellcheck shell=bash disable=SC2154 # the recipes assign them

readonly FUNCTION_UID=1000

# run_in ROOTFS UID COMMAND...: runs COMMAND there, without network, in namespaces whose mounts and processes end with it.
run_in() {
    # shellcheck disable=SC2016 # the inner shell's own parameters
    unshare --mount --pid --net --fork --kill-child sh -ec '
        root=$1 user=$2
        shift 2
        mount -t proc -o nosuid,nodev,noexec proc "$root/proc"
        mount --rbind /dev "$root/dev"
        mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
        exec chroot --userspec="$user:$user" "$root" "$@"
    ' run_in "$@"
}

in_root() {
    local root=$1
    shift
    run_in "$root" 0 "$@"
}

# as_function ROOTFS COMMAND...: the same as the unprivileged user that functions run as, with the image's environment.
as_function() {
    local root=$1
    shift
    run_in "$root" "$FUNCTION_UID" /usr/bin/env -i PATH="$IMAGE_PATH" LANG=C.UTF-8 HOME=/tmp "${image_env[@]}" "$@"
}

# The packages are only unpacked, so what their scripts would have made is made here.
write_etc() {
    local root=$1
    mkdir -p "$root"/{etc/ssl/certs,app/function,run/faas,.faas,proc,sys,dev,tmp,root,var/tmp}
    chmod 1777 "$root/tmp" "$root/var/tmp"
    cat >"$root/etc/passwd" <<'END'
root:x:0:0:root:/root:/bin/sh
function:x:1000:1000:function:/tmp:/bin/sh
nobody:x:65534:65534:nobody:/nonexistent:/bin/false
END
    printf 'root:x:0:\nfunction:x:1000:\nnogroup:x:65534:\n' >"$root/etc/group"
    printf 'passwd: files\ngroup: files\nhosts: files dns\nnetworks: files\nprotocols: files\nservices: files\n' >"$root/etc/nsswitch.conf"
    printf '127.0.0.1 localhost\n::1 localhost\n' >"$root/etc/hosts"
    : >"$root/etc/resolv.conf"
    if [ -d "$root/usr/share/ca-certificates" ]; then
        find "$root/usr/share/ca-certificates" -name '*.crt' -print0 | sort -z | xargs -0 awk 1 >"$root/etc/ssl/certs/ca-certificates.crt"
        ln -sfn certs/ca-certificates.crt "$root/etc/ssl/cert.pem"
        rm -rf "$root/usr/share/ca-certificates"
    fi
}

# Gives the shell and the usual small tools, as far as the image has none of its own.
link_busybox() {
    local root=$1 applet
    for applet in $(chroot "$root" /bin/busybox --list); do
        [ -e "$root/usr/bin/$applet" ] || [ -L "$root/usr/bin/$applet" ] || ln -s busybox "$root/usr/bin/$applet"
    done
}

# What no function reads: documentation, translations, the packaging system, accounts' and mounts' tools.
strip_common() {
    local root=${1:?}
    (
        cd "$root" || exit
        # The container runtime makes the devices.
        find dev -mindepth 1 -delete
        rm -rf usr/share/{doc,man,info,locale,lintian,bug,menu,pixmaps,applications,common-licenses,bash-completion,debconf} \
            usr/share/{perl5,perl,gcc,gdb,doc-base,binfmts,systemtap} \
            var/{lib,cache,log,backups,mail,spool,opt,local} \
            etc/{apt,dpkg,cron.*,init.d,systemd,debconf.conf,ca-certificates*,rc*.d,update-motd.d,skel,profile.d,default,alternatives} \
            usr/lib/{apt,dpkg,systemd,init,udev,ssl/misc} boot home media mnt srv opt usr/games usr/local usr/src usr/include \
            usr/lib/*-linux-gnu/{audit,perl,perl-base,pkgconfig,cmake,engines-*,security} \
            usr/bin/{perl*,debconf*,openssl,c_rehash,dpkg*,apt*} usr/sbin/{update-ca-certificates,dpkg*,tzconfig}
        # Character sets beyond those that glibc has built in: seldom wanted, and 8 MB.
        find usr/lib/*-linux-gnu/gconv -name '*.so' ! -name 'ISO8859-1*.so' ! -name 'UTF-*.so' ! -name 'CP1252.so' -delete 2>/dev/null || true
        rm -rf usr/share/zoneinfo/{right,posix} usr/share/zoneinfo/{leap*,posixrules,iso3166.tab,zone*.tab}
    )
}

# Nothing in an image needs these bits, and everything has to be readable by the function's user.
set_modes() {
    local root=$1
    find "$root" -xdev -perm /6000 -exec chmod a-s {} +
    find "$root" -xdev -type d ! -perm -0555 -exec chmod a+rx {} +
    find "$root" -xdev -type f ! -perm -0444 -exec chmod a+r {} +
}
