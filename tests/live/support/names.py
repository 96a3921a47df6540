"""A name server whose zone can be changed while it answers."""

from __future__ import annotations

import subprocess
from pathlib import Path

from . import net
from .process import Process, program

CONFIG = """\
options {{
  directory "{folder}";
  listen-on port {port} {{ 127.0.0.1; }};
  listen-on-v6 {{ none; }};
  pid-file "{folder}/named.pid";
  session-keyfile "{folder}/session.key";
  recursion no;
  dnssec-validation no;
  notify no;
}};
controls {{ }};
zone "{zone}" {{
  type primary;
  file "{folder}/zone";
  allow-update {{ 127.0.0.1; }};
}};
"""
ZONE = """\
$TTL 1
@ IN SOA ns.{zone}. admin.{zone}. 1 3600 600 86400 1
@ IN NS ns.{zone}.
ns IN A 127.0.0.1
"""


class Bind(Process):
    """named with one zone. `resolv_conf` is a file that names it, for a kernel: `Kernel(resolv_conf=bind.resolv_conf)`.

    Names are absolute, or within the zone: `bind.set("cache", "A", ["127.0.0.2"], ttl=1)` sets `cache.<zone>`.
    """

    def __init__(self, zone: str = "iok.test") -> None:
        self._program = program("named", "bind9")
        self._update = program("nsupdate", "bind9-dnsutils")
        super().__init__()
        self.zone = zone
        self.port = net.free_port()
        self.resolv_conf = self.folder / "resolv.conf"
        self.resolv_conf.write_text(f"nameserver [127.0.0.1]:{self.port}\noptions timeout:1 attempts:3\n")
        (self.folder / "zone").write_text(ZONE.format(zone=zone))
        (self.folder / "named.conf").write_text(CONFIG.format(folder=self.folder, port=self.port, zone=zone))
        try:
            self.start()
        except BaseException:
            self.close()
            raise

    def start(self) -> None:
        self.spawn([self._program, "-g", "-n", "1", "-c", str(self.folder / "named.conf")])
        net.wait_for("named", lambda: not self.running or b"all zones loaded" in self.log.read_bytes())
        if not self.running:
            raise RuntimeError(f"named ended\n{net.tail(self.log)}")

    def full(self, name: str) -> str:
        return name if name.endswith(self.zone) else f"{name}.{self.zone}"

    def set(self, name: str, kind: str, values: list[str], ttl: int = 1) -> None:
        """The whole record set of a name and type; an empty list removes it."""
        name = self.full(name)
        lines = [f"server 127.0.0.1 {self.port}", f"zone {self.zone}", f"update delete {name} {kind}"]
        lines += [f"update add {name} {ttl} {kind} {value}" for value in values]
        done = subprocess.run(
            [self._update], input="\n".join([*lines, "send", ""]), capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"nsupdate: {done.stdout}{done.stderr}")


def renamed_into_place(path: Path, text: str) -> None:
    """Writes a file as programs should that others read: whole, or not at all."""
    fresh = path.with_name(path.name + ".new")
    fresh.write_text(text)
    fresh.replace(path)
