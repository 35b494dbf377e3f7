from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgqueue.errors import ConfigError
from pgqueue.pipeline.guard import Deadline, GuardedBackend, Unreachable, is_public, parse_allow

PRIVATE = """
0.0.0.0 10.1.2.3 100.64.0.1 127.0.0.1 169.254.169.254 172.16.0.1 192.168.1.1 198.18.0.1 224.0.0.1
240.0.0.1 255.255.255.255 :: ::1 ::7f00:1 ::ffff:10.0.0.1 64:ff9b::a00:1 64:ff9b::7f00:1
64:ff9b:1::1 2002:7f00:1:: 2002:a00:1::1 2001:0:4136:e378:8000:63bf:3fff:fdd2 fc00::1 fd00:ec2::254
fe80::1 fec0::1 ff02::1 ff0e::1 2001:db8::1
"""
PUBLIC = """
93.184.216.34 1.1.1.1 2606:4700::1111 ::ffff:93.184.216.34 64:ff9b::5db8:d822 2002:5db8:d822::1
"""


@pytest.mark.parametrize("address", PRIVATE.split())
def test_an_address_that_is_not_public_in_any_disguise_is_refused(address: str) -> None:
    assert not is_public(ip_address(address))


@pytest.mark.parametrize("address", PUBLIC.split())
def test_a_public_address_may_be_fetched(address: str) -> None:
    assert is_public(ip_address(address))


@given(st.ip_addresses(v=4))
def test_an_ipv6_disguise_never_changes_the_judgement(inner: object) -> None:
    plain = is_public(ip_address(str(inner)))
    number = int(ip_address(str(inner)))
    mapped, nat64 = (0xFFFF << 32) | number, (0x64FF9B << 96) | number
    six_to_four = (0x2002 << 112) | (number << 80) | 1
    for disguise in (mapped, nat64, six_to_four):
        assert is_public(ip_address(disguise.to_bytes(16, "big"))) == plain


def test_the_allow_list_is_read_from_addresses_and_ports() -> None:
    text = " 127.0.0.1:8080, [0:0::1]:81,"
    assert parse_allow(text) == {("127.0.0.1", 8080), ("::1", 81)}
    assert parse_allow("") == frozenset()


@pytest.mark.parametrize(
    "text", ["localhost:80", "127.0.0.1", "127.0.0.1:0", "127.0.0.1:99999", ":"]
)
def test_a_wrong_allow_list_is_refused_with_the_right_form(text: str) -> None:
    with pytest.raises(ConfigError, match=r"127\.0\.0\.1:8080"):
        parse_allow(text)


def test_local_sockets_are_never_opened() -> None:
    with pytest.raises(Unreachable, match="local socket"):
        GuardedBackend(frozenset(), Deadline(1)).connect_unix_socket("/run/any.sock")
