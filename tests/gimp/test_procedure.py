"""The procedure as scripts call it, and what the server notices when GIMP ends it."""

import json
import os
import signal
import time
from pathlib import Path

import pytest
from cases import case, photo, selection
from pconv_server.engine import Engine
from serving import CPU, running, wait_for

CASES = [
    case("works", procedure=True, alpha=True),
    case("again", procedure=True, alpha=True, settings={"output": "new", "grow": 2}),
    case("empty", procedure=True, selection=False),
    case("group", procedure=True, extra="group"),
    case("locked", procedure=True, extra="locked"),
    case("unknown", procedure=True, settings={"model": "nobody"}),
    case("no server", procedure=True, settings={"server": "127.0.0.1:9"}),
]


def prepare(folder, cases):
    for one in cases:
        (folder / f"{one['name']}.in").write_bytes(photo().tobytes())
        (folder / f"{one['name']}.sel").write_bytes(selection("blob").tobytes())


@pytest.fixture(scope="module")
def results(gimp):
    prepare(gimp.folder, CASES)
    prepare(gimp.folder, [case("pure")])
    gimp.run([])  # a second start knows the procedure from its cache, and gives other defaults
    return gimp.run(CASES)


def test_it_fills(gimp, results):
    assert (results["works"]["status"], results["works"]["message"]) == ("success", "")
    assert (gimp.folder / "works.before").read_bytes() != (gimp.folder / "works.after").read_bytes()
    assert len(results["again"]["layers"]) == 2


def test_nothing_compiled_of_others_is_loaded(gimp, results):
    gimp.run([case("pure")])
    assert json.loads((gimp.folder / "compiled.json").read_text()) == []


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("empty", "Nothing is selected"),
        ("group", "group"),
        ("locked", "locked"),
        ("unknown", "nobody"),
        ("no server", "pconv-server serve"),
    ],
)
def test_errors_have_a_sentence_and_change_nothing(gimp, results, name, words):
    result = results[name]
    assert result["status"] == "execution-error"
    assert words in result["message"]
    assert "bug" not in result["message"]
    assert not result["dirty"]
    assert (gimp.folder / f"{name}.before").read_bytes() == (gimp.folder / f"{name}.after").read_bytes()


def test_a_wrong_token_is_said(make_gimp, server):
    other = make_gimp(server["address"], "another token")
    cases = [case(operation, operation=operation, procedure=True) for operation in ("inpaint", "upscale")]
    prepare(other.folder, cases)
    for name, result in other.run(cases).items():
        assert result["status"] == "execution-error"
        assert "install-plugin" in result["message"]
        assert not result["dirty"]
        assert (other.folder / f"{name}.before").read_bytes() == (other.folder / f"{name}.after").read_bytes()


class SlowEngine(Engine):
    """Computes until it is let go."""

    busy = ended = 0

    def inpaint(self, image, hole, model="", progress=lambda _: None, *rest):
        self.busy += 1
        try:
            while True:
                progress(0.5)
                time.sleep(0.01)
        finally:
            self.busy -= 1
            self.ended += 1


def plugin_processes(gimp):
    """Process ids of the running plug-in of this GIMP."""
    entry = str(gimp.profile / "plug-ins" / "pconv-inpaint" / "pconv-inpaint.py").encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if entry in words and b"-run" in words:
            found.append(int(folder.name))
    return found


def test_a_plugin_that_dies_leaves_no_job_and_a_dying_server_is_said(gimp, models):
    """Cancel in GIMP kills the plug-in's process: nothing of ours runs any more."""
    engine = SlowEngine(CPU, models)
    cases = [
        case("killed", procedure=True),
        case("server ends", procedure=True),
    ]
    prepare(gimp.folder, cases)
    with running([engine]) as box:
        for one in cases:
            one["settings"] = {"server": box["address"]}
        process = gimp.start(cases)
        try:
            wait_for(lambda: engine.busy == 1, 60)
            [victim] = plugin_processes(gimp)
            os.kill(victim, signal.SIGKILL)
            wait_for(lambda: engine.ended == 1, 5)  # before the next case starts its own
            wait_for(lambda: engine.busy == 1 and engine.ended == 1, 60)
        except BaseException:
            process.kill()
            raise
    assert engine.busy == 0
    assert process.wait(60) == 0
    results = json.loads((gimp.folder / "results.json").read_text())
    assert results["killed"]["status"] != "success"
    assert results["server ends"]["status"] == "execution-error"
    assert "bug" not in results["server ends"]["message"]
    assert "server" in results["server ends"]["message"]
    for name in ("killed", "server ends"):
        assert not results[name]["dirty"]
        assert (gimp.folder / f"{name}.before").read_bytes() == (gimp.folder / f"{name}.after").read_bytes()
