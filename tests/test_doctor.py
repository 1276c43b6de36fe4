"""`cxr doctor`: the installation, and whether a model can be had, told before any download."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from cards import make_checkpoint
from hub_server import HubServer
from pydicom import dcmread
from pydicom.data import get_testdata_file

from cxr_foundation import catalog
from cxr_foundation.catalog import Source
from cxr_foundation.errors import ImageError
from cxr_foundation.hub import presence
from cxr_foundation.images import read_image
from cxr_foundation.images.decoders import decodable
from cxr_foundation.models import availability
from cxr_foundation.models.checks import Check, Verdict
from cxr_foundation.models.doctor import doctor

CXR = str(Path(sys.executable).with_name("cxr"))
TESTS = str(Path(__file__).parent)
CHESS, BUNDLED = "cxr_resnet50.chess", "cxr_resnet18.moco_open"
DATA = b"\x80" * 1000
DIGEST = hashlib.sha256(DATA).hexdigest()


def cxr_doctor(*arguments, environment=os.environ, **changes):
    return subprocess.run(
        [CXR, "doctor", *arguments],
        capture_output=True,
        text=True,
        env={**environment, "COLUMNS": "100", **changes},
    )


def by_name(verdict):
    """The checks of a verdict (or of its JSON) by name: (status, detail, remedy)."""
    checks = (verdict if isinstance(verdict, dict) else verdict.to_dict())["checks"]
    return {c["name"]: (c["status"], c["detail"], c["remedy"]) for c in checks}


def statuses(verdict, *names):
    found = by_name(verdict)
    return [found[name][0] for name in names]


# The installation


@pytest.fixture
def hub():
    with HubServer() as server:
        yield server


def test_a_sound_installation_is_listed_for_a_program_and_nothing_fails(hub, tmp_path):
    result = cxr_doctor("--json", environment=hub.environment(tmp_path))
    verdict = json.loads(result.stdout)
    assert (result.returncode, result.stderr, verdict["subject"]) == (0, "", None)
    checks = by_name(verdict)
    for library in (
        "python torch torchvision timm transformers huggingface-hub safetensors numpy pydicom"
        " pillow"
    ).split():
        assert checks[library][0] == "ok", library
    assert statuses(verdict, "package", "cpu", "gpu", "cache", "token", "hub") == ["ok"] * 6
    assert str(tmp_path / "cxr_foundation") in checks["cache"][1]
    assert checks["hub"][1] == f"{hub.endpoint} answers"
    assert checks["token"][1] == "present, and the Hub accepts it"
    assert hub.token not in result.stdout
    assert [(r.method, r.path) for r in hub.requests] == [("GET", "/api/whoami-v2")]
    assert list(tmp_path.iterdir()) == [], "a look at the cache left something in it"


def test_people_get_one_line_a_check_and_what_to_do_below(hub, tmp_path):
    environment = hub.environment(tmp_path, token=None)
    result = cxr_doctor(environment=environment, HF_ENDPOINT="http://127.0.0.1:9")
    lines = result.stdout.splitlines()
    assert result.returncode == 0
    at = next(i for i, line in enumerate(lines) if line.startswith("hub "))
    assert lines[at].split()[1:3] == ["warn", "http://127.0.0.1:9:"]
    assert lines[at + 1].split(maxsplit=2)[:2] == ["->", "Check"]
    assert lines[-1] == "This installation: nothing is in the way."


def test_offline_nobody_is_asked(hub, tmp_path):
    environment = hub.environment(tmp_path)
    result = cxr_doctor("--json", environment=environment, HF_HUB_OFFLINE="1")
    checks = by_name(json.loads(result.stdout))
    assert result.returncode == 0
    assert checks["hub"][:2] == ("unknown", f"{hub.endpoint}: not asked (offline)")
    assert checks["token"][0] == "unknown"
    assert hub.requests == []


@pytest.mark.parametrize("token", ["hf_notknownhere", "hf_cut off\nSECRET"])
def test_a_token_that_is_no_use_fails_and_is_never_printed(hub, tmp_path, token):
    environment = hub.environment(tmp_path, token=token)
    for form in ([], ["--json"]):
        result = cxr_doctor(*form, environment=environment)
        assert result.returncode == 1
        assert "hf auth login" in result.stdout or "Copy it again" in result.stdout
        for part in ("notknownhere", "SECRET", "cut off"):
            assert part not in result.stdout + result.stderr


def test_an_endpoints_password_is_not_printed(monkeypatch):
    monkeypatch.setattr(presence.constants, "ENDPOINT", "https://me:secret@hub.example:8443/x")
    assert presence.endpoint() == "https://hub.example:8443/x"


def test_googles_distribution_beside_ours_fails_with_the_way_out(tmp_path):
    info = tmp_path / "cxr_foundation-0.0.14.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: cxr-foundation\nVersion: 0.0.14\n")
    for name in ([], [BUNDLED]):
        result = cxr_doctor(*name, "--json", PYTHONPATH=str(tmp_path))
        status, detail, remedy = by_name(json.loads(result.stdout))["package"]
        assert (result.returncode, status) == (1, "fail")
        assert "cxr-foundation 0.0.14 is installed too" in detail
        assert remedy.startswith("pip uninstall -y cxr-foundation cxr-foundation-hub, then pip")


def test_a_package_whose_front_door_was_overwritten_says_so(tmp_path):
    place = tmp_path / "cxr_foundation"
    place.mkdir()
    for item in Path(catalog.__file__).parents[1].iterdir():
        if item.name == "models":
            shutil.copytree(item, place / item.name)
        elif item.name not in ("__init__.py", "__pycache__"):
            (place / item.name).symlink_to(item)
    (place / "__init__.py").write_text('"""Somebody else\'s."""\n')
    result = cxr_doctor(PYTHONPATH=str(tmp_path))
    assert result.returncode == 1
    assert f"imported from {place} and is not this package" in result.stdout


def without(*modules):
    """`cxr doctor --json` where these libraries cannot be imported."""
    code = f"""
    import importlib.metadata, json, sys
    version = importlib.metadata.version
    gone = {modules!r}
    for name in gone:
        sys.modules[name] = None
    def hidden(name):
        if name.replace("-", "_") in gone:
            raise importlib.metadata.PackageNotFoundError(name)
        return version(name)
    importlib.metadata.version = hidden
    from cxr_foundation.models.doctor import doctor
    print(json.dumps(doctor().to_dict()))
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.parametrize("library", ["torch", "pydicom", "huggingface_hub"])
def test_a_missing_library_is_found_and_not_stumbled_over(library):
    verdict = without(library)
    status, detail, remedy = by_name(verdict)[library.replace("_", "-")]
    assert (verdict["status"], status, detail) == ("fail", "fail", "not installed")
    assert remedy.startswith('pip install "')
    assert "cpu" in by_name(verdict), "the rest was looked at"


def test_a_version_that_we_do_not_support_fails(monkeypatch):
    import importlib.metadata

    real = importlib.metadata.version
    monkeypatch.setattr(
        importlib.metadata, "version", lambda name: "0.9.2" if name == "timm" else real(name)
    )
    status, detail, remedy = by_name(doctor(local_files_only=True))["timm"]
    assert (status, detail) == ("fail", "0.9.2, where <2,>=1.0.20 is needed")
    assert remedy == 'pip install "timm<2,>=1.0.20"'


def test_little_space_is_a_warning_and_a_cache_that_cannot_be_a_folder_fails(monkeypatch, tmp_path):
    usage = shutil.disk_usage(tmp_path)._replace(free=10**9)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    status, detail, _ = by_name(doctor(cache_dir=tmp_path, local_files_only=True))["cache"]
    assert (status, detail) == ("warn", f"{tmp_path / 'cxr_foundation'}, 1.0 GB free")
    (tmp_path / "file").touch()
    verdict = doctor(cache_dir=tmp_path / "file", local_files_only=True)
    assert (verdict.failed, statuses(verdict, "cache")) == (True, ["fail"])


def test_the_worst_check_is_the_verdict():
    def verdict(*found):
        return Verdict(None, tuple(Check(str(i), s, "") for i, s in enumerate(found)))

    assert verdict().status == "ok"
    assert verdict("ok", "unknown").status == "unknown"
    assert verdict("warn", "unknown").status == "warn"
    assert (verdict("warn", "fail", "ok").failed, verdict("warn").failed) == (True, False)


def test_help_imports_no_framework():
    code = (
        "import sys\nfrom cxr_foundation.cli import main\n"
        "sys.argv = ['cxr', 'doctor', '--help']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print(sorted({'torch', 'timm', 'transformers', 'huggingface_hub'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.splitlines()[-1] == "[]"


# DICOM decoders

EXTENDED = "1.2.840.10008.1.2.4.51"


def test_all_transfer_syntaxes_are_decoded_with_the_dicom_extra():
    assert [s.uid for s in decodable() if not s.decoded] == []


@pytest.mark.parametrize(
    ("file", "uid"),
    [
        ("JPGExtended.dcm", EXTENDED),
        ("JPEG-lossy.dcm", EXTENDED),
        ("MR_small_RLE.dcm", "1.2.840.10008.1.2.5"),
        ("MR_small_jpeg_ls_lossless.dcm", "1.2.840.10008.1.2.4.80"),
        ("MR_small_jp2klossless.dcm", "1.2.840.10008.1.2.4.90"),
        ("JPEG2000.dcm", "1.2.840.10008.1.2.4.91"),
        ("JPEGLSNearLossless_16.dcm", "1.2.840.10008.1.2.4.81"),
    ],
)
def test_what_is_said_of_a_syntax_holds_for_somebody_elses_file_of_it(file, uid):
    path = get_testdata_file(file, download=False)
    assert dcmread(path, stop_before_pixels=True).file_meta.TransferSyntaxUID == uid
    try:
        decoded = read_image(path).size > 0
    except ImageError:
        decoded = False
    assert decoded == next(s.decoded for s in decodable() if s.uid == uid)


def test_without_decoders_each_gap_is_a_warning_with_what_to_install():
    verdict = without("imagecodecs", "jpeg_ls", "pylibjpeg", "openjpeg", "rle", "libjpeg")
    gaps = {
        c["detail"].partition(" (")[0]: c["remedy"]
        for c in verdict["checks"]
        if c["name"] == "dicom" and c["status"] == "warn"
    }
    for name in ("JPEG Lossless SV1", "JPEG Extended, 12 bits", "JPEG-LS Lossless", "HTJ2K"):
        assert gaps[name] == 'pip install "cxr-foundation-hub[dicom]"'
    assert not {"uncompressed", "RLE Lossless", "JPEG Baseline, 8 bits"} & gaps.keys()


# A name


def test_the_bundled_encoder_can_be_loaded_without_a_network():
    result = cxr_doctor("cxr_resnet18", HF_HUB_OFFLINE="1")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines()[-1] == "cxr_resnet18: can be loaded."


def test_an_unknown_name_fails_with_the_closest():
    result = cxr_doctor("cxr_resnet50.ches", "--json")
    status, _, remedy = by_name(json.loads(result.stdout))["name"]
    assert (result.returncode, status) == (1, "fail")
    assert "Did you mean 'cxr_resnet50.chess'" in remedy


def test_google_drive_is_not_asked_and_its_gaps_are_told(hub, tmp_path):
    result = cxr_doctor(CHESS, "--json", environment=hub.environment(tmp_path))
    verdict = json.loads(result.stdout)
    checks = by_name(verdict)
    assert result.returncode == 0
    assert hub.requests == []
    assert checks["server"][:2] == (
        "unknown",
        "not asked: Google Drive cannot be asked without starting the download",
    )
    assert "drive.google.com/file/d/1C_Gis2qcZcA9X3l2NEHR1oS4Gn_bTxTe" in checks["server"][2]
    assert statuses(verdict, "sha256", "converter", "licence") == ["warn", "warn", "ok"]
    # 23,501,760 parameters of a one-channel ResNet-50, its running statistics and counters.
    assert checks["disk"][:2] == (
        "unknown",
        "94.2 MB and the download, whose size nobody says",
    )


def test_offline_and_never_fetched_cannot_be_loaded(tmp_path):
    result = cxr_doctor(CHESS, HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path))
    assert result.returncode == 1
    assert "not asked (offline)" in result.stdout
    assert result.stdout.splitlines()[-1].endswith("cannot be loaded as it is (cache).")


WILD = dict(filename="model.pth", size_bytes=len(DATA), sha256=DIGEST)
GATED_AS = "the owner grants access by hand"


def record(source, *, layout="moco", **facts):
    return make_checkpoint(
        source=source,
        conversion=catalog.Conversion(layout=layout, takes=None, ran_on_authors_file=False),
        **facts,
    )


def hub_source(repo, **changes):
    return Source(**{"kind": "hub", "repo": repo, **WILD, **changes})


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory):
    """Verdicts of one process on made-up cards, by case; and the server that it spoke to."""
    folder = tmp_path_factory.mktemp("doctor")
    with HubServer() as server:
        for repo in ("org/open", "org/gated", "org/private"):
            server.add_repo(
                repo,
                {"model.pth": DATA, "config.json": "{}"},
                gated=repo == "org/gated",
                private=repo == "org/private",
            )
        plain = server.add_file("model.pth", DATA)
        refuses_head = server.add_file("no_head.pth", DATA)
        server.fail("status", "no_head.pth", method="HEAD", times=9, status=405)
        page = server.add_file("page.pth", DATA)
        server.fail(
            "status", "page.pth", method="HEAD", times=9, status=200,
            headers={"Content-Type": "text/html"},
        )  # fmt: skip
        server.fail("status", "loop.pth", method="HEAD", times=99, status=302,
                    headers={"Location": "/plain/loop.pth"})  # fmt: skip
        loop, moved = f"{server.endpoint}/plain/loop.pth", f"{server.endpoint}/plain/moved.pth"

        def url(address, **changes):
            return record(Source(**{"kind": "url", "url": address, **WILD, **changes}))

        ask = Source(kind="ask", how="Fill in the form at https://example.org/form.")
        cases = {
            "open": (record(hub_source("org/open")), {}),
            "anonymous": (record(hub_source("org/open")), {"token": None}),
            "gated": (record(hub_source("org/gated"), gating=GATED_AS), {"token": None}),
            "stranger": (record(hub_source("org/gated")), {"token": server.stranger}),
            "granted": (record(hub_source("org/gated"), gating=GATED_AS), {}),
            "gated_offline": (record(hub_source("org/gated"), gating=GATED_AS), {"offline": True}),
            "private": (record(hub_source("org/private")), {"token": None}),
            "absent": (record(hub_source("org/absent")), {}),
            "renamed": (record(hub_source("org/open", filename="other.pth")), {}),
            "changed": (record(hub_source("org/open", sha256="0" * 64)), {}),
            "unhashed": (record(hub_source("org/open", sha256=None)), {}),
            "url": (url(plain), {}),
            "url_of_another_size": (url(plain, size_bytes=999), {}),
            "url_without_head": (url(refuses_head), {}),
            "url_page": (url(page), {}),
            "url_loop": (url(loop), {}),
            "url_moved": (url(moved), {}),
            "url_http": (url("http://example.org/model.pth"), {}),
            "ask": (record(ask), {}),
            "no_converter": (record(hub_source("org/open"), layout=None), {}),
            "new_converter": (record(hub_source("org/open"), layout="of_next_year"), {}),
            "full": (record(hub_source("org/open")), {"free": 10_000_000}),
            "nearly_full": (record(hub_source("org/open")), {"free": 50_000_000}),
            "no_licence": (
                record(
                    hub_source("org/open"),
                    licences=catalog.Licences(code="mit", weights=None, data=None),
                    unknown={"licences.weights": "their page has no word on it"},
                ),
                {},
            ),
            "fetched": (record(hub_source("org/open")), {"fetch": True}),
            "fetched_offline": (record(hub_source("org/open")), {"fetch": True, "offline": True}),
            "fetched_url": (url(plain), {"fetch": True, "offline": True}),
            "converted": (record(hub_source("org/open")), {"fetch": True, "convert": True}),
        }  # fmt: skip
        (folder / "cases.pickle").write_bytes(__import__("pickle").dumps(cases))
        found = server.run(_PROCESS.format(tests=TESTS, folder=str(folder)), folder)
        yield found, server


_PROCESS = """
import pickle, shutil, sys
sys.path.insert(0, {tests!r})
import timm
from pathlib import Path
from cxr_foundation import catalog, hub
from cxr_foundation.files import sha256_of
from cxr_foundation.models import sources
from cxr_foundation.models.doctor import doctor
import huggingface_hub, os

folder, found, usage = Path({folder!r}), {{}}, shutil.disk_usage
writer = os.environ["HF_TOKEN"]
for case, (record, how) in pickle.loads((folder / "cases.pickle").read_bytes()).items():
    catalog.checkpoints = lambda: {{record.name: record}}
    cache = folder / "caches" / case
    if how.get("fetch"):
        raw = hub.fetch(record.source, name=record.name, cache_dir=cache)
    if how.get("convert"):
        made = sources._folder(record, None, raw, cache)
        made.mkdir(parents=True)
        (made / "model.safetensors").write_bytes(b"tensors")
        note = json.dumps({{"sha256": sha256_of(made / "model.safetensors")}})
        made.with_suffix(".json").write_text(note)
    os.environ["HF_TOKEN"] = writer
    if how.get("token", writer) is None:
        del os.environ["HF_TOKEN"]
    else:
        os.environ["HF_TOKEN"] = how.get("token", writer)
    free = how.get("free")
    shutil.disk_usage = lambda p: usage(p)._replace(**({{"free": free}} if free else {{}}))
    def kept():
        return sorted(p for p in cache.rglob("*") if ".stamp" not in p.name)
    before = kept()
    verdict = doctor(record.name, cache_dir=cache, local_files_only=how.get("offline", False))
    assert kept() == before, case
    found[case] = {{**verdict.to_dict(), "lines": verdict.lines()}}
print(json.dumps(found))
"""


def test_no_bytes_of_any_weights_were_sent_to_be_looked_at(verdicts):
    _, server = verdicts
    fetched = [r for r in server.requests if r.method == "GET" and r.sent > 1]
    # Each of the four cases that fetch in advance, once.
    assert len(fetched) == 4
    one_byte = [r for r in server.requests if r.method == "GET" and r.range == "bytes=0-0"]
    assert [(r.path, r.sent) for r in one_byte] == [("/plain/no_head.pth", 1)]


@pytest.mark.parametrize(
    ("case", "server", "access", "sha256"),
    [
        ("open", "ok", "ok", "ok"),
        ("anonymous", "ok", "ok", "ok"),
        ("granted", "ok", "ok", "ok"),
        ("gated", "ok", "fail", "ok"),
        ("stranger", "ok", "fail", "ok"),
        ("gated_offline", "unknown", "warn", "ok"),
        ("unhashed", "ok", "ok", "warn"),
    ],
)
def test_the_hub_says_whether_it_has_the_file_and_gives_it(verdicts, case, server, access, sha256):
    verdict = verdicts[0][case]
    assert statuses(verdict, "server", "access", "sha256") == [server, access, sha256]


def test_whoever_lacks_access_is_told_how_to_get_it(verdicts):
    for case in ("gated", "stranger"):
        verdict = verdicts[0][case]
        _, detail, remedy = by_name(verdict)["access"]
        assert "org/gated is gated" in detail
        assert "Accept the terms" in remedy
        assert "hf auth login" in remedy
        assert verdict["lines"][-1].endswith("cannot be loaded as it is (access).")


@pytest.mark.parametrize(
    ("case", "reason", "remedy"),
    [
        ("private", "has no repository org/private, or it is private", "hf auth login"),
        ("absent", "has no repository org/absent, or it is private", "Check the name"),
        ("renamed", "org/open has no file other.pth", "Check the revision"),
        ("changed", "another sha256 than the card promises", "please report"),
        ("url_of_another_size", "1,000 bytes where the card promises 999", "please report"),
        ("url_page", "sends a web page in place of the file", "look at its page"),
        ("url_loop", "redirects in a circle", "Tell the file's owner"),
        ("url_moved", "answered 404", "The file may have moved"),
        ("url_http", "http is not https", "Only https addresses are fetched"),
    ],
)
def test_a_server_that_would_not_give_the_cards_file_fails(verdicts, case, reason, remedy):
    verdict = verdicts[0][case]
    status, detail, do = by_name(verdict)["server"]
    assert (verdict["status"], status) == ("fail", "fail")
    assert reason in detail
    assert remedy in do


def test_a_url_is_asked_by_head_or_by_one_byte_where_head_is_refused(verdicts):
    for case in ("url", "url_without_head"):
        assert by_name(verdicts[0][case])["server"][:2] == ("ok", "has the file, 0.0 MB")


def test_what_is_in_the_cache_needs_no_server(verdicts):
    found, _ = verdicts
    for case in ("fetched", "fetched_offline", "fetched_url"):
        checks = by_name(found[case])
        assert checks["cache"][1].startswith("fetched: ")
        assert checks["cache"][1].endswith("; it is converted by the first load")
        assert checks["server"][:2] == ("ok", "not asked: the file is here")
    checks = by_name(found["converted"])
    assert checks["cache"][1].startswith("converted: ")
    assert checks["disk"][:2] == ("ok", "nothing is written")


def test_download_and_converted_copy_have_to_fit(verdicts):
    found, _ = verdicts
    status, detail, remedy = by_name(found["full"])["disk"]
    # 11.17 million parameters of a one-channel ResNet-18 in float32, and 1,000 bytes.
    assert (status, detail.startswith("44.7 MB are needed in ")) == ("fail", True)
    assert detail.endswith(", 10.0 MB are free")
    assert "HF_HOME" in remedy
    assert statuses(found["nearly_full"], "disk") == ["ok"]


def test_a_file_had_by_asking_fails_with_how_to_ask_and_the_door_for_it(verdicts):
    checks = by_name(verdicts[0]["ask"])
    assert checks["source"] == (
        "fail",
        "its authors give the file to those who ask",
        "Fill in the form at https://example.org/form. Then"
        " `cxr convert FILE OUT_DIR --name cxr_resnet18.made_up`.",
    )
    assert "server" not in checks


@pytest.mark.parametrize(
    ("case", "detail"),
    [
        ("no_converter", "no converter knows its file"),
        ("new_converter", "this version has no converter called 'of_next_year'"),
    ],
)
def test_a_file_that_no_converter_knows_fails(verdicts, case, detail):
    assert by_name(verdicts[0][case])["converter"][:2] == ("fail", detail)


def test_weights_without_a_licence_are_a_warning(verdicts):
    status, detail, remedy = by_name(verdicts[0]["no_licence"])["licence"]
    assert (status, detail) == ("warn", "weights: unknown (their page has no word on it)")
    assert remedy.startswith("Ask the authors")


def test_a_server_that_stays_silent_is_a_failure_after_a_while(monkeypatch):
    import threading

    never, made_up = threading.Event(), record(hub_source("org/open"))
    monkeypatch.setattr(catalog, "checkpoints", lambda: {made_up.name: made_up})
    monkeypatch.setattr(presence, "ask", lambda *_, **__: never.wait(30))
    monkeypatch.setattr(availability, "_PATIENCE_S", 0.1)
    checks = {c.name: c for c in availability.checks_of(made_up.name)}
    never.set()
    assert (checks["server"].status, checks["server"].detail) == (
        "fail",
        "the server does not answer",
    )


def test_every_card_is_told_as_it_would_go(tmp_path):
    from cxr_foundation.convert import layouts

    swept = 0
    for name, card in catalog.checkpoints().items():
        verdict = doctor(name, cache_dir=tmp_path, local_files_only=True)
        failed = {c.name for c in verdict.checks if c.status == "fail"} - {"package"}
        known = card.source.published or card.conversion.layout in layouts
        here = card.source.kind in ("bundled", "ask")
        expected = {"source"} if card.source.kind == "ask" else set()
        assert failed == expected | (set() if known else {"converter"}) | (
            set() if here else {"cache"}
        ), name
        swept += 1
    assert swept == len(list(catalog.cards_folder().glob("*.md")))
