"""Time from upload to map, and the memory of the app's server over many uploads: needs the extra `app`, and Linux."""

import argparse
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from gradio_client import Client, handle_file

from crossearth_hf.synthetic import generate_scene, write_scene

APP = Path(__file__).resolve().parents[1] / "app" / "app.py"


def main() -> None:
    """Starts a server, uploads different scenes one after the other, prints a line each."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--uploads", metavar="N", type=int, default=50, help="default: 50")
    parser.add_argument("--size", metavar="N", type=int, default=2048, help="side of a scene in pixels (default: 2048)")
    parser.add_argument("--port", metavar="N", type=int, default=7899, help="default: 7899")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the server ends too
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(APP), "--port", str(arguments.port), "--work-dir", folder]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            client = _connect(f"http://127.0.0.1:{arguments.port}", Path(folder), server)
            print(f"idle: {_memory(server.pid, 'VmRSS')} MiB", flush=True)
            for number in range(arguments.uploads):
                seconds = _upload(client, Path(folder), number, arguments.size)
                now, peak = (_memory(server.pid, field) for field in ("VmRSS", "VmHWM"))
                print(f"upload {number + 1}: {seconds:.1f} s, {now} MiB, peak {peak} MiB", flush=True)
        finally:
            server.terminate()
            server.wait()


def _connect(url: str, folder: Path, server: subprocess.Popen) -> Client:
    """A client of the server, once it answers."""
    while server.poll() is None:
        try:
            return Client(url, download_files=str(folder / "downloads"), verbose=False, httpx_kwargs={"timeout": 600})
        except Exception:  # whatever httpx makes of a port on which nobody listens yet
            time.sleep(1)
    raise SystemExit("the server did not start")


def _upload(client: Client, folder: Path, number: int, size: int) -> float:
    """Seconds from the upload of a new scene to the downloaded map."""
    domain = ("temperate-summer", "desert-city", "tropical-town")[number % 3]
    image, labels = write_scene(generate_scene(domain, number, size, size), folder / f"{number}.tif")
    start = time.perf_counter()
    client.predict(handle_file(image), api_name="/predict")
    seconds = time.perf_counter() - start
    image.unlink()
    labels.unlink()
    return seconds


def _memory(process: int, field: str) -> int:
    """MiB of a process, as Linux counts them."""
    status = Path(f"/proc/{process}/status").read_text()
    found = re.search(rf"{field}:\s+(\d+) kB", status)
    return int(found[1]) // 1024 if found else 0


if __name__ == "__main__":
    main()
