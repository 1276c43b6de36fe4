"""Identifiers that are planted in headers are found nowhere: not in output, files, names, caches.

The hostile corpus carries markers in standard, private and nested elements, in values that do not
parse and in text chunks of pictures. Each command that takes radiographs is run on all of them;
then every byte that it said or left is searched, also inside archives and in other encodings.
"""

import base64
import gzip
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import evil_doors
import pytest

from cxr_foundation.data.site import check_file

CXR = str(Path(sys.executable).with_name("cxr"))

TINY = {
    "data.sources": "null",
    "data.only_may_ship": "false",
    "data.size": "[40,40]",
    "views.size": "[32,32]",
    "train.epochs": 1,
    "train.batch": 8,
    "method.queue": 64,
    "method.split_batch_norm": 4,
}


def forms(mark):
    """A marker as it could be written."""
    text = mark.encode()
    yield from (text, mark.encode("utf-16-le"), mark.encode("utf-16-be"), text.hex().encode())
    yield json.dumps(mark)[1:-1].encode()
    for lead in range(3):
        # The first and last characters of base64 depend on what is beside it.
        coded = base64.b64encode(b"\0" * lead + text)
        yield coded[-(-lead * 8 // 6) : (lead + len(text)) * 8 // 6]


def contents(name, data, depth=0):
    """The bytes of a file, and of what is packed in it."""
    yield name.encode("utf-8", "surrogateescape")
    yield data
    if depth > 2:
        return
    if data[:2] == b"\x1f\x8b":
        yield from contents("", gzip.decompress(data), depth + 1)
    elif zipfile.is_zipfile(io.BytesIO(data)):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for member in archive.namelist():
                yield from contents(member, archive.read(member), depth + 1)
    elif data[257:262] == b"ustar":
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            for member in archive:
                inside = archive.extractfile(member)
                yield from contents(member.name, inside.read() if inside else b"", depth + 1)
    elif data[:4] == b"PAR1":
        parquet = pytest.importorskip("pyarrow.parquet")
        table = parquet.read_table(io.BytesIO(data))
        yield str(table.schema.metadata).encode()
        yield repr(table.to_pydict()).encode()


def leaks(marks, *places):
    """Markers that are in a text or anywhere under a folder."""
    found = set()
    for place in places:
        if isinstance(place, bytes):
            pieces = [("", place)]
        else:
            files = [p for p in place.rglob("*") if p.is_file()]
            pieces = [(str(p.relative_to(place)), p.read_bytes()) for p in files]
        for name, data in pieces:
            for content in contents(name, data):
                found |= {(m, name) for m in marks if any(form in content for form in forms(m))}
    return found


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """(folder of the files that carry markers, those of them that can be read, markers)."""
    if not evil_doors.MAKER.exists():
        pytest.skip("the generator of hostile inputs is not here")
    corpus = tmp_path_factory.mktemp("evil")
    evil_doors.make(corpus, evil_doors.IMAGES)
    (corpus / "image" / "unreadable").chmod(0o700)
    rows = json.loads((corpus / "manifest.json").read_text())
    rows = [r for r in rows if r.get("phi") and (corpus / r["file"]).is_file()]
    every, sound = tmp_path_factory.mktemp("all"), tmp_path_factory.mktemp("sound")
    for row in rows:
        shutil.copy(corpus / row["file"], every)
        if row["expect"] == "ok":
            shutil.copy(corpus / row["file"], sound)
    marks = sorted({mark for row in rows for mark in row["phi"]})
    assert {"ZZPHI", "19700101"} <= set(marks)
    assert len(list(every.iterdir())) > 60
    return every, sound, marks


def run(cwd, *arguments, program=(CXR,)):
    home = cwd / "home"
    home.mkdir(exist_ok=True)
    environment = {**os.environ, "HOME": str(home), "HF_HOME": str(home), "TMPDIR": str(home)}
    done = subprocess.run(
        [*program, *map(str, arguments)], capture_output=True, cwd=cwd, env=environment
    )
    assert b"Traceback" not in done.stderr, done.stderr[-2000:]
    return done.returncode, done.stdout + done.stderr


def test_the_markers_are_there_to_be_found(planted):
    every, _, marks = planted
    assert {mark for mark, _ in leaks(marks, every)} == set(marks)


def test_a_packed_or_encoded_marker_would_be_found(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        member = tarfile.TarInfo("a.json.gz")
        data = gzip.compress(b'{"name": "ZZPHINAME"}')
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))
    assert leaks(["ZZPHINAME"], tmp_path) == {("ZZPHINAME", "a.tar")}
    coded = base64.b64encode(b"x=ZZPHINAME;")
    assert leaks(["ZZPHINAME"], coded) and leaks(["ZZPHINAME"], "ZZPHINAME".encode("utf-16"))
    assert leaks(["ZZPHINAME"], b"nothing here") == set()


@pytest.mark.parametrize(
    "arguments",
    [
        ["check", "DATA", "--out", "out", "--fix"],
        ["shard", "DATA", "out", "--size", "32"],
        ["embed", "DATA", "--model", "cxr_resnet18.moco_open", "-o", "out.parquet"],
    ],
    ids=lambda a: a[0],
)
def test_no_command_lets_a_marker_out(planted, tmp_path, arguments):
    every, _, marks = planted
    status, said = run(tmp_path, *[every if a == "DATA" else a for a in arguments])
    assert status == 3, said.decode()
    assert any(p.name.startswith("out") for p in tmp_path.iterdir()), said.decode()
    assert leaks(marks, said, tmp_path) == set()


# Ends once some parts or shards are complete, as a run does that is cut off.
CUT = """
import sys
import torch
torch.set_num_threads(1)
from cxr_foundation import data
from cxr_foundation.data import sharding
from cxr_foundation.models import table

def stops(function, left):
    def stopped(*arguments, **options):
        left.append(0)
        if len(left) > int(sys.argv[3]):
            sys.exit(7)
        return function(*arguments, **options)
    return stopped

verb, folder = sys.argv[1:3]
studies = data.open_data(folder)
sharding._make = stops(sharding._make, [])
table._write_part = stops(table._write_part, [])
if verb == "shard":
    sharding.shard(studies, "out", settings=sharding.Settings(size=32), per_shard=20)
else:
    table.embed_table(studies, model="cxr_resnet18.moco_open", output="out.parquet",
                      rows_per_part=20, device="cpu")
"""


@pytest.mark.parametrize("verb", ["shard", "embed"])
def test_a_run_that_is_cut_off_and_goes_on_lets_no_marker_out(planted, tmp_path, verb):
    every, _, marks = planted
    program = (sys.executable, "-c", CUT)
    status, said = run(tmp_path, verb, every, 1, program=program)
    assert status == 7, said.decode()
    begun = {"shard": "out/shard-000000.tar", "embed": "out.parquet.parts/part-000000.parquet"}
    assert (tmp_path / begun[verb]).exists()
    assert leaks(marks, said, tmp_path) == set()
    status, said = run(tmp_path, verb, every, 99, program=program)
    assert status == 0, said.decode()
    finished = {"shard": "out/manifest.json", "embed": "out.parquet"}
    assert (tmp_path / finished[verb]).exists()
    assert leaks(marks, said, tmp_path) == set()


@pytest.mark.parametrize(
    "arguments",
    [
        ["shard", "DATA", "out"],
        ["embed", "DATA", "--model", "cxr_resnet18.moco_open", "-o", "out.parquet"],
    ],
    ids=lambda a: a[0],
)
def test_no_error_quotes_a_marker(planted, tmp_path, arguments):
    every, _, marks = planted
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in every.iterdir():
        if check_file(file).refused:
            shutil.copy(file, broken)
    assert len(list(broken.iterdir())) > 30
    # Nothing can be used, so that the command itself fails; then it is told of a wrong name.
    for number, data in enumerate((broken, broken / "none")):
        cwd = tmp_path / f"cwd{number}"
        cwd.mkdir()
        status, said = run(cwd, *[data if a == "DATA" else a for a in arguments])
        assert status == 1 and b"error: " in said, said.decode()
        assert leaks(marks, said, cwd) == set()


def test_no_run_of_pretraining_lets_a_marker_out(planted, tmp_path):
    _, sound, marks = planted
    settings = [word for key, value in TINY.items() for word in ("--set", f"{key}={value}")]
    status, said = run(
        tmp_path, "pretrain", "moco_open_small", "--data", sound, "--output", "run", *settings
    )
    assert status == 0, said.decode()
    assert (tmp_path / "run" / "encoder" / "README.md").exists()
    assert leaks(marks, said, tmp_path) == set()
