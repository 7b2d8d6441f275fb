import itertools
import json
import re
import sys
from dataclasses import replace

import numpy as np
import pytest
from pconv import PConvUNet, PConvUNetConfig, filling, layers, save_checkpoint
from pconv_train.cli import app
from pconv_train.config import ConfigError
from pconv_train.data import DataError
from pconv_train.evaluation.experiment import choose_methods, evaluate
from pconv_train.evaluation.figures import choose_ranks
from pconv_train.evaluation.methods import BUILDERS, RIVALS, Machine, Method, MethodError, command_line
from pconv_train.evaluation.pairs import COLUMNS, choose_photos, dilation_pairs, inpaint_pairs, upscale_pairs
from pconv_train.evaluation.published import published
from pconv_train.evaluation.run import RESULTS, read_results
from pconv_train.evaluation.worker import Worker
from pconv_train.holes import border_class
from PIL import Image
from typer.testing import CliRunner

CRASH = f"""{sys.executable} -c 'import os, signal; os.kill(os.getppid(), signal.SIGKILL)'"""
MACHINE = Machine(threads=1)


def checkpoint(path, task="inpaint"):
    return save_checkpoint(path, PConvUNet(PConvUNetConfig((4, 8), (3, 3))), task)


def numbers(experiment):
    return json.loads((experiment.output / "report.json").read_text())


def test_pairs_are_those_of_table_1(photos):
    chosen = choose_photos([photos], 3, seed=1)
    assert chosen == choose_photos([photos], None, seed=1)[:3]
    assert chosen != choose_photos([photos], 3, seed=2)
    pairs = inpaint_pairs(chosen, 32, 1)
    assert len(pairs) == 36
    for pair, (index, border) in zip(pairs[:12], COLUMNS, strict=True):
        hole = pair.load().hole
        assert index / 10 < hole.mean() <= (index + 1) / 10
        assert border_class(hole) == border


def test_the_dilation_study_grows_one_hole(photos):
    holes = [pair.load().hole for pair in dilation_pairs(choose_photos([photos], None, 0), 32, 0)]
    assert len(holes) >= 4
    assert all((less <= more).all() and less.sum() < more.sum() for less, more in itertools.pairwise(holes))


def test_same_seed_same_figures_and_every_method_gets_every_pair(small, tmp_path):
    small = replace(small, commands=("black=cp {image} {output}",))
    other = replace(small, output=tmp_path / "again")
    evaluate(small), evaluate(other)
    first, second = numbers(small), numbers(other)
    assert first["tables"] == second["tables"]
    assert first["measured"] == ["black", "mean color"]
    results = read_results(small.output).values()
    pairs = {
        method: {(r["photo"], r["column"]) for r in results if r["method"] == method} for method in first["measured"]
    }
    assert pairs["black"] == pairs["mean color"]
    difference = first["tables"]["l1"]["differences"]["mean color"]["all"]
    assert first["reference"] == "black"
    means = {name: first["tables"]["l1"]["figures"][name]["all"]["mean"] for name in first["measured"]}
    assert difference["mean"] == pytest.approx(means["mean color"] - means["black"])


def test_a_resumed_run_does_no_work_twice(small):
    printed = evaluate(small)
    before = (small.output / RESULTS).read_bytes()
    report = (small.output / "report.json").read_bytes()
    (small.output / RESULTS).write_bytes(before + b'{"key": "cut of')
    assert evaluate(small) == printed
    assert (small.output / RESULTS).read_bytes() == before
    assert (small.output / "report.json").read_bytes() == report


def test_a_run_stops_in_time_and_goes_on(small):
    evaluate(replace(small, photos=1))
    printed = evaluate(replace(small, minutes=0))
    assert "12 results are still to be computed" in printed
    assert numbers(small)["photos"] == 1
    assert "still to be computed" not in evaluate(small)
    assert numbers(small)["photos"] == 2


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (CRASH, "its process died (signal SIGKILL)"),
        ("false", "the command ended with code 1"),
        ("true", "the command wrote no output picture"),
        ("/nowhere/at-all", "the command cannot be run"),
    ],
)
def test_a_method_that_crashes_is_reported_and_the_others_go_on(small, command, reason):
    small = replace(small, photos=1, commands=(f"bad={command}",))
    evaluate(small)
    found = numbers(small)
    assert found["measured"] == ["mean color"]
    assert reason in found["failures"]["bad"][0]
    assert len(found["failures"]["bad"]) == 5
    assert found["skipped"]["bad"] == "given up after 5 failures in a row"
    for name in ("report.md", "report.html"):
        assert reason in (small.output / name).read_text()
    assert found["tables"]["psnr"]["figures"]["mean color"]["all"]["photos"] == 1


def test_a_method_whose_process_is_killed_between_pictures_is_started_again():
    picture, hole = np.zeros((8, 8, 3), np.uint8), np.ones((8, 8), bool)
    with Worker(Method("mean color", "mean color", ""), MACHINE) as worker:
        worker.restore(picture, ~hole)
        worker._process.kill()
        worker._process.join()
        with pytest.raises(MethodError, match=r"its process died \(signal SIGKILL\)"):
            worker.restore(picture, ~hole)
        assert worker.restore(picture, ~hole).picture.shape == picture.shape


def test_two_sets_of_one_name_are_refused(photos, tmp_path):
    with pytest.raises(DataError, match="two folders are called photos"):
        upscale_pairs([photos, tmp_path / "another" / "photos"], None, 0)


def test_a_photo_that_cannot_be_read_is_left_out(small):
    broken = choose_photos(small.folders, 2, small.seed)[0]
    broken.write_bytes(b"nothing")
    evaluate(small)
    assert list(numbers(small)["unreadable"]) == [broken.name]
    assert numbers(small)["photos"] == 1
    assert f"{broken.name} left out" in (small.output / "report.md").read_text()


def test_a_command_that_hangs_is_ended(small):
    small = replace(
        small, photos=1, commands=("slow=sh -c 'exec sleep 60'",), machine=replace(small.machine, timeout=0.05)
    )
    evaluate(small)
    assert "longer than 0.05 s" in numbers(small)["failures"]["slow"][0]


def test_sheets_show_the_worst_the_median_and_the_best():
    assert choose_ranks(list(range(100)), 4) == {
        "worst": [0, 1, 2, 3],
        "median": [48, 49, 50, 51],
        "best": [96, 97, 98, 99],
    }
    assert choose_ranks(list(range(7))) == {"worst": [0, 1], "median": [2, 3], "best": [5, 6]}
    assert choose_ranks([5, 6]) == {"worst": [5, 6]}
    assert choose_ranks([]) == {}


def test_checkpoints_through_the_command_line(photos, tmp_path):
    sha256 = checkpoint(tmp_path / "one.safetensors")
    checkpoint(tmp_path / "two.safetensors")
    output = tmp_path / "report"
    options = ["--size", "32", "--photos", "1", "--perceptual", "none", "--device", "cpu", "--threads", "1"]
    options += ["--without", "PatchMatch", "--without", "Telea", "--without", "Navier–Stokes", "-o", str(output)]
    for name in ("one", "two"):
        options += ["--checkpoint", f"{name}={tmp_path / name}.safetensors"]
    options += ["--reference", "mean color"]
    result = CliRunner().invoke(app, ["evaluate", str(photos), *options])
    assert result.exit_code == 0, result.output
    assert "| one |" in result.output
    assert "PConv (published)" in result.output
    found = json.loads((output / "report.json").read_text())
    assert sha256 in found["methods"]["one"]["identity"]
    assert found["costs"]["one"]["peak_mib"] > found["costs"]["mean color"]["peak_mib"]
    page = (output / "report.html").read_text()
    assert {"examples.jpg", "worst-0.jpg", "dilation.jpg", "ablation.jpg"} <= {path.name for path in output.iterdir()}
    assert "| one + texture |" in result.output
    assert page.count("<figure>") == 7
    with Image.open(output / "ablation.jpg") as sheet:
        assert sheet.width > 6 * 256  # input, both checkpoints with and without texture, truth
    assert not re.search(r'(src|href)="(?!data:)', page)  # self-contained


def test_super_resolution_has_a_column_for_each_set(photos, small, tmp_path):
    options = {"task": "upscale", "without": ("Real-ESRGAN",), "photos": None, "side": None}
    small = replace(small, folders=(photos, photos / "deeper"), **options)
    printed = evaluate(small)
    found = numbers(small)
    assert found["columns"] == ["photos", "deeper"]
    assert found["measured"] == ["nearest", "bicubic", "Lanczos"]
    psnr = found["tables"]["psnr"]["figures"]
    assert psnr["nearest"]["photos"]["photos"] == 8
    assert psnr["nearest"]["deeper"]["mean"] < psnr["bicubic"]["deeper"]["mean"]
    assert "Report:" in printed
    checkpoint(tmp_path / "up.safetensors", "upscale")
    up = f"up={tmp_path / 'up.safetensors'}"
    command = ["evaluate", str(photos), "--task", "upscale", "--size", "40", "--jpeg", "30", "--checkpoint", up]
    command += ["--without", "Real-ESRGAN", "--perceptual", "none", "--threads", "1", "-o", str(small.output)]
    assert CliRunner().invoke(app, command).exit_code == 0
    assert "does worst by PSNR (Y), dB." in (small.output / "report.md").read_text()  # of holes nothing
    figures = numbers(small)["tables"]["psnr"]["figures"]["bicubic"]
    assert numbers(small)["columns"] == ["photos, 40 px, JPEG 30", "photos, 40 px, JPEG 30, cropped"]
    for column in numbers(small)["columns"]:
        assert figures[column]["mean"] < psnr["bicubic"]["photos"]["mean"]


def test_quick_leaves_out_what_takes_minutes(photos, small):
    upscale = replace(small, task="upscale", without=("Lanczos",))
    assert [method.name for method in choose_methods(upscale)] == ["nearest", "bicubic", "Real-ESRGAN"]
    assert [method.name for method in choose_methods(replace(upscale, quick=True))] == ["nearest", "bicubic"]


def test_results_depend_on_the_code_that_made_them(small, tmp_path, monkeypatch):
    weights = tmp_path / "weights.safetensors"
    checkpoint(weights)
    experiment = replace(small, checkpoints=(f"ours={weights}",), without=())

    def identities():
        return {method.name: method.identity for method in choose_methods(experiment)}

    before = identities()
    other = tmp_path / "other.py"
    other.write_text("# another way to compute")
    for module in (filling, layers):
        with monkeypatch.context() as patch:
            patch.setattr(module, "__file__", str(other))
            after = identities()
        assert {name for name in before if before[name] != after[name]} == {"ours", "ours + texture", "membrane"}


def test_a_refinement_network_is_part_of_what_is_judged(small, tmp_path):
    weights, refine = tmp_path / "weights.safetensors", tmp_path / "refine.safetensors"
    checkpoint(weights), checkpoint(refine, "refine")
    experiment = replace(small, checkpoints=(f"ours={weights}",), without=tuple(RIVALS["inpaint"]))
    alone, together = choose_methods(experiment), choose_methods(replace(experiment, refine=refine))
    assert {method.identity for method in alone}.isdisjoint(method.identity for method in together)
    image, hole = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8), np.zeros((200, 200), bool)
    hole[30:170, 30:170] = True  # wide
    fills = [BUILDERS[method.kind](method, MACHINE)(image, hole) for method in (alone[0], together[0])]
    assert not np.array_equal(*fills)
    assert np.array_equal(fills[1][~hole], image[~hole])
    with pytest.raises(ConfigError, match="is for the task 'inpaint', not 'refine'"):
        choose_methods(replace(small, checkpoints=experiment.checkpoints, refine=weights))
    with pytest.raises(ConfigError, match="--refine is for --task inpaint, not upscale"):
        choose_methods(replace(small, task="upscale", without=(), refine=refine))


def test_a_study_of_an_evaluation_and_its_rates(small, tmp_path):
    evaluate(replace(small, photos=1, commands=("before=cp {image} {output}",)))
    evaluate(replace(small, photos=1, commands=("black=cp {image} {output}",)))  # the results have another name now
    page, runner = tmp_path / "study.html", CliRunner()
    options = ["study", "page", str(small.output), "-o", str(page), "--count", "3", "--ours"]
    result = runner.invoke(app, [*options, "black"])
    assert result.exit_code == 0, result.output
    found = re.search(r'<script id="data" type="application/json">(.*?)</script>', page.read_text(), re.DOTALL)
    data = json.loads(found[1])
    asked = [(trial["a"], trial["b"], trial["ms"]) for trial in data["trials"]]
    each = [("black", "mean color", 0)]
    each += [(method, "truth", ms) for method in ("black", "mean color") for ms in (250, 1000, 4000)]
    assert sorted(asked) == sorted(3 * each)
    assert all(trial[f"picture_{side}"] in data["pictures"] for trial in data["trials"] for side in "ab")
    assert runner.invoke(app, [*options, "nobody"]).exit_code == 2

    for number in range(2):
        chosen = [{**trial, "chosen": "a" if trial["ms"] == 0 else "b"} for trial in data["trials"]]
        (tmp_path / f"{number}.json").write_text(json.dumps({"answers": chosen}))
    result = runner.invoke(app, ["study", "rates", str(tmp_path / "0.json"), str(tmp_path / "1.json")])
    assert "| black preferred to mean color | no limit | 100.0 % | 61.0 … 100.0 % | 6 |" in result.output
    assert "| black preferred to truth | 250 ms | 0.0 % | 0.0 … 39.0 % | 6 |" in result.output
    (tmp_path / "0.json").write_text("[]")
    assert runner.invoke(app, ["study", "rates", str(tmp_path / "0.json")]).exit_code == 2


def test_options_that_do_not_fit_are_named(small, tmp_path):
    checkpoint(tmp_path / "up.safetensors", "upscale")
    for change, message in (
        ({"checkpoints": (f"a={tmp_path / 'up.safetensors'}",)}, "is for the task 'upscale', not 'inpaint'"),
        ({"checkpoints": ("a",)}, "NAME=PATH"),
        ({"commands": ("mean color=true",)}, "two methods are called mean color"),
        ({"without": ("nobody",)}, "--without takes mean color"),
        ({"reference": "nobody"}, "--reference must be one of mean color"),
        ({"side": 8}, "at least 32 px, got 8"),
        ({"side": 8, "task": "upscale", "without": ()}, "at least 32 px, got 8"),
        ({"quality": 75}, "--jpeg is for --task upscale"),
        ({"perceptual": "best"}, "--perceptual must be one of"),
    ):
        with pytest.raises(ConfigError, match=re.escape(message)):
            evaluate(replace(small, **change))


def test_command_lines():
    files = {"image": "i.png", "hole": "h.png", "output": "o.png"}
    assert command_line("tool --fast", files) == ["tool", "--fast", "i.png", "h.png", "o.png"]
    assert command_line("tool -o{output} '{image} x'", files) == ["tool", "-oo.png", "i.png x"]


def test_published_rows_are_complete():
    for metric, methods in published("inpaint").items():
        assert list(methods) == ["PatchMatch", "Iizuka et al.", "Yu et al.", "Conv", "PConv"], metric
        assert all(len(columns) == 12 for columns in methods.values())
    assert published("inpaint")["psnr"]["PConv"]["50–60 % B"] == 19.04
    assert published("upscale")["psnr"]["bicubic"] == {"set5": 28.42, "set14": 26.0}
