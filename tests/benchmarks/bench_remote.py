"""Read a large model over a slow link: through a mount of shardfs, through `rclone mount`, and after a download.

    python -m tests.benchmarks.bench_remote [--mb N] [--versions N] [--repeats N] [--quick] [--keep DIR]

A bf16 model is stored in several versions, each but the first trains the last quarter of the tensors: those of the last
version are differences to differences. `shardfs serve` and nginx serve it at one end of a link of 1 Gbit/s with a delay
of 10 ms each way (link.py); everything else runs at the other end, with nothing in any cache. Bytes are those that came
over the link, headers and look-ups included. Needs root.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests import nginx
from tests.benchmarks import link
from tests.benchmarks.link import Link
from tests.benchmarks.measuring import MB, machine, median, run, table

FILE = "model.safetensors"
TENSOR = "last.adapter.weight"  # of 384 x 384 numbers: 295 KB
SERVE_PORT, STATIC_PORT = 8750, 8080
READY_S = 30
SPEED_BASE = "curl, a file of the stored size"

# What the client's end runs, each in a process of its own. Each prints seconds without the start of the interpreter.
_WHOLE = """
import os, sys, time
start = time.perf_counter()
fd = os.open(sys.argv[1], os.O_RDONLY)
buffer = bytearray(1 << 20)
while os.readv(fd, [buffer]):
    pass
print(time.perf_counter() - start)
"""
_TENSOR = """
import sys, time, torch
from safetensors import safe_open
start = time.perf_counter()
with safe_open(sys.argv[1], "pt") as file:
    value = file.get_tensor(sys.argv[2])
print(time.perf_counter() - start)
"""
_LOAD = """
import sys, time, torch
from safetensors.torch import load_file
start = time.perf_counter()
state = load_file(sys.argv[1])
total = sum(int(tensor.view(-1).view(torch.uint8)[::4096].sum()) for tensor in state.values())  # every page
print(time.perf_counter() - start)
"""
_DIGEST = "import hashlib, sys; print(hashlib.file_digest(open(sys.argv[1], 'rb'), 'sha256').hexdigest())"

_MAKE = """
import sys, torch
from safetensors.torch import save_file
path, values, version = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
WIDTH = 1024
blocks = max(4, values // (12 * WIDTH * WIDTH))
state = {}
for block in range(blocks):
    for name, rows in (("qkv", 3), ("out", 1), ("up", 4), ("down", 4)):
        torch.manual_seed(block * 10 + rows)
        state[f"h.{block:03}.{name}.weight"] = torch.randn(rows * WIDTH, WIDTH).mul_(0.02)
torch.manual_seed(7)
state["last.adapter.weight"] = torch.randn(384, 384).mul_(0.02)
for step in range(1, version):
    torch.manual_seed(1000 + step)
    for name in state:
        if name.startswith("last") or int(name.split(".")[1]) >= blocks * 3 // 4:
            state[name] += torch.randn(state[name].shape).mul_(1e-4)
save_file({name: tensor.bfloat16() for name, tensor in state.items()}, path)
"""


@dataclass
class Costs:
    """Seconds and bytes over the link of every run of one way to read."""

    seconds: list[float] = field(default_factory=list)
    bytes: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Stored:
    """What a read of the last version takes, in encoded bytes with all that it depends on."""

    file: int
    tensor: int
    depth: int


def make_project(project: Path, mb: int, versions: int) -> None:
    """A repository with all versions; the work tree keeps the last."""
    environment = {**os.environ, "GIT_AUTHOR_NAME": "Bench", "GIT_AUTHOR_EMAIL": "bench@example.org"}
    project.mkdir(parents=True)
    shardfs = [sys.executable, "-m", "shardfs_cli", "-C", str(project)]
    run([*shardfs, "init"], project, environment)
    for version in range(1, versions + 1):
        values = str(mb * MB // 2)
        run([sys.executable, "-c", _MAKE, str(project / FILE), values, str(version)], project, environment)
        run([*shardfs, "add", FILE], project, environment)
        run([*shardfs, "commit", "-m", f"v{version}"], project, environment)


def look_up(project: Path) -> Stored:
    """The stored bytes behind the last version and behind one tensor of it."""
    from safetensors import safe_open

    from shardfs import opening
    from shardfs.formats.tree import FileEntry
    from shardfs.store.chains import of_index

    with opening.open_at(project) as repository:
        entry = repository.entry("HEAD", FILE)
        assert isinstance(entry, FileEntry)
        reader = repository.open_entry(entry)
        header = int.from_bytes(reader.read_at(0, 8), "little")
        with safe_open(project / FILE, "pt") as file:
            size = file.get_tensor(TENSOR).nbytes
        at = reader.read_at(8, header)
        offset = 8 + header + int(at.split(b'"%s"' % TENSOR.encode())[1].split(b"[", 2)[2].split(b",")[0])
        chains = of_index(repository.store.index)

        def closure(ids: set[bytes]) -> int:
            chains.learn(ids)
            needed = set().union(*(chains.below(id_) for id_ in ids))
            return sum(entry.stored_size for id_ in needed if (entry := chains.entry(id_)))

        tensor = {chunk.id for chunk, _, _ in reader.manifest.locate(offset, size)}
        whole = {chunk.id for chunk in reader.manifest.chunks}
        return Stored(closure({*whole}), closure({*tensor}), max(chains.depth(id_) for id_ in tensor))


class Client:
    """What runs at the near end of the link."""

    def __init__(self, link_: Link, scratch: Path) -> None:
        self.link, self.scratch = link_, scratch
        self.serve = f"http://{link_.address}:{SERVE_PORT}/demo"
        self.static = f"http://{link_.address}:{STATIC_PORT}"
        self.commands: dict[str, str] = {}

    def run(self, argv: list[str], home: Path) -> str:
        """What a program says that ran at this end."""
        done = subprocess.run(
            [*self.link.client, *argv], check=False, capture_output=True, text=True, env=_environment(home)
        )
        if done.returncode:
            raise SystemExit(f"{shlex.join(argv)}: exit status {done.returncode}\n{done.stderr}")
        return done.stdout

    def python(self, program: str, *given: str | Path) -> str:
        """What a Python program says that ran at this end."""
        return self.run([sys.executable, "-c", program, *map(str, given)], self.scratch)

    @contextmanager
    def shardfs(self, url: str) -> Iterator[Path]:
        """The last version in a mount with an empty cache."""
        with tempfile.TemporaryDirectory(dir=self.scratch) as home:
            mountpoint = Path(home, "mnt")
            argv = [sys.executable, "-m", "shardfs_cli"]
            self.run([*argv, "mount", "-q", str(mountpoint), "--remote", url], Path(home))
            try:
                yield mountpoint / "latest" / FILE
            finally:
                self.run([*argv, "umount", "-q", str(mountpoint)], Path(home))

    @contextmanager
    def rclone(self) -> Iterator[Path]:
        """The plain file in a fresh mount of rclone."""
        with tempfile.TemporaryDirectory(dir=self.scratch) as home:
            mountpoint = Path(home, "mnt")
            mountpoint.mkdir()
            argv = ["rclone", "mount", ":http:", str(mountpoint), "--http-url", f"{self.static}/plain", "--read-only"]
            self.commands["rclone"] = shlex.join(argv)
            with subprocess.Popen([*self.link.client, *argv], env=_environment(Path(home))) as process:
                try:
                    _wait(lambda: (mountpoint / FILE).exists() and os.path.ismount(mountpoint), "rclone")
                    yield mountpoint / FILE
                finally:
                    process.send_signal(signal.SIGTERM)

    def curl(self, name: str, out: Path) -> float:
        """Seconds to fetch a file."""
        argv = ["curl", "-sS", "--fail", "-o", str(out), "-w", "%{time_total}", f"{self.static}/{name}"]
        return float(self.run(argv, self.scratch))

    def downloaded(self, program: str, *given: str) -> float:
        """Seconds to download the plain file and then read it."""
        with tempfile.TemporaryDirectory(dir=self.scratch) as folder:
            path = Path(folder, FILE)
            return self.curl(f"plain/{FILE}", path) + float(self.python(program, path, *given))


def _environment(home: Path) -> Mapping[str, str]:
    return {
        **{key: value for key, value in os.environ.items() if not key.startswith(("XDG_", "SHARDFS_"))},
        "HOME": str(home),
        "RCLONE_CONFIG": "/dev/null",
    }


def _wait(ready: Callable[[], bool], who: str) -> None:
    deadline = time.monotonic() + READY_S
    while not ready():
        if time.monotonic() > deadline:
            raise SystemExit(f"{who}: not ready after {READY_S} s")
        time.sleep(0.02)


@contextmanager
def serving(link_: Link, root: Path, scratch: Path) -> Iterator[None]:
    """`shardfs serve` and nginx at the far end, over the same folder."""
    address = link_.address
    argv = [sys.executable, "-m", "shardfs_cli", "serve", "-q", "--anonymous", "read", "--root", str(root)]
    argv += ["--listen", f"{address}:{SERVE_PORT}"]
    changes = {
        "listen 127.0.0.1:8080;": f"listen {address}:{STATIC_PORT};",
        "root /srv/www/models;": f"root {root}; autoindex on;",
        "pid /run/nginx-models.pid;": f"pid {scratch}/nginx.pid;",
    }
    configuration = nginx.replaced(nginx.manual("nginx-static"), changes)
    paths = "".join(
        f"{kind}_temp_path {scratch}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    text = "user root;\ndaemon off;\n" + configuration.replace("http {\n", "http {\n" + paths, 1)
    (scratch / "nginx.conf").write_text(text)
    web = [str(nginx.NGINX), "-e", "stderr", "-p", str(scratch), "-c", str(scratch / "nginx.conf")]
    with ExitStack() as stack:
        for command in (argv, web):
            process = stack.enter_context(subprocess.Popen([*link_.server, *command]))
            stack.callback(process.terminate)
        for port in (SERVE_PORT, STATIC_PORT):
            probe = [*link_.server, "curl", "-s", "-o", "/dev/null", f"http://{address}:{port}/"]
            _wait(lambda probe=probe: subprocess.run(probe, check=False).returncode == 0, f"port {port}")  # type: ignore[misc]
        yield


def measure(client: Client, taken: dict[str, Costs], name: str, read: Callable[[], float]) -> None:
    """One run of one row."""
    before = client.link.received()
    seconds = read()
    costs = taken.setdefault(name, Costs())
    costs.seconds.append(seconds)
    costs.bytes.append(client.link.received() - before)


def through(client: Client, mount: Callable[[], object], program: str, *given: str) -> Callable[[], float]:
    """A read through a fresh mount; the bytes that mounting took are counted, too."""

    def read() -> float:
        with mount() as path:  # type: ignore[attr-defined]
            return float(client.python(program, path, *given))

    return read


def rows(taken: Mapping[str, Costs], base: str, stored: int) -> list[list[str]]:
    """Medians, and ratios to the first row and to the stored bytes."""
    reference = median(taken[base].seconds) if base in taken else None
    lines = []
    for name, costs in taken.items():
        seconds, size = median(costs.seconds), median(costs.bytes)
        ratio = f"{seconds / reference:.2f}" if reference else "-"
        lines.append([name, f"{seconds:.2f}", ratio, f"{size / MB:.1f}", f"{size / stored:.2f}"])
    return lines


def main() -> None:
    """Run everything and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mb", type=int, default=1000)
    parser.add_argument("--versions", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="100 MB, one run")
    parser.add_argument(
        "--keep", type=Path, metavar="DIR", help="make the repository here, or use the one that is here"
    )
    parser.add_argument("--only", choices=("tensor", "whole", "load"), nargs="+", default=["tensor", "whole", "load"])
    parser.add_argument("--no-peers", action="store_true")
    given = parser.parse_args()
    if reason := link.missing():
        print(f"skipped reads over a slow link: {reason}", file=sys.stderr)
        return
    if nginx.NGINX is None or not shutil.which("curl"):
        print("skipped reads over a slow link: nginx and curl are needed", file=sys.stderr)
        return
    mb, repeats = (100, 1) if given.quick else (given.mb, given.repeats)
    with tempfile.TemporaryDirectory(prefix="shardfs-bench-") as name:
        scratch = Path(name)
        project = (given.keep or scratch) / "project"
        if not project.exists():
            make_project(project, mb, given.versions)
        run_all(given, project, scratch, repeats)


def run_all(given: argparse.Namespace, project: Path, scratch: Path, repeats: int) -> None:
    """Serve the project and read it in every way."""
    stored, size = look_up(project), (project / FILE).stat().st_size
    digest = hashlib.file_digest((project / FILE).open("rb"), "sha256").hexdigest()
    root = scratch / "root"
    (root / "plain").mkdir(parents=True)
    (root / "demo").symlink_to(project / ".shardfs")
    (root / "plain" / FILE).symlink_to(project / FILE)
    with (root / "stored").open("wb") as file:
        file.truncate(stored.file)
    with link.slow_link() as ends, serving(ends, root, scratch):
        client = Client(ends, scratch)
        peers = not given.no_peers
        has_rclone = peers and shutil.which("rclone") is not None
        if peers and not has_rclone:
            print("skipped rclone: rclone not found", file=sys.stderr)
        tables: dict[str, dict[str, Costs]] = {key: {} for key in given.only}
        mounts = {
            "shardfs, from `shardfs serve`": lambda: client.shardfs(client.serve),
            "shardfs, from nginx": lambda: client.shardfs(f"{client.static}/demo"),
            **({"rclone mount": client.rclone} if has_rclone else {}),
        }
        programs = {"tensor": (_TENSOR, TENSOR), "whole": (_WHOLE,), "load": (_LOAD,)}
        for _ in range(repeats):
            for key, taken in tables.items():
                program, *words = programs[key]
                for title, mount in mounts.items():
                    measure(client, taken, title, through(client, mount, program, *words))
                if key == "whole":
                    measure(client, taken, SPEED_BASE, lambda: client.curl("stored", Path(os.devnull)))
                if peers:
                    measure(client, taken, "download, then read", lambda p=program, w=words: client.downloaded(p, *w))  # type: ignore[misc]
        with client.shardfs(client.serve) as path:
            if client.python(_DIGEST, path).strip() != digest:
                raise SystemExit("shardfs serves other bytes than were stored")
    titles = {
        "tensor": ("One tensor", stored.tensor),
        "whole": ("The whole file", stored.file),
        "load": ("safetensors.torch.load_file", stored.file),
    }
    print(
        f"## Reads over {link.RATE / 1e9:g} Gbit/s with {link.DELAY_MS} ms each way\n\n{machine()} of {repeats} runs."
    )
    print(
        f"A model of {size / MB:.0f} MB in {given.versions} versions; the last is read. The whole file is stored in "
        f"{stored.file / MB:.1f} MB, the tensor in {stored.tensor / MB:.2f} MB, {stored.depth} differences deep.\n"
    )
    for key, taken in tables.items():
        title, of = titles[key]
        base = SPEED_BASE if key == "whole" else "shardfs, from `shardfs serve`"
        print(f"### {title}\n")
        print(table(["", "s", "ratio", "MB over the link", "of the stored"], rows(taken, base, of)) + "\n")
    for command in client.commands.values():
        print(f"`{command}`")


if __name__ == "__main__":
    main()
