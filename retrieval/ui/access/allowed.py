"""Values of `--allowed-host`, `--allowed-origin` and `--trusted-proxy`, checked before anything is served."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

from retrieval.errors import LookalikeError, short


def check_host(name: str) -> str:
    """The name in lower case. Raises LookalikeError unless it is a host name, an IP address, or `*`."""
    if name == "*" or re.fullmatch(r"[\w.-]+|\[?[0-9a-fA-F:]+\]?", name):
        return name.lower().strip("[]")
    raise LookalikeError(
        f"--allowed-host must be a name such as search.example.org, without port, not {short(name, 80)!r}."
    )


def check_origin(origin: str) -> str:
    """The origin in lower case. Raises LookalikeError unless it is `scheme://host[:port]`, or `*`."""
    value = origin.lower().rstrip("/")
    parts = urlsplit(value)
    plain = f"{parts.scheme}://{parts.netloc}"
    if value == "*" or (parts.scheme in ("http", "https") and parts.hostname and value == plain and "@" not in plain):
        return value
    raise LookalikeError(
        f"--allowed-origin must be such as https://shop.example, without a path, not {short(origin, 80)!r}."
    )


def check_proxy(address: str) -> str:
    """The address or network as it is usually written. Raises LookalikeError unless it is one, or `*`."""
    try:
        return address if address == "*" else str(ipaddress.ip_network(address.strip(), strict=False))
    except ValueError as error:
        raise LookalikeError(
            "--trusted-proxy must be an address such as 10.0.0.5, a network such as 10.0.0.0/8, or *, "
            f"not {short(address, 80)!r}."
        ) from error
