"""Time from upload to map, and the memory of the app's server over many uploads: needs the extra `app`, and Linux."""

import argparse
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import rasterio
from gradio_client import Client, handle_file
from PIL import Image

from crossearth_hf.synthetic import generate_scene, write_scene

SIZES = (16, 100, 333, 700, 1024, 1500, 2048)
TYPES = ("uint8", "uint16", "float32")
ENDINGS = ("tif", "tif", "jpg", "png")


def main() -> None:
    """Starts a server, uploads different scenes one after the other, prints a line each."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--uploads", metavar="N", type=int, default=50, help="default: 50")
    parser.add_argument(
        "--size",
        metavar="N",
        type=int,
        default=2048,
        help="side of a scene in pixels (default: 2048)",
    )
    parser.add_argument(
        "--mixed",
        action="store_true",
        help="sizes, types, formats, tabs, cancelled and bad requests",
    )
    parser.add_argument("--port", metavar="N", type=int, default=7899, help="default: 7899")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the server ends too
    with tempfile.TemporaryDirectory() as folder:
        app = [sys.executable, "-m", "crossearth_hf.cli", "app"]
        command = [*app, "--port", str(arguments.port), "--work-dir", folder]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            client = _connect(f"http://127.0.0.1:{arguments.port}", Path(folder), server)
            print(f"idle: {_memory(server.pid, 'VmRSS')} MiB", flush=True)
            for number in range(arguments.uploads):
                upload = _mixed if arguments.mixed else _upload
                seconds = upload(client, Path(folder), number, arguments.size)
                now, peak = (_memory(server.pid, field) for field in ("VmRSS", "VmHWM"))
                print(
                    f"upload {number + 1}: {seconds:.1f} s, {now} MiB, peak {peak} MiB", flush=True
                )
        finally:
            server.terminate()
            server.wait()


def _connect(url: str, folder: Path, server: subprocess.Popen) -> Client:
    """A client of the server, once it answers."""
    while server.poll() is None:
        try:
            return Client(
                url,
                download_files=str(folder / "downloads"),
                verbose=False,
                httpx_kwargs={"timeout": 600},
            )
        except Exception:  # whatever httpx makes of a port on which nobody listens yet
            time.sleep(1)
    raise SystemExit("the server did not start")


def _upload(client: Client, folder: Path, number: int, size: int) -> float:
    """Seconds from the upload of a new scene to the downloaded map."""
    domain = ("temperate-summer", "desert-city", "tropical-town")[number % 3]
    image, labels = write_scene(
        generate_scene(domain, number, size, size), folder / f"{number}.tif"
    )
    start = time.perf_counter()
    client.predict(handle_file(image), api_name="/predict")
    seconds = time.perf_counter() - start
    image.unlink()
    labels.unlink()
    return seconds


def _mixed(client: Client, folder: Path, number: int, largest: int) -> float:
    """Seconds of one request of a kind that depends on its number: every seventh is bad, every fifth cancelled."""
    draw = random.Random(number)
    size, type_, ending = min(draw.choice(SIZES), largest), draw.choice(TYPES), draw.choice(ENDINGS)
    scene = _write(folder / f"{number}.{ending}", number, size, type_)
    if number % 7 == 3:
        scene.write_bytes(scene.read_bytes()[: scene.stat().st_size // 2])
    api_name, options = "/predict", {}
    if number % 4 == 2:
        api_name, options = "/compare", {"seed": number}
    start = time.perf_counter()
    job = client.submit(handle_file(scene), api_name=api_name, **options)
    if number % 5 == 4:
        time.sleep(draw.uniform(0.2, 2))
        job.cancel()
    outcome = "done"
    try:
        job.result(timeout=600)
    except Exception as error:  # the answers to bad and to cancelled requests
        outcome = f"{type(error).__name__} {str(error)[:60]}"
    print(f"{api_name} {size} {type_} {ending}: {outcome}")
    scene.unlink()
    return time.perf_counter() - start


def _write(path: Path, number: int, size: int, type_: str) -> Path:
    """A scene in a format; JPEG and PNG are of 8 bits."""
    pixels = generate_scene("desert-city", number, max(size, 64), max(size, 64)).image[:size, :size]
    if path.suffix != ".tif":
        Image.fromarray(pixels).save(path)
        return path
    factor = 40
    if type_ == "uint8":
        factor = 1
    values = pixels.transpose(2, 0, 1).astype(type_) * np.array(factor, type_)
    place = {"crs": "EPSG:32632", "transform": rasterio.Affine(0.5, 0, 5e5, 0, -0.5, 5e6)}
    with rasterio.open(path, "w", "GTiff", size, size, 3, dtype=type_, **place) as target:
        target.write(values)
    return path


def _memory(process: int, field: str) -> int:
    """MiB of a process, as Linux counts them."""
    status = Path(f"/proc/{process}/status").read_text()
    found = re.search(rf"{field}:\s+(\d+) kB", status)
    return int(found[1]) // 1024 if found else 0


if __name__ == "__main__":
    main()
