"""Every bad request gets its status and sentence, and a good one right after it succeeds: one server for all."""

import contextlib
import re
import socket
import threading

import grpc
import numpy as np
import pytest
from pconv_api import PROTOCOL_VERSION, Box
from pconv_api.v1 import pconv_pb2 as pb
from pconv_server.client import Client
from pconv_server.connection import Connection
from pconv_server.engine import Engine
from pconv_server.models import ModelFolder
from pconv_server.requests import MAX_BOXES, Limits
from serving import CPU, TOKEN, blob, picture, running, wait_for

IMAGE, HOLE = picture(), blob()
WHOLE = Box(0, 0, 56, 40)


@pytest.fixture(scope="module")
def engine(weights, tmp_path_factory):
    return Engine(CPU, ModelFolder(weights, default=tmp_path_factory.mktemp("none")))


@pytest.fixture(scope="module")
def address(engine, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PCONV_CONFIG_DIR", str(tmp_path_factory.mktemp("config")))
        with running([engine], limits=Limits(pixels=100_000, queue=1, idle_seconds=1.0)) as box:
            yield box["address"]


@pytest.fixture
def client(address):
    """Whatever a test did: a good request by another client succeeds afterwards."""
    with Client(Connection(address, TOKEN)) as client:
        yield client
    with Client(Connection(address, TOKEN)) as good:
        [filled] = good.inpaint((56, 40), [(WHOLE, IMAGE, HOLE)], timeout=20)
        assert np.array_equal(filled[~HOLE], IMAGE[~HOLE])


def header(**fields):
    found = pb.Header(
        protocol_version=PROTOCOL_VERSION,
        picture=pb.Picture(width=56, height=40, channels=3, format=pb.PIXEL_FORMAT_U8),
    )
    found.MergeFrom(pb.Header(**fields))
    return pb.JobRequest(header=found)


def band(**fields):
    return pb.JobRequest(band=pb.Band(**fields))


def send(client, messages, operation="Inpaint", **options):
    options = {"metadata": client._metadata, "timeout": 20} | options
    return list(getattr(client._stub, operation)(iter(messages), **options))


@contextlib.contextmanager
def refused(code, *sentences):
    with pytest.raises(grpc.RpcError) as caught:
        yield
    assert caught.value.code() == code, caught.value.details()
    for sentence in sentences:
        assert re.search(sentence, caught.value.details()), caught.value.details()


INVALID = grpc.StatusCode.INVALID_ARGUMENT
IMAGE_BAND, HOLE_BAND = band(image=IMAGE.tobytes()), band(hole=bytes(56 * 40))
GOOD = [header(), IMAGE_BAND, band(hole=HOLE.tobytes())]


def test_no_hole_pixel_gives_the_picture_back(client):
    [filled] = client.inpaint((56, 40), [(WHOLE, IMAGE, np.zeros_like(HOLE))])
    assert filled.tobytes() == IMAGE.tobytes()


def test_hole_everywhere(client):
    with refused(INVALID, "covers all 56 × 40 px", "nothing is left to go by"):
        client.inpaint((56, 40), [(WHOLE, IMAGE, np.ones_like(HOLE))])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_none(client, value):
    image = picture(dtype=np.float32)
    image[3, 5, 1] = image[30, 2, 0] = value  # outside the hole
    with refused(INVALID, r"pixel \(105, 203\) outside the hole is -?(nan|inf)"):
        client.inpaint((500, 500), [(Box(100, 200, 56, 40), image, HOLE)])
    with refused(INVALID, r"pixel \(5, 3\)"):
        list(client.upscale(image))
    image = picture(dtype=np.float32)
    image[HOLE] = value
    [filled] = client.inpaint((56, 40), [(WHOLE, image, HOLE)])
    assert np.isfinite(filled).all()


@pytest.mark.parametrize(
    ("messages", "sentences"),
    [
        ([], ["first message must be a header", "found none"]),
        ([IMAGE_BAND], ["first message must be a header"]),
        ([pb.JobRequest()], ["first message must be a header"]),
        ([header(), header()], ["expected a band, found a second header"]),
        ([header(), pb.JobRequest()], ["expected a band, found an empty message"]),
        ([header()], ["image of box 0 ended after 0 bytes: expected 6720"]),
        ([header(), IMAGE_BAND], ["hole of box 0 ended after 0 bytes: expected 2240"]),
        ([header(), band(image=IMAGE.tobytes()[:-1]), HOLE_BAND], ["image .* after 6719 bytes: expected 6720"]),
        ([header(), IMAGE_BAND, band(image=b"x")], ["image of box 0 has 6721 bytes: expected 6720"]),
        ([header(), IMAGE_BAND, HOLE_BAND, band(hole=b"x")], ["hole of box 0 has 2241 bytes: expected 2240"]),
        ([header(), band()], ["a band has 0 bytes: expected 1 to 1048576"]),
        ([header(), band(image=bytes((1 << 20) + 1))], ["a band has 1048577 bytes: expected 1 to 1048576"]),
        ([header(), band(box=1, image=b"x")], ["band for box 1: the header has 1 boxes"]),
        ([header(picture=pb.Picture(format=9))], ["unknown pixel format 9", "PIXEL_FORMAT_U8"]),
        ([header(picture=pb.Picture(channels=4))], ["1 or 3 channels, got 4"]),
        ([pb.JobRequest(header=pb.Header(protocol_version=1))], ["unknown pixel format 0"]),
        (
            [pb.JobRequest(header=pb.Header(protocol_version=1, picture=pb.Picture(width=5, channels=3, format=1)))],
            ["at least 1 × 1 px, got 5 × 0"],
        ),
        ([header(boxes=[pb.Box(x=50, y=0, width=7, height=1)])], [r"box 0 is 7 × 1 px at \(50, 0\)", "56 × 40"]),
        ([header(boxes=[pb.Box(x=4294967295, y=4294967295, width=4294967295, height=1)])], ["box 0 is 4294967295"]),
        ([header(boxes=[pb.Box()])], ["box 0 is 0 × 0", "at least 1 × 1"]),
        ([header(options={"structure": "more"})], ["unknown option structure", "this server knows texture"]),
        ([header(options={"texture": "more"})], ["texture is 'more'", "expected one of photo, network"]),
        ([header(model="upscale")], ["'upscale' was trained to upscale, expected one to inpaint"]),
    ],
)
def test_requests_that_do_not_fit(client, messages, sentences):
    with refused(INVALID, *sentences):
        send(client, messages)


def test_texture_is_an_option_of_inpaint_alone(client):
    assert list(client.info().options) == ["texture"]
    with refused(INVALID, "unknown option texture", "knows none here"):
        send(client, [header(options={"texture": "photo"})], "Upscale")


def test_upscale_takes_one_box(client):
    boxes = [pb.Box(width=5, height=5)] * 2
    with refused(INVALID, "Upscale takes one box, got 2"):
        send(client, [header(boxes=boxes)], "Upscale")


def test_upscale_checks_its_rasters_too(client):
    with refused(INVALID, "hole of box 0 ended after 7 bytes: expected 2240"):
        send(client, [header(), IMAGE_BAND, band(hole=bytes(7))], "Upscale")


def test_unknown_model(client):
    with refused(grpc.StatusCode.NOT_FOUND, "no model 'nonesuch'", "pconv-train export", "inpaint, twice, upscale"):
        client.inpaint((56, 40), [(WHOLE, IMAGE, HOLE)], model="nonesuch")
    with refused(grpc.StatusCode.NOT_FOUND, "no model '../inpaint'"):
        client.inpaint((56, 40), [(WHOLE, IMAGE, HOLE)], model="../inpaint")


def test_damaged_model(client, engine):
    path = engine.models.user / "damaged.safetensors"
    path.write_bytes(b"not weights")
    try:
        with refused(INVALID, "'damaged' cannot be used", "not a safetensors file"):
            client.inpaint((56, 40), [(WHOLE, IMAGE, HOLE)], model="damaged")
        assert "not a safetensors" in {m.name: m.problem for m in client.models()}["damaged"]
    finally:
        path.unlink()


def test_too_many_pixels(client):
    size = pb.Picture(width=40_000, height=40_000)
    with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "1600.0 megapixels: the limit is 0.1"):
        send(client, [header(picture=size)])


def test_too_many_boxes(client):
    boxes = [pb.Box(width=1, height=1)] * (MAX_BOXES + 1)
    with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "4097 boxes: the limit is 4096"):
        send(client, [header(boxes=boxes)])


def test_too_many_bands(client):
    crumbs = [band(image=b"x")] * 2000
    with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many small bands"):
        send(client, [header(), *crumbs])


def test_a_message_beyond_grpcs_own_limit(client):
    with refused(grpc.StatusCode.RESOURCE_EXHAUSTED):
        send(client, [header(), band(image=bytes(5 << 20))])


def test_a_full_queue(client):
    """Limit 1 and one worker: the third request that is still sending is refused."""
    release = threading.Event()

    def slowly():
        yield GOOD[0]
        release.wait(10)
        yield from GOOD[1:]

    calls = [client._stub.Inpaint(slowly(), metadata=client._metadata, timeout=20) for _ in range(2)]
    wait_for(lambda: client.info().jobs == 2)
    with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "2 requests run or wait, the limit is 1 waiting"):
        client.inpaint((56, 40), [(WHOLE, IMAGE, HOLE)])
    release.set()
    for call in calls:
        assert list(call)[-1].WhichOneof("event") == "finished"


def test_silence(client):
    quiet = threading.Event()

    def messages():
        yield GOOD[0]
        quiet.wait(10)

    with refused(grpc.StatusCode.DEADLINE_EXCEEDED, "the client sent nothing for 1 seconds"):
        list(client._stub.Inpaint(messages(), metadata=client._metadata, timeout=20))
    quiet.set()


def test_silence_before_the_header(client):
    quiet = threading.Event()

    def messages():
        quiet.wait(10)
        yield from ()

    with refused(grpc.StatusCode.DEADLINE_EXCEEDED, "the client sent nothing for 1 seconds"):
        list(client._stub.Inpaint(messages(), metadata=client._metadata, timeout=20))
    quiet.set()


@pytest.mark.parametrize("metadata", [(), (("authorization", "Bearer wrong"),), (("authorization", TOKEN),)])
@pytest.mark.parametrize("operation", ["Inpaint", "Upscale"])
def test_no_or_wrong_token(client, metadata, operation):
    with refused(grpc.StatusCode.UNAUTHENTICATED, "no token came|is not this server's", "connection.json"):
        send(client, GOOD, operation, metadata=metadata)


def test_no_token_for_the_unary_calls(client):
    with refused(grpc.StatusCode.UNAUTHENTICATED, "no token"):
        client._stub.GetServerInfo(pb.GetServerInfoRequest(), timeout=20)
    with refused(grpc.StatusCode.UNAUTHENTICATED, "no token"):
        client._stub.ListModels(pb.ListModelsRequest(), timeout=20)
    assert client.is_serving()  # health alone is for everybody


@pytest.mark.parametrize(
    ("version", "sentence"), [(0, "update the client"), (PROTOCOL_VERSION + 1, "update pconv-server")]
)
def test_another_protocol_version(client, version, sentence):
    message = pb.JobRequest(header=pb.Header(protocol_version=version))
    with refused(grpc.StatusCode.FAILED_PRECONDITION, f"speaks protocol version {version}, this server 1", sentence):
        send(client, [message])


def test_a_bug_of_ours(client, engine, monkeypatch):
    def broken(*_, **__):
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr(engine, "inpaint", broken)
    call = client._stub.Inpaint(iter(GOOD), metadata=client._metadata, timeout=20)
    with refused(grpc.StatusCode.INTERNAL, "bug of the server", "request id [0-9a-f]{12}", r"server\.log"):
        list(call)
    request_id = dict(call.trailing_metadata())["pconv-request-id"]
    assert request_id in call.details()
    assert "secret" not in call.details()
    monkeypatch.undo()


def test_out_of_memory_is_no_bug(client, engine, monkeypatch):
    def full(*_, **__):
        raise MemoryError("Unable to allocate 9 GiB")

    monkeypatch.setattr(engine, "inpaint", full)
    with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "close other programs", "9 GiB"):
        send(client, GOOD)
    monkeypatch.undo()


def test_a_bug_in_the_service_itself(client, engine, monkeypatch):
    monkeypatch.setattr(engine.models, "entries", lambda: 1 / 0)
    with refused(grpc.StatusCode.INTERNAL, "bug of the server"):
        client.models()
    monkeypatch.undo()


def test_garbage_on_the_wire(client, address):
    host, port = address.split(":")
    for junk in (b"GET / HTTP/1.1\r\n\r\n", bytes(range(256)) * 40, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 99):
        with socket.create_connection((host, int(port)), timeout=5) as raw:
            raw.sendall(junk)
    channel = client.channel.stream_stream("/pconv_api.v1.PConv/Inpaint")
    with pytest.raises(grpc.RpcError):
        list(channel(iter([b"\xff\xff\xff not protobuf"]), metadata=client._metadata, timeout=20))
