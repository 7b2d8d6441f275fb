import numpy as np
import pytest
from pconv_server import demo
from pconv_server.models import ModelFolder
from pconv_server.pictures import read_photo
from typer.testing import CliRunner


@pytest.fixture
def run(tmp_path, monkeypatch):
    import os
    import sys

    import typer

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    app = typer.Typer()
    app.command()(demo.main)
    return lambda *arguments: CliRunner().invoke(app, [str(tmp_path / "out"), *map(str, arguments)])


def test_without_weights_it_says_what_to_do(run, tmp_path, monkeypatch):
    monkeypatch.setattr(ModelFolder.__init__, "__defaults__", (None, tmp_path))
    result = run()
    assert result.exit_code == 1
    assert "there is no model 'inpaint'" in result.output
    assert "pconv-train export" in result.output
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_it_fills_the_hole_and_enlarges_through_a_real_server(run, weights, tmp_path, config_home):
    pytest.importorskip("skimage")
    result = run("--models", weights)
    assert result.exit_code == 0, result.output
    before, after = (read_photo(tmp_path / "out" / f"inpaint-{when}.png").pixels for when in ("before", "after"))
    hole = demo.irregular_hole(512, 512)
    assert 0.02 < hole.mean() < 0.2
    assert np.array_equal(before[~hole], after[~hole])
    assert (before[hole] != after[hole]).any(axis=1).mean() > 0.9
    assert read_photo(tmp_path / "out" / "upscale-after.png").size == (600, 600)
    for step in ("start the server", "fill", "enlarge", "stop the server"):
        assert f" s  {step}" in result.output
    assert not config_home.exists()  # the user's own connection.json is left alone
