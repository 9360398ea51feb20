"""A certificate authority of the test Hub's own, and the certificates of its two origins, made by `openssl`.

The Hub's certificate is good for 127.0.0.1 and the data origin's for localhost, as each has a host name of its
own. They lie in ROOT/tls and are kept with the rest of it; the authority's certificate is `ca.pem`.
"""

import os
import ssl
import subprocess

NAMES = {"hub": "IP:127.0.0.1", "data": "DNS:localhost"}
DAYS = 3650


def _openssl(folder, *words):
    done = subprocess.run(["openssl", *words], cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"openssl {words[0]} failed: {done.stderr}")


def _new_key(name):
    return ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", name + ".key"]


def authority(root):
    """Make the authority unless it is there; the path of its certificate."""
    folder = os.path.join(root, "tls")
    path = os.path.join(folder, "ca.pem")
    if not os.path.exists(path):
        os.makedirs(folder, mode=0o700, exist_ok=True)
        _openssl(folder, "req", "-x509", *_new_key("ca"), "-out", "ca.pem.new", "-days", str(DAYS),
                 "-subj", "/CN=Test Hub authority", "-addext", "keyUsage=critical,keyCertSign,cRLSign")
        os.replace(path + ".new", path)
    return path


def server_context(root, origin, expired=False):
    """The TLS settings of one origin, with a fresh certificate; `expired` makes it one of yesterday."""
    folder = os.path.dirname(authority(root))
    with open(os.path.join(folder, origin + ".ext"), "w", encoding="ascii") as file:
        file.write(f"subjectAltName={NAMES[origin]}\nbasicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth\n")
    _openssl(folder, "req", "-new", *_new_key(origin), "-out", origin + ".csr", "-subj", f"/CN=Test Hub {origin}")
    _openssl(folder, "x509", "-req", "-in", origin + ".csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
             "-extfile", origin + ".ext", "-days", "-1" if expired else str(DAYS), "-out", origin + ".pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(os.path.join(folder, origin + ".pem"), os.path.join(folder, origin + ".key"))
    context.set_alpn_protocols(["http/1.1"])
    return context
