from pathlib import Path

import pytest
from pconv import describe_checkpoint
from pconv_train.cli import app, run_folder
from typer.testing import CliRunner

runner = CliRunner()


def fit(photos, run, *more, name="fit"):
    options = ["--stages", "2", "--steps", "2", "--batch", "2", "--crop", "16", "--workers", "0", "--loss", "l1"]
    options += ["--validation", "2", "--threads", "1", "--device", "cpu"]
    return runner.invoke(app, [name, str(photos), "--name", str(run), *options, *more])


def test_two_commands_from_a_folder_to_a_checkpoint(photos, tmp_path):
    result = fit(photos, tmp_path / "run")
    assert result.exit_code == 0, result.output
    result = runner.invoke(app, ["export", str(tmp_path / "run"), "-o", str(tmp_path / "mine.safetensors")])
    assert result.exit_code == 0, result.output
    info = describe_checkpoint(tmp_path / "mine.safetensors")
    assert info.sha256 in result.output
    assert info.task == "inpaint"
    (stage,) = info.provenance["stages"]
    assert (stage["steps"], stage["pictures"], stage["data"]["photos"]) == (2, 4, 6)
    assert str(tmp_path) not in str(info.provenance)  # no paths of this machine


def test_finetune_starts_from_a_checkpoint_with_the_paper_s_rate(photos, tmp_path):
    fit(photos, tmp_path / "run")
    runner.invoke(app, ["export", str(tmp_path / "run"), "-o", str(tmp_path / "one.safetensors")])
    result = fit(photos, tmp_path / "two", "--init", str(tmp_path / "one.safetensors"), name="finetune")
    assert result.exit_code == 0, result.output
    (tmp_path / "one.safetensors").unlink()  # the run has its own
    runner.invoke(app, ["export", str(tmp_path / "two"), "-o", str(tmp_path / "two.safetensors")])
    first, second = describe_checkpoint(tmp_path / "two.safetensors").provenance["stages"]
    assert first["config"]["learning_rate"] == 2e-4
    assert second["config"]["learning_rate"] == 5e-5
    assert second["config"]["freeze_encoder_norm"]
    assert second["config"]["init"] == "one.safetensors"
    result = runner.invoke(app, ["finetune", "--name", str(tmp_path / "two"), "--resume", "--steps", "3"])
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["finetune", "{photos}"], "give --init CHECKPOINT"),
        (["fit"], "give a folder of photographs"),
        (["fit", "--name", "{tmp}/none", "--resume"], "no run at"),
        (["fit", "{photos}", "--name", "{tmp}/r", "--steps", "1", "--weights", "gloss=3"], "a name of valid, hole"),
        (["fit", "{photos}", "--name", "{tmp}/r", "--steps", "1", "--weights", "style=much"], "NAME=NUMBER"),
        (
            ["fit", "{photos}", "--name", "{tmp}/r", "--steps", "1", "--blocks", "many"],
            "a number for each decoder stage",
        ),
        (
            ["fit", "{photos}", "--name", "{tmp}/r", "--steps", "1", "--stages", "2", "--blocks", "1,1"],
            "at most 1 number",
        ),
        (["fit", "{photos}", "--name", "{tmp}/r", "--steps", "1", "--vgg", "{tmp}/no"], "no VGG-16 weights at"),
        (
            ["fit", "{photos}", "--name", "{tmp}/r", "--steps", "1", "--layout", "imagenet"],
            "layout 'imagenet': expected",
        ),
        (
            ["fit", "{photos}", "--name", "{tmp}/r", "--steps", "1", "--task", "upscale", "--curriculum", "9"],
            "--curriculum and --curriculum-share are for --task inpaint",
        ),
        (
            ["fit", "{photos}", "--name", "{tmp}/r", "--steps", "1", "--curriculum-share", "0.5"],
            "--crop of at least 64 px",
        ),
        (["fit", "{photos}", "--name", "{tmp}/r"], "either --steps or --hours"),
        (["fit", "{photos}", "--name", "{tmp}/r", "--steps", "1", "--device", "gpu"], "auto, cpu, cuda or cuda:N"),
        (["fit", "{photos}", "--name", "{tmp}/r", "--steps", "1", "--schedule", "constnat"], "cosine, constant"),
        (["export", "{tmp}/none", "-o", "{tmp}/x.safetensors"], "no run at"),
    ],
)
def test_mistakes_get_a_sentence(photos, tmp_path, arguments, message):
    filled = [part.format(photos=photos, tmp=tmp_path) for part in arguments]
    if filled[0] == "fit" and "--steps" in filled:
        filled += ["--validation", "2", "--crop", "16"]
    result = runner.invoke(app, filled)
    assert result.exit_code == 2
    assert message in result.output
    assert "Traceback" not in result.output


def test_files_that_are_something_else_are_named(photos, tmp_path):
    (tmp_path / "notes.pth").write_text("no weights")
    result = fit(photos, tmp_path / "run", "--loss", "full", "--vgg", str(tmp_path / "notes.pth"))
    assert (result.exit_code, "notes.pth holds no weights" in result.output) == (2, True)
    fit(photos, tmp_path / "run", "--task", "upscale")
    runner.invoke(app, ["export", str(tmp_path / "run"), "-o", str(tmp_path / "large.safetensors")])
    result = fit(photos, tmp_path / "more", "--task", "refine", "--coarse", str(tmp_path / "large.safetensors"))
    assert "large.safetensors is for upscale" in result.output


def test_a_run_is_never_overwritten(photos, tmp_path):
    assert fit(photos, tmp_path / "run").exit_code == 0
    before = (tmp_path / "run" / "state.pt").read_bytes()
    result = fit(photos, tmp_path / "run")
    assert result.exit_code == 2
    assert "go on with --resume" in result.output
    assert (tmp_path / "run" / "state.pt").read_bytes() == before


def test_options_that_are_refused_leave_the_name_free(photos, tmp_path):
    assert "multiple of 4" in fit(photos, tmp_path / "run", "--crop", "30").output
    assert fit(photos, tmp_path / "run").exit_code == 0


def test_torchrun_goes_on_with_the_same_run_only(photos, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    assert fit(photos, tmp_path / "run").exit_code == 0
    assert fit(photos, tmp_path / "run").exit_code == 0
    before = (tmp_path / "run" / "config.json").read_bytes()
    assert "go on with --resume" in fit(photos, tmp_path / "run", "--seed", "7").output
    assert (tmp_path / "run" / "config.json").read_bytes() == before


def test_a_run_is_exported_from_any_folder_and_without_its_photos(photos, tmp_path, monkeypatch):
    monkeypatch.chdir(photos.parent)
    assert fit(photos.name, tmp_path / "run").exit_code == 0
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    export = ["export", str(tmp_path / "run"), "-o", "mine.safetensors"]
    assert runner.invoke(app, export).exit_code == 0
    assert "- Data: 6 photos, names' sha256" in Path("mine.md").read_text()
    photos.rename(tmp_path / "gone")
    assert runner.invoke(app, export).exit_code == 0
    assert "- Data: a folder that was not there at the export." in Path("mine.md").read_text()


def test_runs_live_in_the_cache_unless_told_otherwise(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("PCONV_RUNS", raising=False)
    assert run_folder("a") == tmp_path / "pconv" / "runs" / "a"
    monkeypatch.setenv("PCONV_RUNS", str(tmp_path / "x"))
    assert run_folder("a") == tmp_path / "x" / "a"
    assert str(run_folder("./a")) == "a"


def test_holes_writes_a_sheet_or_the_test_set(tmp_path):
    assert runner.invoke(app, ["holes", str(tmp_path / "sheet.png"), "--size", "32"]).exit_code == 0
    assert (tmp_path / "sheet.png").stat().st_size > 100
    assert runner.invoke(app, ["holes", str(tmp_path / "set"), "--size", "32", "--count", "1"]).exit_code == 0
    assert len(list((tmp_path / "set").rglob("*.png"))) == 12
