"""What guards notice while data sets are sharded and embedded, and which polarity is believed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import drawn_dicom
import numpy as np
import pytest
from encoders import contract, publish
from PIL import Image, ImageDraw, ImageFont

from cxr_foundation import data
from cxr_foundation.data import looking, sharding
from cxr_foundation.data.looking import Flagged, counted, prepare
from cxr_foundation.data.sample import Settings
from cxr_foundation.data.sharding import shard
from cxr_foundation.errors import ContractError, OutputExists, UnsupportedPixels
from cxr_foundation.images.guard import corrected, examine, may_be_shown
from cxr_foundation.images.processor import Processor
from cxr_foundation.models import table
from cxr_foundation.models.table import embed_table

parquet = pytest.importorskip("pyarrow.parquet")
CXR = str(Path(sys.executable).with_name("cxr"))
SMALL = Settings(size=32)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return publish(tmp_path_factory.mktemp("model") / "folder", "test_resnet")


@pytest.fixture(scope="module")
def upright(bundled):
    """A frontal radiograph that guards have nothing to say of, in 512 x 512 pixels of 8 bits."""
    study = next(s for s in data.read_index(bundled) if s.source == "shenzhen")
    grey = Image.fromarray(np.rint(study.pixels() * 255).astype(np.uint8))
    return grey.resize((512, 512), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def mixed(upright, tmp_path_factory):
    """One sound radiograph, one inverted, one turned, one with letters, and a file that is none."""
    folder = tmp_path_factory.mktemp("mixed") / "data"
    folder.mkdir()
    upright.save(folder / "0-sound.png")
    Image.fromarray(255 - np.asarray(upright)).save(folder / "1-inverted.png")
    upright.rotate(90).save(folder / "2-turned.png")
    lettered(upright).save(folder / "3-lettered.png")
    (folder / "4-broken.png").write_bytes(b"not a picture")
    return folder


def lettered(picture):
    copy = picture.copy()
    ImageDraw.Draw(copy).rectangle((0, 0, 300, 40), fill=0)
    ImageDraw.Draw(copy).text(
        (6, 6), "DOE^JANE 1970 ID 12", fill=255, font=ImageFont.load_default(20)
    )
    return copy


SEEN = {
    "1-inverted.png": {"inverted"},
    "2-turned.png": {"turned"},
    "3-lettered.png": {"burned_in"},
}


def seen(rows):
    """What a side file or report says, by the name of the file."""
    return {Path(r["path"]).name: {n["kind"] for n in r["notices"]} for r in rows}


def lines(file):
    return [json.loads(line) for line in Path(file).read_text().splitlines()]


def embedded(folder, model, output, **changes):
    arguments = {"root": folder, "batch_size": 2, "rows_per_part": 2, "device": "cpu", **changes}
    return embed_table(data.open_data(folder), model=model, output=output, **arguments)


def cxr(*arguments):
    return subprocess.run(
        [CXR, *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


# One radiograph


def test_the_pixels_are_the_same_with_and_without_the_guard(mixed):
    asked = contract()
    for name in ("0-sound.png", "1-inverted.png", "2-turned.png", "3-lettered.png"):
        (study,) = [s for s in data.open_data(mixed) if s.path.name == name]
        plain, nothing = prepare(study, asked, guarded=False)
        watched, _ = prepare(study, asked)
        assert nothing == () and plain.equal(watched)
        assert plain.equal(Processor(asked).prepare(study.path))


def test_padding_is_left_out_of_statistics_with_the_guard_too(tmp_path):
    values = np.full((40, 40), 9000, np.uint16)
    values[:, 20:] = np.arange(20) * 100 + 2000
    file = drawn_dicom.draw(tmp_path / "a.dcm", values, PixelPaddingValue=9000)
    (study,) = data.open_data(tmp_path)
    asked = contract(intensity="minmax")
    assert prepare(study, asked)[0].equal(Processor(asked).prepare(file))


def test_what_the_header_says_is_noticed(tmp_path, upright):
    drawn_dicom.draw(tmp_path / "a.dcm", np.asarray(upright), BurnedInAnnotation="YES")
    (study,) = data.open_data(tmp_path)
    assert [k for k, _ in prepare(study, contract())[1]] == ["burned_in"]


def test_a_note_of_the_reader_is_a_contradiction(tmp_path, upright):
    drawn_dicom.draw(tmp_path / "a.dcm", np.asarray(upright), PixelIntensityRelationshipSign=1)
    (study,) = data.open_data(tmp_path)
    (first,) = prepare(study, contract())[1]
    assert first[0] == "contradiction" and "(0028,1041)" in first[1]


def test_kinds_are_counted_by_radiograph_most_frequent_first():
    flagged = [
        Flagged("a", (("burned_in", "x"), ("burned_in", "y"), ("turned", "z"))),
        Flagged("b", (("turned", "z"),)),
        Flagged("c", (("cropped", "w"),)),
    ]
    assert list(counted(flagged).items()) == [("turned", 2), ("burned_in", 1), ("cropped", 1)]


def test_a_flag_is_told_again_from_its_row():
    flag = Flagged("a.png", (("turned", "is turned by 180°"),))
    assert flag.to_dict() == {
        "path": "a.png",
        "notices": [{"kind": "turned", "reason": "is turned by 180°"}],
    }
    assert Flagged.of(flag.to_dict()) == flag


# Whether a picture may be shown


def test_a_picture_with_letters_may_not_be_shown_and_one_without_may(upright):
    plain, written = (
        np.asarray(p, np.float32) / np.float32(255) for p in (upright, lettered(upright))
    )
    assert may_be_shown(examine(plain))
    assert not may_be_shown(examine(written))
    # However it lies: letters stay.
    assert not may_be_shown(examine(1 - written))
    assert may_be_shown(examine(corrected(1 - plain, examine(1 - plain))))


# A data set


def test_shards_come_with_a_list_of_what_was_noticed(mixed, tmp_path):
    report = shard(data.open_data(mixed), tmp_path / "out", settings=SMALL, per_shard=2)
    assert (report.samples, len(report.refused)) == (4, 1)
    assert seen(report.to_dict()["flagged"]) == SEEN
    assert lines(tmp_path / "out.flagged.jsonl") == report.to_dict()["flagged"]
    assert not any(b"3-lettered" in p.read_bytes() for p in (tmp_path / "out").iterdir())


def test_features_come_with_a_list_of_what_was_noticed(mixed, model, tmp_path):
    report = embedded(mixed, model, tmp_path / "out.parquet")
    assert (report.rows, len(report.refused)) == (4, 1)
    assert seen(report.to_dict()["flagged"]) == SEEN
    assert lines(tmp_path / "out.parquet.flagged.jsonl") == report.to_dict()["flagged"]


def test_workers_notice_the_same(mixed, model, tmp_path):
    assert embedded(mixed, model, tmp_path / "a").flagged == (
        embedded(mixed, model, tmp_path / "b", workers=2).flagged
    )


def test_samples_of_shards_are_looked_at_by_their_pixels(mixed, model, tmp_path):
    settings = Settings(size=512, aspect=contract().aspect)
    shard(data.open_data(mixed), tmp_path / "shards", settings=settings, guarded=False)
    report = embedded(tmp_path / "shards", model, tmp_path / "out.parquet")
    assert [{k for k, _ in f.reasons} for f in report.flagged] == list(SEEN.values())


def test_without_the_guard_nothing_is_noticed_and_all_else_is_the_same(mixed, model, tmp_path):
    for guarded in (True, False):
        folder = tmp_path / str(guarded)
        embedded(mixed, model, folder / "out.parquet", guarded=guarded)
        shard(data.open_data(mixed), folder / "shards", settings=SMALL, guarded=guarded)
    with_it, without = tmp_path / "True", tmp_path / "False"
    assert not list(without.glob("*.flagged.jsonl"))
    for file in ("out.parquet", "out.parquet.refused.jsonl"):
        assert (with_it / file).read_bytes() == (without / file).read_bytes()
    for one, other in zip(
        data.Shards(with_it / "shards"), data.Shards(without / "shards"), strict=True
    ):
        assert one.sha256 == other.sha256


def test_a_list_of_an_earlier_folder_does_not_stay(mixed, upright, tmp_path):
    (tmp_path / "out.flagged.jsonl").write_text("of another day\n")
    (tmp_path / "data").mkdir()
    upright.save(tmp_path / "data" / "a.png")
    assert shard(data.open_data(tmp_path / "data"), tmp_path / "out", settings=SMALL).flagged == ()
    assert not (tmp_path / "out.flagged.jsonl").exists()


class Cut(Exception):
    pass


def stop_after(patch, room, name, calls):
    """From call number `calls` + 1 on, a function ends as a run does that is cut off."""
    original, made = getattr(room, name), []

    def stopped(*arguments, **options):
        made.append(name)
        if len(made) > calls:
            raise Cut
        return original(*arguments, **options)

    patch.setattr(room, name, stopped)
    return made


def test_flags_of_finished_parts_survive_a_cut(mixed, model, tmp_path):
    whole = embedded(mixed, model, tmp_path / "whole.parquet").flagged
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, table, "_write_part", 1)
        with pytest.raises(Cut):
            embedded(mixed, model, tmp_path / "out.parquet")
    with pytest.MonkeyPatch.context() as patch:
        made = stop_after(patch, table, "_write_part", 9)
        assert embedded(mixed, model, tmp_path / "out.parquet").flagged == whole
    assert len(made) == 2
    listed = [tmp_path / f"{name}.parquet.flagged.jsonl" for name in ("out", "whole")]
    assert listed[0].read_bytes() == listed[1].read_bytes()


def test_flags_of_finished_shards_survive_a_cut(mixed, tmp_path):
    studies = data.open_data(mixed)
    whole = shard(studies, tmp_path / "whole", settings=SMALL, per_shard=2).flagged
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, sharding, "_make", 1)
        with pytest.raises(Cut):
            shard(studies, tmp_path / "out", settings=SMALL, per_shard=2)
    with pytest.MonkeyPatch.context() as patch:
        made = stop_after(patch, sharding, "_make", 9)
        assert shard(studies, tmp_path / "out", settings=SMALL, per_shard=2).flagged == whole
    assert len(made) == 2


def test_a_run_is_not_taken_up_with_another_guard_or_trust(mixed, model, tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table, "_finish", lambda *arguments: None)
        patch.setattr(sharding, "_finish", lambda *arguments: (_ for _ in ()).throw(Cut))
        embedded(mixed, model, tmp_path / "out.parquet")
        with pytest.raises(Cut):
            shard(data.open_data(mixed), tmp_path / "out", settings=SMALL)
    for changes, named in ({"guarded": False}, "guarded"), ({"trust": "shape"}, "trust"):
        with pytest.raises(OutputExists, match=f"was begun with other {named}"):
            embedded(mixed, model, tmp_path / "out.parquet", **changes)
    with pytest.raises(OutputExists, match="was begun with other guarded"):
        shard(data.open_data(mixed), tmp_path / "out", settings=SMALL, guarded=False)
    with pytest.raises(OutputExists, match="was begun with other trust"):
        shard(data.open_data(mixed), tmp_path / "out", settings=Settings(size=32, trust="shape"))


def test_the_commands_say_what_was_noticed_and_end_well(mixed, model, tmp_path):
    good = tmp_path / "good"
    good.mkdir()
    for name in SEEN:
        (good / name).write_bytes((mixed / name).read_bytes())
    said = "warning: radiographs to look at: 3 (1 burned_in, 1 inverted, 1 turned); see"
    done = cxr("shard", good, tmp_path / "s", "--size", 32)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (
        0,
        f"{said} {tmp_path / 's'}.flagged.jsonl",
    )
    done = cxr("embed", good, "--model", model, "-o", tmp_path / "e", "--json")
    assert (done.returncode, done.stderr.splitlines()[-1]) == (
        0,
        f"{said} {tmp_path / 'e'}.flagged.jsonl",
    )
    assert seen(json.loads(done.stdout)["flagged"]) == SEEN
    done = cxr("embed", good, "--model", model, "-o", tmp_path / "n", "--no-guard", "--json")
    assert (done.returncode, json.loads(done.stdout)["flagged"]) == (0, [])
    assert "warning" not in done.stderr and not (tmp_path / "n.flagged.jsonl").exists()


# Which of two contradicting elements is believed


@pytest.fixture(scope="module")
def contradictory(upright, tmp_path_factory):
    """A DICOM that says both that its least value is white and that it is black."""
    folder = tmp_path_factory.mktemp("contradictory") / "data"
    folder.mkdir()
    drawn_dicom.draw(
        folder / "a.dcm",
        np.asarray(upright),
        PhotometricInterpretation="MONOCHROME1",
        PresentationLUTShape="IDENTITY",
    )
    return folder


def test_a_contradiction_is_refused_unless_told_which_to_believe(contradictory):
    (study,) = data.open_data(contradictory)
    with pytest.raises(UnsupportedPixels, match="the polarity is unknown"):
        prepare(study, contract())
    one, other = (prepare(study, contract(), trust=t)[0] for t in ("photometric", "shape"))
    # Mean .5 and deviation .25: an inversion is a change of sign.
    np.testing.assert_allclose(one, -other, atol=1e-5)


def test_settings_take_no_other_word():
    with pytest.raises(ContractError, match="neither 'photometric' nor 'shape'"):
        Settings(trust="me")


def test_shard_believes_what_it_is_told(contradictory, tmp_path):
    refused = cxr("shard", contradictory, tmp_path / "none", "--size", 32)
    assert refused.returncode == 1 and "the polarity is unknown" in refused.stderr
    found = {}
    for trust in ("photometric", "shape"):
        out = tmp_path / trust
        done = cxr("shard", contradictory, out, "--size", 32, "--bits", 16, "--trust", trust)
        assert done.returncode == 0, done.stderr
        assert json.loads((out / "manifest.json").read_text())["trust"] == trust
        (sample,) = data.Shards(out)
        found[trust] = sample.pixels()
    np.testing.assert_allclose(found["photometric"], 1 - found["shape"], atol=2e-5)
    # The drawn radiograph is bone bright as stored.
    assert not examine(found["shape"])[:1]
    assert {n.kind for n in examine(found["photometric"])} >= {"inverted"}


def test_embed_believes_what_it_is_told(contradictory, model, tmp_path):
    refused = cxr("embed", contradictory, "--model", model, "-o", tmp_path / "none")
    assert refused.returncode == 1 and "the polarity is unknown" in refused.stderr
    said = {}
    for trust in ("photometric", "shape"):
        out = tmp_path / trust
        done = cxr("embed", contradictory, "--model", model, "-o", out, "--trust", trust, "--json")
        assert done.returncode == 0, done.stderr
        said[trust] = seen(json.loads(done.stdout)["flagged"])
        about = json.loads(parquet.read_schema(out).metadata[b"cxr_foundation"])
        assert about["trust"] == trust
    assert said == {"photometric": {"a.dcm": {"inverted"}}, "shape": {}}


@pytest.mark.parametrize("verb", ["shard", "embed"])
def test_help_tells_of_both(verb):
    said = " ".join(cxr(verb, "--help").stdout.split())
    for word in ("--trust", "--no-guard"):
        assert word in said


def test_what_a_contract_leaves_of_a_sample_is_not_looked_up_twice(mixed, tmp_path, monkeypatch):
    shard(data.open_data(mixed), tmp_path / "out", settings=SMALL)
    monkeypatch.setattr(looking, "read_pixels", None)
    sample = data.Shards(tmp_path / "out")[0]
    assert prepare(sample, contract(size=32))[0].shape == (1, 32, 32)
