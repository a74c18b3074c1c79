"""Which names and addresses are this machine's own."""

import ipaddress


def is_address(host: str) -> bool:
    """Whether `host` is an IP address, without brackets or a zone."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return "%" not in host


def is_loopback(host: str) -> bool:
    """Whether only this machine can be meant: other names are not looked up, so they are not."""
    return host == "localhost" or (is_address(host) and ipaddress.ip_address(host).is_loopback)
