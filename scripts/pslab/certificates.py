"""Certificates for the lab's own servers and clients, made by openssl for one run: an authority, and what it signs."""

from pathlib import Path

from . import net

DAYS = "7"


def authority(folder, name="ca"):
    """Makes an authority's key and certificate in a folder, and returns the certificate's file."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    key, certificate = folder / f"{name}.key", folder / f"{name}.pem"
    new_key(key)
    subject = ["-subj", f"/CN={name}", "-addext", "keyUsage=critical,keyCertSign,cRLSign"]
    net.run(["openssl", "req", "-x509", "-new", "-key", key, "-days", DAYS, "-out", certificate, *subject])
    return certificate


def issue(folder, name, addresses, authority_name="ca", common_name=True):
    """Makes a key and a certificate for whoever has these addresses, to be a server or a client with. Returns both files."""
    folder = Path(folder)
    key, request, certificate = (folder / f"{name}.{end}" for end in ("key", "csr", "pem"))
    new_key(key)
    net.run(["openssl", "req", "-new", "-key", key, "-subj", f"/{'CN' if common_name else 'O'}={name}", "-out", request])
    extensions = folder / f"{name}.ext"
    names = ",".join([f"DNS:{name}", *(f"IP:{address}" for address in addresses)])
    extensions.write_text(f"subjectAltName={names}\nextendedKeyUsage=serverAuth,clientAuth\nbasicConstraints=CA:FALSE\n")
    signing = ["-CA", folder / f"{authority_name}.pem", "-CAkey", folder / f"{authority_name}.key", "-CAcreateserial"]
    net.run(["openssl", "x509", "-req", "-in", request, *signing, "-days", DAYS, "-extfile", extensions, "-out", certificate])
    for rest in (request, extensions):
        rest.unlink()
    return certificate, key


def new_key(path):
    path.touch(mode=0o600)
    net.run(["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", path])
