"""Shards: what is written, what is never written, and how it is read again."""

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time

import drawn_dicom
import numpy as np
import pytest
from PIL import Image

from cxr_foundation import data
from cxr_foundation.data.sample import Settings
from cxr_foundation.data.sharding import shard
from cxr_foundation.data.shards import reading_order
from cxr_foundation.errors import BadShard, ContractError, NoImages, OutputExists, OutputFailed
from cxr_foundation.images.processor import Processor

SMALL = Settings(size=32)


def draw_set(folder, count=7, *, rows=40, columns=48):
    """An index of drawn pictures: two for each patient, every second one with an effusion."""
    (folder / "images").mkdir(parents=True)
    lines = ["file,patient,labels,split,sex,age,view,source,licence"]
    for i in range(count):
        values = np.random.default_rng(i).integers(0, 65536, (rows, columns), dtype=np.uint16)
        Image.fromarray(values).save(folder / "images" / f"SECRET{i}.png")
        finding = "effusion" if i % 2 else "normal"
        lines.append(f"images/SECRET{i}.png,SECRETID{i // 2},{finding},pretrain,F,54,PA,,CC0")
    (folder / "index.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    return draw_set(tmp_path_factory.mktemp("drawn") / "data")


@pytest.fixture(scope="module")
def made(drawn, tmp_path_factory):
    out = tmp_path_factory.mktemp("made") / "shards"
    shard(data.read_index(drawn), out, settings=SMALL, per_shard=3)
    return out


def files(folder):
    return sorted(p.name for p in folder.iterdir())


def bytes_of(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def entries(file):
    """A shard as the standard library reads it: name → bytes."""
    with tarfile.open(file) as archive:
        return {m.name: archive.extractfile(m).read() for m in archive.getmembers()}


# What is written


def test_a_folder_has_tars_their_indices_and_a_manifest(made):
    assert files(made) == [
        "manifest.json",
        *(f"shard-00000{i}.{kind}" for i in range(3) for kind in ("jsonl", "tar")),
    ]


def test_a_tar_holds_pictures_beside_their_facts(made):
    found = entries(made / "shard-000001.tar")
    keys = ["000000003", "000000004", "000000005"]
    assert list(found) == [f"{k}.{kind}" for k in keys for kind in ("png", "json")]
    facts = json.loads(found["000000003.json"])
    assert {k: v for k, v in facts.items() if k not in ("patient", "group")} == {
        "labels": ["effusion"],
        "split": "pretrain",
        "licence": "CC0",
        "view": "PA",
        "sex": "F",
        "age": 54.0,
    }


def test_webdataset_opens_them(made):
    pytest.importorskip("webdataset")
    # In a process of its own: webdataset leaves its files open, which is a warning here.
    code = (
        "import json, sys, webdataset\n"
        "found = webdataset.WebDataset(sys.argv[1:], shardshuffle=False).decode('pil')\n"
        "print(json.dumps([[s['__key__'], s['png'].size, s['json']['labels']] for s in found]))"
    )
    tars = [str(p) for p in sorted(made.glob("*.tar"))]
    command = [sys.executable, "-W", "ignore", "-c", code, *tars]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    findings = ["normal", "effusion"]
    assert json.loads(done.stdout) == [[f"{i:09d}", [32, 32], [findings[i % 2]]] for i in range(7)]


@pytest.mark.parametrize("bits", [8, 16])
def test_stored_pixels_are_the_processors_rounded_to_the_bits(drawn, tmp_path, bits):
    settings = Settings(size=24, bits=bits, aspect="pad", intensity="minmax")
    shard(data.read_index(drawn), tmp_path / "out", settings=settings)
    processor = Processor(settings.contract)
    for study, sample in zip(data.read_index(drawn), data.Shards(tmp_path / "out"), strict=True):
        exact = processor.prepare(study.path)[0].numpy()
        assert np.abs(sample.pixels() - exact).max() <= 0.51 / (2**bits - 1)


def test_a_dark_16_bit_picture_stays_dark(tmp_path):
    Image.fromarray(
        np.full((32, 32), 65535 // 32, dtype=np.uint16) + np.eye(32, dtype=np.uint16) * 40000
    ).save(tmp_path / "a.png")
    shard(data.read_index(tmp_path), tmp_path / "one", settings=Settings(size=32, bits=16))
    with Image.open(tmp_path / "a.png") as picture:
        stored = np.asarray(picture) / 65535
    (sample,) = data.Shards(tmp_path / "one")
    assert np.abs(sample.pixels() - stored).max() < 1e-6
    # Darker still: everything below 4096, as a 12-bit picture in 16 bits would be.
    drawn_dicom.draw(tmp_path / "b.dcm", np.full((32, 32), 3000, np.uint16))
    shard(
        [s for s in data.read_index(tmp_path) if s.path.suffix == ".dcm"],
        tmp_path / "dark",
        settings=Settings(size=32, bits=16),
    )
    (sample,) = data.Shards(tmp_path / "dark")
    assert sample.pixels()[0, 0] == pytest.approx(3000 / 65535, abs=1e-6)


def test_nothing_that_identifies_is_written(drawn, made):
    for name, content in bytes_of(made).items():
        assert b"SECRET" not in content and "SECRET" not in name


def test_a_dicom_leaves_its_header_behind(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    pixels = np.random.default_rng(0).integers(0, 4096, (40, 40), dtype=np.uint16)
    for name in "ab":
        drawn_dicom.draw(source / f"{name}.dcm", pixels, PatientBirthDate="19010203")
    shard(data.open_data(source), tmp_path / "out", settings=SMALL)
    written = b"".join(bytes_of(tmp_path / "out").values())
    assert b"SECRET" not in written and b"19010203" not in written
    first, second = data.Shards(tmp_path / "out")
    assert first.patient == second.patient and len(first.patient) == 32


def test_patients_stay_together_under_hashes_that_differ_from_run_to_run(drawn, made, tmp_path):
    shard(data.read_index(drawn), tmp_path / "again", settings=SMALL, per_shard=3)
    first = [s.patient for s in data.Shards(made)]
    again = [s.patient for s in data.Shards(tmp_path / "again")]
    assert [first.index(p) for p in first] == [0, 0, 2, 2, 4, 4, 6]
    assert [again.index(p) for p in again] == [0, 0, 2, 2, 4, 4, 6]
    assert not set(first) & set(again)


def test_a_picture_that_cannot_be_used_is_listed_and_the_rest_is_written(drawn, tmp_path):
    folder = draw_set(tmp_path / "data", 4)
    (folder / "images" / "SECRET2.png").write_bytes(b"not a picture")
    report = shard(data.read_index(folder), tmp_path / "out", settings=SMALL, per_shard=2)
    assert report.samples == 3
    assert [(p.endswith("SECRET2.png"), kind) for p, kind, _ in report.refused] == [
        (True, "UnreadableImage")
    ]
    listed = [json.loads(x) for x in (tmp_path / "out.refused.jsonl").read_text().splitlines()]
    assert listed == report.to_dict()["refused"]
    assert [s.key for s in data.Shards(tmp_path / "out")] == ["000000000", "000000001", "000000003"]


def test_a_set_of_which_nothing_can_be_used_is_an_error(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.png").write_bytes(b"not a picture")
    with pytest.raises(
        NoImages, match=r"none of the radiographs can be used\. The first: .*a\.png"
    ):
        shard(data.open_data(tmp_path / "data"), tmp_path / "out", settings=SMALL)


def test_a_finished_or_foreign_folder_is_never_overwritten(drawn, made, tmp_path):
    before = bytes_of(made)
    with pytest.raises(OutputExists, match="is there already"):
        shard(data.read_index(drawn), made, settings=SMALL, per_shard=3)
    assert bytes_of(made) == before
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(OutputExists):
        shard(data.read_index(drawn), tmp_path, settings=SMALL)
    assert files(tmp_path) == ["mine.txt"]


# Cut off and taken up again

CUT = """
import sys, time
from pathlib import Path
from cxr_foundation import data
from cxr_foundation.data import sharding
from cxr_foundation.data.sample import Settings
slow = sharding._picture
def picture(study, settings, **options):
    time.sleep(0.05)
    return slow(study, settings, **options)
sharding._picture = picture
sharding.shard(data.read_index(sys.argv[1]), sys.argv[2], settings=Settings(size=32), per_shard=3)
"""


def test_a_killed_run_goes_on_and_ends_as_if_it_had_not_been_cut(drawn, tmp_path):
    out = tmp_path / "out"
    child = subprocess.Popen([sys.executable, "-c", CUT, str(drawn), str(out)])
    while not (out / "shard-000000.done").exists():
        assert child.poll() is None
        time.sleep(0.005)
    time.sleep(0.08)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert not (out / "manifest.json").exists()
    with pytest.raises(BadShard, match=r"is not finished\. Run the same"):
        data.Shards(out)
    kept = (out / "shard-000000.tar").stat().st_mtime_ns
    key = json.loads((out / "plan.json").read_text())["key"]
    shard(data.read_index(drawn), out, settings=SMALL, per_shard=3)
    assert (out / "shard-000000.tar").stat().st_mtime_ns == kept
    # The same key would have given the same bytes without the cut.
    whole = tmp_path / "whole"
    whole.mkdir()
    plan = {**json.loads(json.dumps(plan_of(drawn, tmp_path))), "key": key}
    (whole / "plan.json").write_text(json.dumps(plan))
    shard(data.read_index(drawn), whole, settings=SMALL, per_shard=3)
    assert bytes_of(whole) == bytes_of(out)
    assert key not in "".join(str(v) for v in bytes_of(out).values())


def plan_of(drawn, tmp_path):
    """The plan of a run that was cut off before its first shard."""
    from cxr_foundation.data import sharding

    return sharding._claim(tmp_path / "plan", tuple(data.read_index(drawn)), SMALL, 3)


def test_a_run_cut_off_while_it_tidies_up_still_tells_what_was_refused(tmp_path):
    folder = draw_set(tmp_path / "data", 4)
    (folder / "images" / "SECRET0.png").write_bytes(b"not a picture")
    out = tmp_path / "out"
    from cxr_foundation.data import sharding

    studies = tuple(data.read_index(folder))
    plan = sharding._claim(out, studies, SMALL, 2)
    saved = (out / "plan.json").read_bytes()
    shard(studies, out, settings=SMALL, per_shard=2)
    (out / "plan.json").write_bytes(saved)
    report = shard(studies, out, settings=SMALL, per_shard=2)
    assert len(report.refused) == 1 and report.samples == 3
    assert (
        not (out / "plan.json").exists() and plan["key"] not in (out / "manifest.json").read_text()
    )


@pytest.mark.parametrize("change", ["size", "per_shard", "data"])
def test_a_run_is_not_taken_up_with_other_settings_or_data(drawn, tmp_path, change):
    from cxr_foundation.data import sharding

    studies = tuple(data.read_index(drawn))
    sharding._claim(tmp_path / "out", studies, SMALL, 3)
    settings = Settings(size=48) if change == "size" else SMALL
    with pytest.raises(OutputExists, match=f"was begun with other {change}"):
        shard(
            studies[1:] if change == "data" else studies,
            tmp_path / "out",
            settings=settings,
            per_shard=2 if change == "per_shard" else 3,
        )


def test_a_full_disk_is_a_clear_error_and_the_run_goes_on(drawn, tmp_path, monkeypatch):
    from cxr_foundation.data import sharding

    append, calls = sharding._append, []

    def full(file, name, content):
        calls.append(name)
        if len(calls) == 9:
            raise OSError(28, "No space left on device")
        return append(file, name, content)

    monkeypatch.setattr(sharding, "_append", full)
    with pytest.raises(OutputFailed, match="the disk is full"):
        shard(data.read_index(drawn), tmp_path / "out", settings=SMALL, per_shard=3)
    assert files(tmp_path / "out") == [
        "plan.json",
        "shard-000000.done",
        "shard-000000.jsonl",
        "shard-000000.tar",
    ]
    assert shard(data.read_index(drawn), tmp_path / "out", settings=SMALL, per_shard=3).samples == 7


def test_workers_write_the_same_pictures(drawn, made, tmp_path):
    shard(data.read_index(drawn), tmp_path / "out", settings=SMALL, per_shard=3, workers=2)
    assert [s.sha256 for s in data.Shards(tmp_path / "out")] == [
        s.sha256 for s in data.Shards(made)
    ]
    manifests = [json.loads((f / "manifest.json").read_text()) for f in (made, tmp_path / "out")]
    assert manifests[0]["sha256"] == manifests[1]["sha256"]


# Reading


def test_any_sample_is_read_by_its_number(made):
    shards = data.Shards(made)
    assert len(shards) == 7
    assert [shards[i].key for i in (6, 0, -1, 3)] == [f"{i:09d}" for i in (6, 0, 6, 3)]
    assert [s.key for s in shards[2:4]] == ["000000002", "000000003"]
    with pytest.raises(IndexError):
        shards[7]


def test_a_sample_is_a_study(made):
    sample = data.Shards(made)[1]
    assert isinstance(sample, data.Study)
    assert (sample.labels, sample.age, sample.split) == (frozenset({"effusion"}), 54.0, "pretrain")
    assert sample.path == made / "shard-000000.tar" / "000000001.png"
    assert sample.pixels().dtype == np.float32


def test_shards_open_as_data(made):
    assert [s.key for s in data.open_data(made)] == [f"{i:09d}" for i in range(7)]


@pytest.mark.parametrize("seed", [None, 0, 1])
@pytest.mark.parametrize("readers", [1, 2, 3, 8])
def test_each_sample_goes_to_exactly_one_reader(made, seed, readers):
    shards = data.Shards(made)
    keys = [
        s.key for r in range(readers) for s in shards.stream(seed=seed, reader=r, readers=readers)
    ]
    assert sorted(keys) == [f"{i:09d}" for i in range(7)]


@pytest.mark.parametrize(("before", "after"), [(1, 1), (2, 2), (2, 3), (3, 1)])
@pytest.mark.parametrize("steps", [1, 2])
def test_readers_that_go_on_in_the_middle_lose_and_repeat_nothing(made, before, after, steps):
    shards = data.Shards(made)
    seen = []
    for reader in range(before):
        stream = shards.stream(seed=3, epoch=1, reader=reader, readers=before)
        seen += [next(stream).key for _ in range(steps)]
    for reader in range(after):
        rest = shards.stream(
            seed=3, epoch=1, start=len(seen[: before * steps]), reader=reader, readers=after
        )
        seen += [s.key for s in rest]
    assert sorted(seen) == [f"{i:09d}" for i in range(7)]


def test_the_order_is_that_of_its_seed_and_epoch_and_stays_within_shards():
    counts = [3, 4, 2]
    order = reading_order(counts, seed=0, epoch=0)
    assert sorted(order) == list(range(9))
    assert order.tolist() == reading_order(counts, seed=0, epoch=0).tolist()
    assert order.tolist() != reading_order(counts, seed=0, epoch=1).tolist()
    assert order.tolist() != reading_order(counts, seed=1, epoch=0).tolist()
    shard_of = np.repeat([0, 1, 2], counts)[order]
    assert np.count_nonzero(np.diff(shard_of)) == 2


def test_a_changed_bit_is_refused_by_shard_and_key(made, tmp_path):
    copy = tmp_path / "copy"
    copy.mkdir()
    for name, content in bytes_of(made).items():
        (copy / name).write_bytes(content)
    sample = data.Shards(copy)[4]
    content = bytearray((copy / "shard-000001.tar").read_bytes())
    content[sample.offset + 60] ^= 1
    (copy / "shard-000001.tar").write_bytes(content)
    shards = data.Shards(copy)
    assert shards[3].pixels().shape == (32, 32)
    with pytest.raises(BadShard, match=r"shard-000001.tar/000000004.png: has other bytes"):
        shards[4].pixels()
    with pytest.raises(BadShard, match=r"shard-000001.tar: has other bytes"):
        data.Shards(copy, verify=True)


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("shard-000001.tar", lambda b: b[:-1], "bytes, its manifest says"),
        ("shard-000001.jsonl", lambda b: b.replace(b"PA", b"AP"), "has other bytes"),
        ("shard-000002.jsonl", None, "is missing, or its index is"),
        ("manifest.json", lambda b: b.replace(b"shard-000000.tar", b"../shard-00000.tar"), "names"),
        ("manifest.json", lambda b: b.replace(b'"bits": 8', b'"bits": 9'), "wrong entries"),
        ("manifest.json", lambda b: b[:40], "is no manifest"),
        ("manifest.json", None, "holds no manifest.json"),
    ],
)
def test_a_folder_that_is_not_as_it_was_written_is_refused(made, tmp_path, name, change, reason):
    copy = tmp_path / "copy"
    copy.mkdir()
    for file, content in bytes_of(made).items():
        (copy / file).write_bytes(content)
    if change is None:
        (copy / name).unlink()
    else:
        (copy / name).write_bytes(change((copy / name).read_bytes()))
    with pytest.raises(BadShard, match=reason):
        list(data.Shards(copy))


def test_our_own_shards_pass_the_door_for_foreign_ones(made):
    assert [s.key for s in data.read_shard(made / "shard-000000.tar")] == [
        "000000000",
        "000000001",
        "000000002",
    ]


def test_a_shard_of_webdatasets_own_writer_is_read(tmp_path):
    webdataset = pytest.importorskip("webdataset")
    picture = io.BytesIO()
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(picture, "PNG")
    with webdataset.TarWriter(str(tmp_path / "a.tar")) as sink:
        for i in range(2):
            sink.write({"__key__": f"k{i}", "png": picture.getvalue(), "json": {"label": [i]}})
    samples = data.read_shard(tmp_path / "a.tar")
    assert [(s.key, s.label, s.pixels()[0, 1]) for s in samples] == [
        ("k0", (0,), pytest.approx(1 / 255)),
        ("k1", (1,), pytest.approx(1 / 255)),
    ]


def test_a_shard_of_the_standard_library_is_read(tmp_path):
    picture = io.BytesIO()
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(picture, "PNG")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / ("long" * 50 + ".png")).write_bytes(picture.getvalue())
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(tmp_path / "in", arcname="in")
    (sample,) = data.read_shard(tmp_path / "a.tar")
    assert sample.key == "in/" + "long" * 50


@pytest.mark.parametrize(
    ("contract", "message"),
    [
        ({"intensity": "minmax"}, "the shards were made with 'voi', 'minmax' is asked for"),
        ({"aspect": "crop"}, "the shards were made with 'squash', 'crop' is asked for"),
        ({"size": (64, 64)}, "the shards have 32 pixels a side, 64 are asked for"),
    ],
)
def test_shards_of_another_contract_are_refused(contract, message):
    import dataclasses

    with pytest.raises(ContractError, match=message):
        SMALL.check(dataclasses.replace(Settings(size=16).contract, **contract))


def test_reading_shards_needs_no_framework(made):
    code = (
        "import sys\nfrom cxr_foundation import data\n"
        "s = data.Shards(sys.argv[1])[0]; s.pixels()\n"
        "print(sorted({'torch', 'timm', 'pyarrow'} & set(sys.modules)))"
    )
    out = subprocess.run(
        [sys.executable, "-c", code, str(made)],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ,
    )
    assert out.stdout.strip() == "[]"
