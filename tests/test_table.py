"""`cxr embed`: a table of features, its bad files, its cuts, and who computes it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import drawn_dicom
import numpy as np
import pytest
import torch
from encoders import publish
from PIL import Image

from cxr_foundation import data
from cxr_foundation.data.sample import Settings
from cxr_foundation.data.sharding import shard
from cxr_foundation.errors import ContractError, NoImages, OutputExists, OutputFailed, UnknownName
from cxr_foundation.models import loading, parts, table
from cxr_foundation.models.embed import embed
from cxr_foundation.models.table import embed_table

parquet = pytest.importorskip("pyarrow.parquet")
CXR = str(Path(sys.executable).with_name("cxr"))


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return publish(tmp_path_factory.mktemp("model") / "folder", "test_resnet")


def draw(folder, count=11, *, bad=()):
    folder.mkdir(parents=True)
    for i in range(count):
        noise = np.random.default_rng(i).integers(0, 256, (70, 80), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{i:02}.png")
    for i in bad:
        (folder / f"{i:02}.png").write_bytes(b"not a picture")
    return folder


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    return draw(tmp_path_factory.mktemp("drawn") / "data", bad=(3, 7))


def run(folder, model, output, **changes):
    arguments = {"root": folder, "batch_size": 2, "rows_per_part": 4, "device": "cpu", **changes}
    return embed_table(data.open_data(folder), model=model, output=output, **arguments)


def read(file):
    found = parquet.read_table(file)
    return found["path"].to_pylist(), np.array(found["embedding"].to_pylist(), np.float32)


@pytest.fixture(scope="module")
def whole(drawn, model, tmp_path_factory):
    output = tmp_path_factory.mktemp("whole") / "out.parquet"
    run(drawn, model, output)
    return output


def test_a_row_is_a_name_and_the_features_of_the_encoder(drawn, model, whole):
    names, features = read(whole)
    assert names == [f"{i:02}.png" for i in range(11) if i not in (3, 7)]
    expected = embed(
        loading.load(model),
        loading.processor(model),
        [drawn / n for n in names],
        device="cpu",
    )
    assert np.abs(features - expected).max() <= 1e-4 * np.abs(expected).max()
    cosines = (features * expected).sum(1) / np.linalg.norm(features, axis=1)
    assert (cosines / np.linalg.norm(expected, axis=1)).min() > 0.999999


def test_the_file_says_what_its_features_depend_on(whole):
    about = json.loads(parquet.read_schema(whole).metadata[b"cxr_foundation"])
    assert sorted(about) == [
        "batch_size",
        "contract",
        "cxr_foundation",
        "model",
        "precision",
        "rows_per_part",
        "timm",
        "torch",
        "trust",
        "weights_sha256",
    ]
    assert parquet.read_schema(whole).field("embedding").type.list_size > 0


def test_bad_files_are_listed_beside_the_table_and_none_else(whole):
    listed = Path(f"{whole}.refused.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in listed] == [
        {
            "path": f"{i:02}.png",
            "kind": "UnreadableImage",
            "reason": "is neither a DICOM nor a PNG, JPEG or TIFF file",
        }
        for i in (3, 7)
    ]
    assert sorted(p.name for p in whole.parent.iterdir()) == [
        "out.parquet",
        # Noise is no radiograph.
        "out.parquet.flagged.jsonl",
        "out.parquet.refused.jsonl",
    ]


def test_nothing_of_a_header_is_in_the_table(model, tmp_path):
    (tmp_path / "data").mkdir()
    pixels = np.random.default_rng(0).integers(0, 4096, (70, 70), dtype=np.uint16)
    drawn_dicom.draw(tmp_path / "data" / "a.dcm", pixels)
    drawn_dicom.draw(tmp_path / "data" / "b.dcm", pixels, PresentationIntentType="FOR PROCESSING")
    (tmp_path / "data" / "c.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"SECRET")
    report = run(tmp_path / "data", model, tmp_path / "out.parquet")
    assert (report.rows, [p for p, _, _ in report.refused]) == (1, ["b.dcm", "c.dcm"])
    for file in ("out.parquet", "out.parquet.refused.jsonl"):
        assert b"SECRET" not in (tmp_path / file).read_bytes()


def test_workers_give_the_same_file(drawn, model, whole, tmp_path):
    run(drawn, model, tmp_path / "out.parquet", workers=2)
    assert (tmp_path / "out.parquet").read_bytes() == whole.read_bytes()


def test_a_refused_file_changes_no_batchs_size(drawn, model, tmp_path, monkeypatch):
    # Of eleven files two are bad, in the second and the fourth batch.
    sizes = []
    call = parts.Encoding.__call__

    def recorded(self, pixels):
        sizes.append(len(pixels))
        return call(self, pixels)

    monkeypatch.setattr(parts.Encoding, "__call__", recorded)
    run(drawn, model, tmp_path / "out.parquet")
    # One look at an example comes first.
    assert sizes[1:] == [2, 2, 2, 2, 2, 1]


CUT = """
import sys, time, torch
torch.set_num_threads(1)
from cxr_foundation import data
from cxr_foundation.models import table
write = table._write_part
def slow(*arguments):
    write(*arguments)
    time.sleep(0.3)
table._write_part = slow
folder, model, output = sys.argv[1:]
table.embed_table(data.open_data(folder), model=model, output=output, root=folder, batch_size=2,
                  rows_per_part=4, device="cpu")
"""


def test_a_killed_run_goes_on_and_ends_in_the_same_bytes(drawn, model, whole, tmp_path):
    output, parts = tmp_path / "out.parquet", tmp_path / "out.parquet.parts"
    arguments = [sys.executable, "-c", CUT, str(drawn), str(model), str(output)]
    child = subprocess.Popen(arguments, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""})
    while not (parts / "part-000000.parquet").exists():
        assert child.poll() is None
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert not output.exists()
    kept = (parts / "part-000000.parquet").stat().st_mtime_ns
    made = []
    original = table._write_part

    def write(parts, number, part):
        made.append(number)
        original(parts, number, part)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table, "_write_part", write)
        run(drawn, model, output)
    assert kept and 0 not in made
    assert output.read_bytes() == whole.read_bytes()
    assert not parts.exists()


def test_a_run_cut_off_after_its_table_was_written_only_tidies_up(drawn, model, whole, tmp_path):
    output = tmp_path / "out.parquet"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table.shutil, "rmtree", lambda folder: None)
        run(drawn, model, output)
    before = output.stat().st_mtime_ns
    report = run(drawn, model, output)
    assert (len(report.refused), report.rows) == (2, 9)
    assert output.stat().st_mtime_ns == before
    assert not (tmp_path / "out.parquet.parts").exists()


def test_a_run_is_not_taken_up_with_other_data_or_settings(drawn, model, tmp_path):
    output = tmp_path / "out.parquet"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table, "_finish", lambda *arguments: None)
        run(drawn, model, output)
    with pytest.raises(OutputExists, match="was begun with other batch_size"):
        run(drawn, model, output, batch_size=3)
    other = draw(tmp_path / "other")
    with pytest.raises(OutputExists, match="was begun with other data"):
        run(other, model, output)


def test_nothing_is_overwritten(drawn, model, tmp_path):
    (tmp_path / "out.parquet").write_text("mine")
    with pytest.raises(OutputExists, match="is there already"):
        run(drawn, model, tmp_path / "out.parquet")
    assert (tmp_path / "out.parquet").read_text() == "mine"


def test_a_full_disk_is_a_clear_error_and_the_run_goes_on(
    drawn, model, whole, tmp_path, monkeypatch
):
    write = parquet.write_table
    calls = []

    def full(*arguments, **options):
        calls.append(arguments)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        write(*arguments, **options)

    monkeypatch.setattr(parquet, "write_table", full)
    with pytest.raises(OutputFailed, match="the disk is full"):
        run(drawn, model, tmp_path / "out.parquet")
    run(drawn, model, tmp_path / "out.parquet")
    assert (tmp_path / "out.parquet").read_bytes() == whole.read_bytes()


def test_data_of_which_nothing_can_be_used_is_an_error_and_leaves_nothing(model, tmp_path):
    folder = draw(tmp_path / "data", 2, bad=(0, 1))
    with pytest.raises(NoImages, match=r"none of the radiographs can be used\. The first: 00.png"):
        run(folder, model, tmp_path / "out.parquet")
    assert [p.name for p in tmp_path.iterdir()] == ["data"]


def test_an_unknown_model_is_refused_before_anything_is_written(drawn, tmp_path):
    with pytest.raises(UnknownName):
        run(drawn, "cxr_nothing", tmp_path / "out.parquet")
    assert list(tmp_path.iterdir()) == []


def test_a_worker_that_dies_is_a_clear_error(drawn, model, tmp_path, monkeypatch):
    def die(self, numbers):
        os._exit(1)

    monkeypatch.setattr(parts._Prepared, "__getitem__", die)
    with pytest.raises(OutputFailed, match="a process that reads files died"):
        run(drawn, model, tmp_path / "out.parquet", workers=1)


def test_shards_give_the_features_of_their_files(drawn, model, whole, tmp_path):
    settings = Settings.of(loading.contract_of(model), size=64, bits=16)
    shard(data.open_data(drawn), tmp_path / "shards", settings=settings, per_shard=4)
    run(tmp_path / "shards", model, tmp_path / "out.parquet")
    names, features = read(tmp_path / "out.parquet")
    assert names[:4] == [
        *(f"shard-000000.tar/{i:09d}.png" for i in range(3)),
        "shard-000001.tar/000000004.png",
    ]
    expected = read(whole)[1]
    assert np.abs(features - expected).max() <= 1e-3 * np.abs(expected).max()


def test_shards_of_another_contract_are_refused_at_once(drawn, model, tmp_path):
    shard(data.open_data(drawn), tmp_path / "shards", settings=Settings(size=32))
    with pytest.raises(ContractError, match="the shards have 32 pixels a side, 64 are asked for"):
        run(tmp_path / "shards", model, tmp_path / "out.parquet")


def cxr(*arguments):
    return subprocess.run(
        [CXR, *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def test_the_command_says_by_its_exit_code_that_files_were_bad(drawn, model, tmp_path):
    output = tmp_path / "out.parquet"
    done = cxr("embed", drawn, "--model", model, "-o", output, "--json")
    assert done.returncode == 3, done.stderr
    report = json.loads(done.stdout)
    assert (report["rows"], [r["path"] for r in report["refused"]]) == (9, ["03.png", "07.png"])
    again = cxr("embed", drawn, "--model", model, "-o", output)
    assert (again.returncode, again.stderr.splitlines()[-1]) == (
        1,
        f"error: {output}: is there already. Choose another output, or remove this one.",
    )


def test_the_command_makes_shards_that_it_embeds(model, tmp_path):
    folder = draw(tmp_path / "data", 3)
    done = cxr("shard", folder, tmp_path / "shards", "--size", 64, "--model", model)
    assert (done.returncode, done.stdout) == (
        0,
        f"wrote 3 radiographs to {tmp_path / 'shards'}\n",
    ), done.stderr
    done = cxr("embed", tmp_path / "shards", "--model", model, "-o", tmp_path / "out.parquet")
    assert (done.returncode, done.stdout) == (0, f"wrote 3 rows to {tmp_path / 'out.parquet'}\n")


RAY = """
import sys, ray
ray.init(num_cpus=2, include_dashboard=False, logging_level="error", log_to_driver=False)
from cxr_foundation import data
from cxr_foundation.models.table import embed_table
folder, model, output = sys.argv[1:]
embed_table(data.open_data(folder), model=model, output=output, root=folder, batch_size=2,
            rows_per_part=4, device="cpu", engine="ray", workers=2)
"""


@pytest.mark.slow
def test_two_ray_workers_give_the_same_file(drawn, model, whole, tmp_path):
    pytest.importorskip("ray")
    output = tmp_path / "out.parquet"
    arguments = [sys.executable, "-c", RAY, str(drawn), str(model), str(output)]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr[-3000:]
    assert output.read_bytes() == whole.read_bytes()
