# CPython 3.11 with its whole standard library, compiled to byte code in advance.
# shellcheck shell=bash disable=SC2034 # the variables are build.sh's
suites=(bookworm)
packages=(python3.11 ca-certificates tzdata busybox)
image_env=(PYTHONUNBUFFERED=1 SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt)
image_cmd=(python3)

customize() {
    local root=$1 library=$1/usr/lib/python3.11
    ln -sfn python3.11 "$root/usr/bin/python3"
    ln -sfn python3.11 "$root/usr/bin/python"
    # Yellow pages, and the Kerberos libraries that only they want.
    rm -f "$library"/lib-dynload/nis.*.so "$root"/usr/lib/*-linux-gnu/lib{nsl,tirpc,krb5,k5crypto,krb5support,gssapi_krb5,keyutils,com_err}.so*
    # Parts of the library that are for people at a screen, and tests of its own.
    rm -rf "$library"/{pydoc_data,idlelib,tkinter,turtle.py,turtledemo,lib2to3/tests,test,EXTERNALLY-MANAGED} \
        "$root"/usr/bin/{pydoc*,2to3*,pygettext*} "$root"/usr/share/{python3,binfmts,pixmaps}
    find "$root/usr/lib" -name __pycache__ -prune -exec rm -rf {} +
    # Compiled by the interpreter that will read them. "Unchecked" files stay valid whatever the sources' times become in layers
    # and copies, and save a stat for each import; a fixed hash seed makes them the same in every build.
    in_root "$root" env PYTHONHASHSEED=0 python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash /usr/lib/python3.11 ||
        true # lib2to3 and some others hold samples that are not Python 3; what matters is checked below
}

check() {
    as_function "$1" python3 -c '
import asyncio, base64, bz2, ctypes, csv, decimal, email, hashlib, http.client, json, lzma, multiprocessing, os, sqlite3, ssl
import subprocess, sys, unittest, urllib.request, uuid, xml.etree.ElementTree, zlib, zoneinfo
assert sys.version_info[:2] == (3, 11), sys.version
assert os.path.exists(json.__cached__), "not compiled: " + json.__cached__
assert ssl.create_default_context().cert_store_stats()["x509_ca"] > 50, "no CA certificates"
assert sqlite3.connect(":memory:").execute("select 6 * 7").fetchone() == (42,)
assert zoneinfo.ZoneInfo("Europe/Paris").key
assert asyncio.run(asyncio.sleep(0, "done")) == "done"
assert subprocess.check_output("echo shell works", shell=True) == b"shell works\n"
assert os.getuid() == 1000 and __import__("pwd").getpwuid(1000).pw_name == "function"
print("CPython", sys.version.split()[0])'
}
