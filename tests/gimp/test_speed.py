"""From click to pixels: what the plug-in costs beside the server's compute. Prints its figures (pytest -s)."""

import json
import socket
import socketserver
import statistics
import threading
import time

import numpy as np
import pytest
from pconv_server.engine import Engine
from pconv_server.models import ModelFolder
from PIL import Image
from serving import CPU, running

SIZE = 6000, 4000  # 24 megapixels
HOLE = 300  # px
GOAL_SECONDS = 0.6
ROUNDS = 5


class TimedEngine(Engine):
    """Remembers what each job took, and how much it saw."""

    seconds = pixels = 0

    def inpaint(self, image, hole, model="", progress=lambda _: None, *rest):
        start = time.perf_counter()
        try:
            return super().inpaint(image, hole, model, progress, *rest)
        finally:
            self.seconds, self.pixels = time.perf_counter() - start, hole.size


class Relay(socketserver.ThreadingTCPServer):
    """Passes everything on to a server, and counts the bytes towards it."""

    daemon_threads, sent = True, 0

    def __init__(self, address):
        host, port = address.rsplit(":", 1)
        self.to = host, int(port)
        super().__init__(("127.0.0.1", 0), Pipe)
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Pipe(socketserver.BaseRequestHandler):
    """One connection."""

    def handle(self):
        with socket.create_connection(self.server.to) as far:
            back = threading.Thread(target=self.pump, args=(far, self.request))
            back.start()
            self.pump(self.request, far)
            back.join()

    def pump(self, source, target):
        try:
            while data := source.recv(1 << 18):
                if source is self.request:
                    self.server.sent += len(data)
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # the other direction has ended it


@pytest.mark.slow
def test_click_to_pixels(make_gimp, shared_data, tmp_path_factory, version):
    engine = TimedEngine(CPU, ModelFolder(tmp_path_factory.mktemp("models")))  # the weights that ship
    photo = Image.open(sorted((shared_data / "eval" / "large").glob("*.jpg"))[0]).convert("RGB")
    tile = np.asarray(photo)
    tiles = np.tile(tile, (-(-SIZE[1] // tile.shape[0]), -(-SIZE[0] // tile.shape[1]), 1))[: SIZE[1], : SIZE[0]]
    with running([engine]) as server, Relay(server["address"]) as relay:
        gimp = make_gimp(f"127.0.0.1:{relay.server_address[1]}")
        Image.fromarray(tiles).save(gimp.folder / "large.png", compress_level=1)
        job = {"file": "large.png", "box": [2800, 1900, HOLE, HOLE], "rounds": ROUNDS + 1}
        gimp.run([])  # registers the procedures
        rounds = []

        def note(seconds):
            rounds.append((seconds, engine.seconds, relay.sent, engine.pixels))

        process = gimp.start([], SPEED=json.dumps(job))
        while process.poll() is None:
            for path in sorted(gimp.folder.glob("round*.json")):
                note(json.loads(path.read_text()))
                relay.sent = 0
                path.rename(path.with_suffix(".read"))
            time.sleep(0.05)
        relay.shutdown()
        assert process.returncode == 0, (gimp.folder / "log").read_text()[-3000:]
    rounds = rounds[1:]  # the first loads the network
    overheads = [whole - compute for whole, compute, _, _ in rounds]
    _, compute, sent, pixels = rounds[-1]
    middle = statistics.median(overheads)
    ratio = sent / (4 * pixels)
    print(
        f"\nGIMP {version}, {SIZE[0]} × {SIZE[1]} px, hole {HOLE} px: plug-in {middle:.2f} s "
        f"[{min(overheads):.2f} … {max(overheads):.2f}] beside {compute:.2f} s of compute (goal {GOAL_SECONDS} s); "
        f"{sent / 1e6:.2f} MB sent = {ratio:.3f} × the context's {pixels / 1e6:.2f} Mpx with their hole"
    )
    assert ratio <= 1.1
    assert min(overheads) <= 3 * GOAL_SECONDS  # a machine that tests is busy; the figure above is for people
