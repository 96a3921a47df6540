"""The options that docs/endpoints.md lists are taken by the library, and those that the library takes are listed."""

from __future__ import annotations

import re
from pathlib import Path

import iokernel
import pytest
from support.certs import Authority
from support.program import ROOT

TEXT = (ROOT / "docs" / "endpoints.md").read_text()
# What stands for a default that is no value.
VALUES = {"rate": "10/s", "burst": "1", "peer_rate": "10/s", "peer_burst": "1", "max_inflight": "10"}
VALUES |= {"max_app_silence": "0s", "user_timeout": "0s", "slow": "100ms", "proxy": ""}
BESIDE = {"burst": "rate", "peer_burst": "peer_rate"}


def rows(heading: str) -> dict[str, str]:
    """The keys of a table, with their defaults."""
    table = TEXT.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    found: dict[str, str] = {}
    for keys, default in re.findall(r"^\| (`[^|]+) \| ([^|]+) \|", table, re.MULTILINE):
        found |= dict.fromkeys(re.findall(r"`(\w+)`", keys), default)
    return found


SERVICE = rows("Options of every service")
LISTENER = rows("Options of every listener")


@pytest.mark.parametrize("key", SERVICE)
def test_option(key: str) -> None:
    shown = re.match(r"`([^`]+)`", SERVICE[key])
    value = VALUES.get(key, shown[1] if shown else None)
    assert value is not None, f"{key}: the table shows no default, and this test knows no value"
    options = {key: value}
    if key in BESIDE:
        options[BESIDE[key]] = VALUES[BESIDE[key]]
    with iokernel.Kernel(name="docs") as kernel:
        kernel.open("redis://127.0.0.1:1", **options).close()


def known(refused: pytest.ExceptionInfo[iokernel.ConfigError], page: str) -> set[str]:
    """What an error says is known, without what a protocol's own page lists."""
    named = set(str(refused.value).partition("a known option: ")[2].rstrip().split(", "))
    return named - set(re.findall(r"^\| `(\w+)` \|", (ROOT / "docs" / page).read_text(), re.MULTILINE))


def test_every_option_of_a_service_is_listed() -> None:
    with iokernel.Kernel(name="docs") as kernel, pytest.raises(iokernel.ConfigError) as refused:
        kernel.open("redis://127.0.0.1:1?no_such_option=1")
    assert known(refused, "redis.md") == set(SERVICE)


def test_every_option_of_http_is_listed() -> None:
    with iokernel.Kernel(name="docs") as kernel, pytest.raises(iokernel.ConfigError) as refused:
        kernel.open("http://127.0.0.1:1?no_such_option=1")
    assert known(refused, "http.md") <= set(SERVICE)
    options = {"pool": 5, "warm": 1, "lane_idle": "5s", "pipeline": True, "max_reply": "1MiB"}
    with iokernel.Kernel(name="docs") as kernel:
        kernel.open("http://127.0.0.1:1", **options).close()


TLS = (ROOT / "docs" / "tls.md").read_text()


def of_tls(heading: str) -> set[str]:
    table = TLS.partition(f"## {heading}\n")[2].partition("\n#")[0]
    keys = re.findall(r"^\| ((?:`tls_\w+`(?:, )?)+) \|", table, re.MULTILINE)
    return {key for row in keys for key in re.findall(r"`(\w+)`", row)}


def test_every_option_of_tls_is_listed(tmp_path: Path) -> None:
    """Each of them has a test of its own beside the code that reads it."""

    def taken(error: iokernel.ConfigError) -> set[str]:
        known = str(error).partition("a known option: ")[2].rstrip().split(", ")
        return {key for key in known if key.startswith("tls_")}

    with Authority() as authority, iokernel.Kernel(name="docs") as kernel:
        with pytest.raises(iokernel.ConfigError) as refused:
            kernel.open("rediss://127.0.0.1:1", tls_verify="false", no_such_option=1)
        assert taken(refused.value) == of_tls("Options of a service")
        with pytest.raises(iokernel.ConfigError) as refused:
            kernel.listen("rediss://127.0.0.1:0", tls_cert=authority.issue(), no_such_option=1)
        assert taken(refused.value) == of_tls("Options of a listener")
        with pytest.raises(iokernel.ConfigError, match="expected a scheme with TLS: rediss, https"):
            kernel.open("redis://127.0.0.1:1", tls_ca=authority.ca)
    assert "| `sentinel_tls" not in TLS and "`sentinel_tls=false`" in TLS


def test_every_option_of_a_listener_is_listed() -> None:
    with iokernel.Kernel(name="docs") as kernel, pytest.raises(iokernel.ConfigError) as refused:
        kernel.listen("redis://127.0.0.1:0?no_such_option=1")
    assert known(refused, "redis.md") == set(LISTENER)


def test_every_option_of_a_listener_of_http_is_listed() -> None:
    with iokernel.Kernel(name="docs") as kernel, pytest.raises(iokernel.ConfigError) as refused:
        kernel.listen("http://127.0.0.1:0?no_such_option=1")
    assert known(refused, "http-server.md") == set(LISTENER)
