import sys
from pathlib import Path

import pytest
from pconv_server import plugin
from pconv_server.engine import Engine
from pconv_server.models import ModelFolder
from serving import CPU, running, save_weights


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """The plug-in as it is installed."""
    target = tmp_path_factory.mktemp("plug-ins") / plugin.NAME
    plugin.fill_folder(plugin.source_folder(), target)
    return target


@pytest.fixture
def wire(monkeypatch):
    """The client, in this process."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "plugins" / "gimp" / plugin.NAME))
    import wire

    yield wire
    for name in ("wire", "connection", "failures", "starting"):
        sys.modules.pop(name, None)


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    weights = save_weights(tmp_path_factory.mktemp("weights"))
    with running([Engine(CPU, ModelFolder(weights, default=weights / "none"))]) as box:
        yield box
