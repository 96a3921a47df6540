"""redis-py's `ssl_...` arguments as options of an endpoint."""

from __future__ import annotations

import ssl
from typing import Any

from redis.exceptions import RedisError

_VERIFY = {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}
_REFUSED = {
    "ssl_ca_data": "give a file (ssl_ca_certs)",
    "ssl_ca_path": "give a file (ssl_ca_certs)",
    "ssl_password": "decrypt the key, as in openssl pkey -in key.pem -out plain.pem",
    "ssl_ciphers": "TLS 1.2 and 1.3 are spoken with the ciphers that are safe",
    "ssl_include_verify_flags": "certificates are verified as RFC 5280 says",
    "ssl_validate_ocsp": "revocation is not looked up",
    "ssl_validate_ocsp_stapled": "revocation is not looked up",
    "ssl_ocsp_context": "revocation is not looked up",
    "ssl_ocsp_expected_cert": "revocation is not looked up",
}


def tls_options(kwargs: dict[str, Any]) -> dict[str, Any]:
    """The options of `rediss://`. Raises RedisError for what cannot be had."""
    for key, why in _REFUSED.items():
        if kwargs.get(key):
            raise RedisError(f"{key} is not supported over iokernel: {why}")
    given = kwargs.get("ssl_cert_reqs", "required")
    if isinstance(given, str) and given not in _VERIFY:
        raise RedisError(f"Invalid SSL Certificate Requirements Flag: {given}")
    wanted = _VERIFY[given] if isinstance(given, str) else ssl.CERT_NONE if given is None else given
    options: dict[str, Any] = {
        "tls_ca": kwargs.get("ssl_ca_certs"),
        "tls_cert": kwargs.get("ssl_certfile"),
        "tls_key": kwargs.get("ssl_keyfile"),
    }
    if wanted == ssl.CERT_NONE:
        options["tls_verify"], options["tls_ca"] = "false", None
    elif not kwargs.get("ssl_check_hostname", True):
        options["tls_verify"] = "chain"
    if (kwargs.get("ssl_min_version") or 0) >= ssl.TLSVersion.TLSv1_3:
        options["tls_min"] = "1.3"
    return options
