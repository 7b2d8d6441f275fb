"""`pconv-server install-plugin`: into which profiles, what, and how it goes away again."""

import json
import stat

import pytest
from pconv_server import plugin
from pconv_server.cli import app
from pconv_server.doctor import check_plugins
from typer.testing import CliRunner


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.setenv("PCONV_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("GIMP3_DIRECTORY", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "config"


def run(*words):
    return CliRunner().invoke(app, ["install-plugin", *map(str, words)])


def test_every_profile_gets_it(tmp_path, config):
    profiles = [tmp_path / ".config" / "GIMP" / name for name in ("3.0", "3.2")]
    for profile in [*profiles, profiles[0].with_name("2.10")]:
        profile.mkdir(parents=True)
    assert run("--dry-run").output.count("would install") == 2
    assert not list(profiles[0].iterdir())
    assert run().output.count("installed") == 2
    for profile in profiles:
        folder = plugin.plugin_folder(profile)
        assert (folder / "pconv-inpaint.py").stat().st_mode & 0o111 == 0o111
        assert (folder / "vendor" / "pconv_api" / "v1" / "pconv_pb2.py").is_file()
        assert not (folder / "vendor" / "pconv_api" / "v1" / "pconv_pb2_grpc.py").exists()
        assert plugin.installed_version(profile)
        connection = folder / "connection.json"
        assert stat.S_IMODE(connection.stat().st_mode) == 0o600
        assert json.loads(connection.read_text()) == json.loads((config / "connection.json").read_text())
    assert not plugin.plugin_folder(profiles[0].with_name("2.10")).exists()


def test_an_older_one_is_replaced_whole(tmp_path, config):
    assert run("--target", tmp_path / "p").exit_code == 0
    folder = plugin.plugin_folder(tmp_path / "p")
    (folder / "left.py").write_text("")
    (folder / "VERSION").write_text("0.0.0")
    assert run("--target", tmp_path / "p").exit_code == 0
    assert not (folder / "left.py").exists()
    assert plugin.installed_version(tmp_path / "p") != "0.0.0"
    assert [path.name for path in folder.parent.iterdir()] == ["pconv-inpaint"]


def test_uninstall(tmp_path, config):
    run("--target", tmp_path)
    assert "would remove" in run("--target", tmp_path, "--uninstall", "--dry-run").output
    assert plugin.plugin_folder(tmp_path).exists()
    assert "removed" in run("--target", tmp_path, "--uninstall").output
    assert not plugin.plugin_folder(tmp_path).exists()
    assert "not in" in run("--target", tmp_path, "--uninstall").output
    assert plugin.installed_version(tmp_path) is None


def test_no_gimp_has_a_remedy(config):
    result = run()
    assert result.exit_code == 2
    assert "start GIMP once" in result.output


def test_a_profile_that_cannot_be_written_is_said(tmp_path, config):
    (tmp_path / "plug-ins").write_text("a file in the way")
    result = run("--target", tmp_path)
    assert result.exit_code == 2
    assert "cannot write" in result.output


@pytest.mark.parametrize(
    ("platform", "environment", "root"),
    [
        ("linux", {}, ".config/GIMP"),
        ("linux", {"XDG_CONFIG_HOME": "{home}/xdg"}, "xdg/GIMP"),
        ("linux", {}, ".var/app/org.gimp.GIMP/config/GIMP"),
        ("linux", {}, "snap/gimp/current/.config/GIMP"),
        ("darwin", {}, "Library/Application Support/GIMP"),
        ("win32", {"APPDATA": "{home}/Roaming"}, "Roaming/GIMP"),
        ("win32", {}, "AppData/Roaming/GIMP"),
    ],
)
def test_where_gimp_keeps_its_profiles(tmp_path, platform, environment, root):
    (tmp_path / root / "3.2").mkdir(parents=True)
    environment = {name: value.format(home=tmp_path) for name, value in environment.items()}
    assert plugin.find_profiles(tmp_path, environment, platform) == [tmp_path / root / "3.2"]


def test_gimp_s_own_variable_wins(tmp_path):
    assert plugin.find_profiles(tmp_path, {"GIMP3_DIRECTORY": "/elsewhere"}, "linux")[0].as_posix() == "/elsewhere"


def test_the_doctor_sees_missing_and_old_plugins(tmp_path, config):
    assert [check.remedy for check in check_plugins([tmp_path])] == ["pconv-server install-plugin"]
    older, newest = tmp_path / "3.0", tmp_path / "3.2"
    assert [bool(check.remedy) for check in check_plugins([older, newest])] == [False, True]
    run("--target", tmp_path)
    assert [check.remedy for check in check_plugins([tmp_path])] == [""]
    (plugin.plugin_folder(tmp_path) / "VERSION").write_text("0.0.0")
    [check] = check_plugins([tmp_path])
    assert "0.0.0" in check.text
    assert check.remedy == "pconv-server install-plugin"
    assert [check.remedy for check in check_plugins([])] == [""]
