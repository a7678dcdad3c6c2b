"""The address of the API and of a worker's probes, and which setting is named when it can't be had."""

import os
import socket
import subprocess
import sys
from contextlib import closing

import pytest

from orders_worker.health.probes import Probes
from schema.errors import SettingError
from schema.runtime import listening
from schema.runtime.listening import bind
from tests.probes import Patient

PORTS = ("ORDERS_PORT", "ORDERS_HEALTH_PORT")


def resolves(name: str, family: socket.AddressFamily) -> bool:
    try:
        found = socket.getaddrinfo(name, 0, type=socket.SOCK_STREAM)
    except OSError:
        return False
    return {each[0] for each in found} == {family}


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")


@pytest.mark.parametrize("host", ["no such host", "host.invalid", "192.0.2.1", "." * 70, "a" * 300, "::g"])
@pytest.mark.parametrize("setting", PORTS)
def test_address_that_can_not_be_listened_on_names_the_host(host: str, setting: str) -> None:
    with pytest.raises(SettingError) as caught:
        bind(host, 0, port_setting=setting)

    assert caught.value.name == "ORDERS_HOST"
    assert repr(host) in str(caught.value)


@pytest.mark.parametrize("setting", PORTS)
def test_port_in_use_is_named(setting: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        with pytest.raises(SettingError, match=f"{setting} is '{port}': the port is in use on 127.0.0.1"):
            bind("127.0.0.1", port, port_setting=setting)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0"])  # noqa: S104 - no one is served
def test_names_and_addresses_are_listened_on(host: str) -> None:
    with bind(host, 0, port_setting="ORDERS_PORT") as listener:
        assert listener.getsockname()[1] > 0


@needs_ipv6
@pytest.mark.parametrize("host", ["::1", "ip6-localhost", "ip6-loopback"])
def test_name_that_has_no_other_address_than_one_of_ipv6_is_listened_on(host: str) -> None:
    if not resolves(host, socket.AF_INET6):
        pytest.skip("this machine has no such name")

    with bind(host, 0, port_setting="ORDERS_HEALTH_PORT") as listener:
        address, port = listener.getsockname()[:2]

    assert (address, listening.url(address, port)) == ("::1", f"http://[::1]:{port}")


def test_port_that_another_took_between_bind_and_listen_is_named() -> None:
    with bind("127.0.0.1", 0, port_setting="ORDERS_HEALTH_PORT") as listener:
        port = listener.getsockname()[1]
        with bind("127.0.0.1", port, port_setting="ORDERS_HEALTH_PORT") as faster:
            faster.listen()
            with pytest.raises(SettingError, match=f"ORDERS_HEALTH_PORT is '{port}': the port is in use"):
                Probes(listener, Patient().health)


@needs_ipv6
def test_both_together_see_a_port_in_use_on_an_address_of_ipv6(database_url: str) -> None:
    with closing(socket.create_server(("::1", 0), family=socket.AF_INET6)) as holder:
        port = str(holder.getsockname()[1])
        ended = subprocess.run(
            [sys.executable, "-c", "import sys; from schema.cli.main import main; sys.exit(main())", "run"],
            env={**os.environ, "DATABASE_URL": database_url, "ORDERS_HOST": "::1", "ORDERS_PORT": port},
            capture_output=True,
            text=True,
            timeout=60,
        )

    assert (ended.returncode, ended.stderr) == (2, f"ORDERS_PORT is '{port}': the port is in use on ::1\n")
