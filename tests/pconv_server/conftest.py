import pytest
import torch
from pconv_server.client import Client
from pconv_server.connection import Connection
from pconv_server.engine import Engine
from pconv_server.models import ModelFolder
from serving import CPU, TOKEN, running, save_weights

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    """A folder of tiny networks with fixed weights."""
    return save_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture
def models(weights, tmp_path):
    return ModelFolder(weights, default=tmp_path / "no defaults")


@pytest.fixture
def engine(models):
    return Engine(CPU, models)


@pytest.fixture
def config_home(tmp_path, monkeypatch):
    """No test touches the user's own connection.json, log or models."""
    monkeypatch.setenv("PCONV_CONFIG_DIR", str(tmp_path / "config" / "pconv"))
    monkeypatch.setenv("HOME", str(tmp_path))  # nor its GIMP profiles
    for name in ("GIMP3_DIRECTORY", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "config" / "pconv"


@pytest.fixture
def server(engine, config_home):
    with running([engine]) as box:
        yield box


@pytest.fixture
def client(server):
    with Client(Connection(server["address"], TOKEN)) as client:
        yield client
