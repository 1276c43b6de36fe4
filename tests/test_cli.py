"""The command as users start it: a process, its output, its exit code."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hub_server import HubServer

from cxr_foundation.cli import app

CXR = str(Path(sys.executable).with_name("cxr"))


def cxr(*arguments, environment=os.environ, **changes):
    return subprocess.run(
        [CXR, *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**environment, "COLUMNS": "100", **changes},
    )


def commands():
    names = [[c.name or c.callback.__name__] for c in app.registered_commands]
    for group in app.registered_groups:
        names += [
            [group.name, c.name or c.callback.__name__]
            for c in group.typer_instance.registered_commands
        ]
    return names


def test_every_verb_is_swept():
    assert sorted(" ".join(c) for c in commands()) == [
        "audit",
        "check",
        "convert",
        "demo",
        "doctor",
        "embed",
        "experiment",
        "inspect",
        "list",
        "pretrain",
        "push",
        "shard",
        "show",
        "transfer classify",
        "verify",
    ]


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_help_has_an_example(command):
    result = cxr(*command, "--help")
    assert result.returncode == 0
    assert f"Example: cxr {' '.join(command)}" in result.stdout


def test_help_never_imports_a_framework():
    code = (
        "import sys\nfrom cxr_foundation.cli import main\n"
        "sys.argv = ['cxr', 'pretrain', '--help']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print(sorted({'torch', 'timm', 'transformers'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.splitlines()[-1] == "[]"


def test_the_version_is_printed():
    from cxr_foundation import __version__

    assert cxr("--version").stdout.strip() == __version__


def test_list_names_the_default_of_an_architecture():
    lines = cxr("list", "cxr_resnet50*").stdout.splitlines()
    assert [line.split()[1] for line in lines if line.startswith("*")] == ["cxr_resnet50.chess"]
    assert len({line.index("  3x") for line in lines if "  3x" in line}) == 1


def test_list_as_json_holds_the_contract():
    records = json.loads(cxr("list", "cxr_resnet50.chess", "--json").stdout)
    assert [(r["name"], r["contract"]["size"]) for r in records] == [
        ("cxr_resnet50.chess", [512, 512])
    ]


def test_show_prints_licence_source_and_citation():
    shown = cxr("show", "cxr_resnet50.chess").stdout
    for word in ("1C_Gis2qcZcA9X3l2NEHR1oS4Gn_bTxTe", "licence", "10.1007/s10278-023-00782-4"):
        assert word in shown


def test_an_unknown_name_is_answered_with_the_closest_and_exit_code_1():
    result = cxr("show", "cxr_resnet50.ches")
    assert result.returncode == 1
    assert result.stderr.startswith("error: cxr_resnet50.ches: ")
    assert "Did you mean 'cxr_resnet50.chess'" in result.stderr
    assert len(result.stderr.splitlines()) <= 2


def test_verify_passes_on_the_bundled_encoder():
    result = cxr("verify", "cxr_resnet18.moco_open", "--json")
    assert (result.returncode, json.loads(result.stdout)["status"]) == (0, "pass")


def test_inspect_names_code_and_convert_refuses_it_and_neither_runs_it(tmp_path):
    command = f"touch {tmp_path}/ran".encode()
    size = len(command).to_bytes(4, "little")
    evil = b"\x80\x02cposix\nsystem\nX" + size + command + b"\x85R."
    (tmp_path / "evil.pth").write_bytes(evil)
    inspected = cxr("inspect", tmp_path / "evil.pth")
    assert "posix.system" in inspected.stdout
    converted = cxr("convert", tmp_path / "evil.pth", tmp_path / "out")
    assert converted.returncode == 1
    assert "posix.system" in converted.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["evil.pth"]


def test_convert_never_overwrites_a_folder(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious").touch()
    weights = Path(__file__).parent.parent / "cxr_foundation/weights/cxr_resnet18.moco_open"
    result = cxr("convert", weights / "model.safetensors", tmp_path / "out")
    assert (result.returncode, "already exists" in result.stderr) == (1, True)
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["precious"]


def test_convert_writes_a_folder_that_verify_reads(tmp_path):
    weights = Path(__file__).parent.parent / "cxr_foundation/weights/cxr_resnet18.moco_open"
    assert cxr("convert", weights / "model.safetensors", tmp_path / "out").returncode == 0
    assert (tmp_path / "out" / "config.json").exists()
    # The card of a conversion holds no golden embedding: it says so instead of passing.
    assert cxr("verify", tmp_path / "out").returncode == 3


def test_a_missing_file_is_one_line(tmp_path):
    result = cxr("inspect", tmp_path / "none.pth")
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) <= 2


def test_pretrain_names_a_recipe_that_does_not_exist(tmp_path):
    result = cxr("pretrain", "moco_open_smal", "--data", tmp_path)
    assert result.returncode == 1
    assert "moco_open_small" in result.stderr


def test_pretrain_refuses_an_empty_folder(tmp_path):
    (tmp_path / "data").mkdir()
    result = cxr(
        "pretrain", "moco_open_small", "--data", tmp_path / "data", "--output", tmp_path / "o"
    )
    assert result.returncode == 1
    assert result.stderr.startswith(f"error: {tmp_path / 'data'}")
    assert not (tmp_path / "o").exists()


def test_push_refuses_a_folder_without_a_card_before_any_request(tmp_path):
    (tmp_path / "model.safetensors").touch()
    result = cxr("push", tmp_path, "org/name", HF_ENDPOINT="http://127.0.0.1:9")
    assert result.returncode == 1
    assert result.stderr.startswith(f"error: {tmp_path}")


TINY = {
    "data.split": "test",
    "data.size": "[40,40]",
    "views.size": "[32,32]",
    "train.epochs": 1,
    "method.queue": 64,
}


def test_pretrain_pushes_what_another_process_loads_without_this_package(tmp_path, bundled):
    settings = [word for key, value in TINY.items() for word in ("--set", f"{key}={value}")]
    with HubServer() as hub:
        environment = hub.environment(tmp_path / "home")
        arguments = ["moco_open_small", "--data", bundled, "--output", tmp_path / "run", *settings]
        trained = cxr("pretrain", *arguments, "--push-to", "org/tiny", environment=environment)
        assert trained.returncode == 0, trained.stderr
        again = cxr("push", tmp_path / "run" / "encoder", "org/tiny", environment=environment)
        assert again.returncode == 0, again.stderr
        loaded = hub.run(
            "import json, sys, torch\n"
            "sys.modules['cxr_foundation'] = None\n"
            "from transformers import AutoModel\n"
            "from huggingface_hub import ModelCard\n"
            "model = AutoModel.from_pretrained('org/tiny').eval()\n"
            "with torch.inference_mode():\n"
            "    features = model(torch.zeros(1, 1, 160, 160)).pooler_output\n"
            "card = ModelCard.load('org/tiny')\n"
            "print(json.dumps([list(features.shape), card.data.license]))",
            tmp_path,
        )
    assert loaded == [[1, 512], "apache-2.0"]
    finished = cxr("pretrain", *arguments)
    assert (finished.returncode, "this run is finished" in finished.stderr) == (1, True)


@pytest.mark.parametrize("mode", ["probe", "knn"])
def test_classify_writes_a_report_of_someones_own_labels(tmp_path, bundled, mode):
    labels = ["--positive", "tb", "--negative", "normal", "--source", "shenzhen"]
    protocol = ["--train-split", "dev", "--split", "test", "--counts", "5", "--draws", "2"]
    out = tmp_path / "report"
    result = cxr(
        *["transfer", "classify", bundled, "--model", "cxr_resnet18.moco_open", "--mode", mode],
        *[*labels, *protocol, "--output", out],
    )
    assert result.returncode == 0, result.stderr
    found = json.loads((out / "results.json").read_text())
    assert [(t["positive"], t["negative"]) for t in found["tasks"]] == [("tb", "normal")]
    assert found["protocol"]["test_was_read"] is True
    assert "--train-split dev" in found["command"]
    assert (out / "report.html").read_text().startswith("<!DOCTYPE html>")
