"""A certificate authority of the tests' own."""
import os
import subprocess


def openssl(*arguments):
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


class Authority:
    """A certificate authority, and one certificate of it for `address`; each a file in `folder`."""

    def __init__(self, folder, name, address="127.0.0.1", days=2):
        """`days`: how long the certificate is good; with a negative number it has expired."""
        self.ca, self.ca_key = (os.path.join(folder, f"{name}-ca.{kind}") for kind in ("pem", "key"))
        self.cert, self.key = (os.path.join(folder, f"{name}.{kind}") for kind in ("pem", "key"))
        request, extensions = os.path.join(folder, "request.pem"), os.path.join(folder, "extensions")
        key_kind = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
        openssl("req", "-x509", *key_kind, "-days", "2", "-subj", f"/CN={name}", "-keyout", self.ca_key, "-out", self.ca)
        openssl("req", *key_kind, "-subj", "/CN=controller", "-keyout", self.key, "-out", request)
        with open(extensions, "w", encoding="ascii") as file:
            file.write(f"subjectAltName=IP:{address}\n")
        openssl("x509", "-req", "-in", request, "-CA", self.ca, "-CAkey", self.ca_key, "-CAcreateserial", "-days", str(days),
                "-extfile", extensions, "-out", self.cert)  # fmt: skip
        os.chmod(self.key, 0o600)
