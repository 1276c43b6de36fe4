"""Fetching the authors' files from the test Hub; each client is a process of its own."""

import dataclasses
import errno
import hashlib
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import gdown
import pytest
import requests
from hub_server import HubServer

from cxr_foundation.catalog import Source
from cxr_foundation.errors import AskTheAuthors, HashMismatch, OutputFailed, SourceUnavailable
from cxr_foundation.hub import cache_root, fetch, is_stamped, sources, stamp

BYTES = bytes(range(256)) * 400
SHA256 = hashlib.sha256(BYTES).hexdigest()

CLIENT = """
from cxr_foundation import hub
from cxr_foundation.catalog import Source
from cxr_foundation.errors import CxrError

def main():
BODY

try:
    print(json.dumps(main()))
except CxrError as error:
    print(json.dumps([type(error).__name__, str(error)]))
"""


@pytest.fixture
def hub():
    with HubServer() as server:
        yield server


@pytest.fixture
def client(hub, tmp_path):
    """Runs the body of a function in a process that speaks to the test Hub; returns its value.

    An error of the package is returned as [class, message].
    """

    def run(body, *, token=HubServer.token, home="home", **environment):
        code = CLIENT.replace("BODY", textwrap.indent(textwrap.dedent(body), "    "))
        return hub.run(code, tmp_path, token=token, home=home, environment=environment)

    return run


def fetched(source, **options):
    """Client code: fetch, return size and sha256 of the file."""
    return f"""
        from cxr_foundation.files import sha256_of
        path = hub.fetch({source!r}, name="cxr_resnet50.x", **{options!r})
        return sha256_of(path)
    """


def on_hub(revision, **facts):
    return Source(kind="hub", repo="org/name", revision=revision, filename="x.pth", **facts)


# ------------------------------------------------------------------ the authors' file from a Hub


def test_a_pinned_file_is_fetched_and_later_had_without_a_request(hub, client):
    commit = hub.add_repo("org/name", {"x.pth": BYTES})
    hub.add_repo("org/name", {"x.pth": b"newer"})
    source = on_hub(commit, sha256=SHA256, size_bytes=len(BYTES))
    assert client(fetched(source)) == SHA256
    asked = len(hub.requests)
    assert client(fetched(source)) == SHA256
    assert client(fetched(source, local_files_only=True)) == SHA256
    assert client(fetched(source), HF_HUB_OFFLINE="1") == SHA256
    assert len(hub.requests) == asked


def test_without_a_revision_the_folder_is_named_by_the_commit(hub, client):
    commit = hub.add_repo("org/name", {"x.pth": BYTES})
    path = client(f"return str(hub.fetch({on_hub(None)!r}, name='x'))")
    assert f"/snapshots/{commit}/x.pth" in path


def test_the_cards_hash_holds_for_another_revision_too(hub, client):
    commit = hub.add_repo("org/name", {"x.pth": BYTES})
    hub.add_repo("org/name", {"x.pth": b"other"}, tag="v2")
    source = on_hub(commit, sha256=SHA256)
    kind, _ = client(fetched(source, revision="v2"))
    assert kind == "HashMismatch"


@pytest.mark.parametrize(
    ("repo", "revision", "token", "kind", "words"),
    [
        ("org/absent", "main", HubServer.token, "SourceUnavailable", "no repository org/absent"),
        ("org/private", "main", None, "SourceUnavailable", "or it is private"),
        ("org/private", "main", HubServer.stranger, "SourceUnavailable", "hf auth login"),
        ("org/gated", "main", None, "GatedSource", "org/gated@main is gated"),
        ("org/gated", "main", HubServer.stranger, "GatedSource", "Accept the terms"),
        ("org/name", "v9", None, "SourceUnavailable", "org/name@v9: no such revision"),
        ("org/name", "main", None, "SourceUnavailable", "org/name@main has no file x.pth"),
        ("org/name", "main", "hf_wrong", "SourceUnavailable", "does not accept the token"),
        ("not an id", "main", None, "SourceUnavailable", "not the id of a repository"),
    ],
)
def test_a_refusal_names_repository_and_revision_and_what_to_do(
    hub, client, repo, revision, token, kind, words
):
    hub.add_repo("org/name", {"y.pth": b""})
    hub.add_repo("org/private", {"x.pth": b""}, private=True)
    hub.add_repo("org/gated", {"x.pth": b""}, gated=True)
    source = Source(kind="hub", repo=repo, revision=revision, filename="x.pth")
    start = time.monotonic()
    answer = client(fetched(source), token=token)
    assert answer[0] == kind
    assert words in answer[1]
    assert len(hub.requests) <= 2
    assert time.monotonic() - start < 5


def test_whoever_was_granted_access_has_the_gated_file(hub, client):
    hub.add_repo("org/name", {"x.pth": BYTES}, gated=True, private=True)
    assert client(fetched(on_hub("main"))) == SHA256
    assert client(fetched(on_hub("main"), token=HubServer.token), token=None, home="b") == SHA256


def test_a_token_that_cannot_be_sent_is_refused_unprinted(hub, client):
    secret = f"{HubServer.token}\\nX-Evil: 1"
    answer = client(f'return str(hub.fetch({on_hub("main")!r}, name="x", token="{secret}"))')
    assert answer[0] == "SourceUnavailable"
    assert "the token has characters" in answer[1]
    assert hub.requests == []


def test_wrong_bytes_of_the_right_size_are_fetched_once_more(hub, client):
    commit = hub.add_repo("org/name", {"x.pth": BYTES})
    hub.fail("wrong", "x.pth")
    assert client(fetched(on_hub(commit, sha256=SHA256))) == SHA256
    assert len(hub.paths("GET")) == 2


def test_bytes_that_stay_wrong_are_removed_and_never_returned(hub, client, tmp_path):
    commit = hub.add_repo("org/name", {"x.pth": BYTES})
    hub.fail("wrong", "x.pth", times=2)
    answer = client(fetched(on_hub(commit, sha256=SHA256)))
    assert answer[0] == "HashMismatch"
    assert SHA256 in answer[1]
    assert len(hub.paths("GET")) == 2
    left = [p for p in (tmp_path / "home").rglob("*") if p.is_file() and p.stat().st_size > 50_000]
    assert left == []


def test_without_a_hash_in_the_card_the_hubs_own_is_held(hub, client):
    commit = hub.add_repo("org/name", {"x.pth": BYTES})
    hub.fail("wrong", "x.pth", times=2)
    assert client(fetched(on_hub(commit)))[0] == "HashMismatch"


def test_a_cached_file_that_was_changed_is_fetched_again(hub, client, tmp_path):
    commit = hub.add_repo("org/name", {"x.pth": BYTES})
    source = on_hub(commit, sha256=SHA256)
    assert client(fetched(source)) == SHA256
    (blob,) = (tmp_path / "home").rglob(f"blobs/{SHA256}")
    blob.write_bytes(BYTES[::-1])
    assert client(fetched(source)) == SHA256


def test_a_changed_cached_file_is_not_used_offline(hub, client, tmp_path):
    commit = hub.add_repo("org/name", {"x.pth": BYTES})
    source = on_hub(commit, sha256=SHA256)
    assert client(fetched(source)) == SHA256
    (blob,) = (tmp_path / "home").rglob(f"blobs/{SHA256}")
    blob.write_bytes(BYTES[::-1])
    assert client(fetched(source), HF_HUB_OFFLINE="1")[0] == "HashMismatch"


@pytest.mark.parametrize("fraction", [0.0, 0.5, 0.99])
def test_a_connection_that_is_cut_is_taken_up_again(hub, client, fraction):
    commit = hub.add_repo("org/name", {"x.pth": BYTES})
    hub.fail("cut", "x.pth", fraction=fraction)
    assert client(fetched(on_hub(commit, sha256=SHA256))) == SHA256


@pytest.mark.parametrize("status", [500, 503])
def test_a_passing_server_error_is_waited_out(hub, client, status):
    commit = hub.add_repo("org/name", {"x.pth": BYTES})
    hub.fail("status", "x.pth", status=status)
    assert client(fetched(on_hub(commit, sha256=SHA256))) == SHA256


def test_too_many_requests_are_waited_out_as_told(hub, client):
    commit = hub.add_repo("org/name", {"x.pth": BYTES})
    hub.fail("status", "x.pth", status=429, headers={"Retry-After": "1"})
    assert client(fetched(on_hub(commit, sha256=SHA256))) == SHA256


@pytest.mark.parametrize("offline", [{"HF_HUB_OFFLINE": "1"}, {}])
def test_offline_without_a_cached_copy_is_an_error_without_a_socket(hub, client, offline):
    hub.add_repo("org/name", {"x.pth": BYTES})
    options = {} if offline else {"local_files_only": True}
    kind, message = client(fetched(on_hub("main"), **options), **offline)
    assert kind == "SourceUnavailable"
    assert "org/name@main is not in the cache, and the network is off" in message
    assert hub.requests == []


@pytest.mark.parametrize("place", ["hub", "url"])
def test_a_file_that_the_disk_does_not_take_is_named_and_leaves_nothing(
    hub, client, tmp_path, place
):
    commit = hub.add_repo("org/name", {"x.pth": BYTES})
    source = on_hub(commit) if place == "hub" else at_url(hub.add_file("x.pth", BYTES))
    small = """
        import resource
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
    """
    kind, message = client(textwrap.dedent(small) + textwrap.dedent(fetched(source)))
    assert kind == "OutputFailed"
    assert "the disk is full" in message
    assert [
        p for p in (tmp_path / "home").rglob("*") if p.is_file() and p.stat().st_size > 999
    ] == []


@pytest.mark.slow
def test_a_hub_that_is_not_there_is_an_error_within_a_minute(hub, client):
    hub.stop()
    start = time.monotonic()
    kind, message = client(fetched(on_hub("main")))
    assert kind == "SourceUnavailable"
    assert "org/name@main: the connection failed (ConnectError)" in message
    assert time.monotonic() - start < 60


@pytest.mark.slow
def test_a_hub_that_stays_broken_is_an_error_within_a_minute(hub, client):
    hub.add_repo("org/name", {"x.pth": BYTES})
    hub.fail("status", "x.pth", method="HEAD", times=99)
    start = time.monotonic()
    kind, message = client(fetched(on_hub("main")))
    assert kind == "SourceUnavailable"
    assert "org/name@main: the Hub answered with error 503" in message
    assert time.monotonic() - start < 60


def test_four_processes_at_once_fetch_once(hub, tmp_path):
    commit = hub.add_repo("org/name", {"x.pth": BYTES})
    url = hub.add_file("y.pth", BYTES)
    sources = [
        on_hub(commit, sha256=SHA256),
        Source(kind="url", url=url, filename="y.pth", sha256=SHA256),
    ]
    code = (
        "from cxr_foundation import hub; from cxr_foundation.catalog import Source\n"
        f"for source in {sources!r}: print(len(hub.fetch(source, name='x').read_bytes()))"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env=hub.environment(tmp_path / "home"),
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    sizes = [process.communicate(timeout=60)[0].split() for process in processes]
    assert sizes == [[str(len(BYTES))] * 2] * 4
    sent = sum(r.sent for r in hub.requests if r.method == "GET")
    assert sent <= 2.2 * len(BYTES)


# ------------------------------------------------------------------ the authors' file from the web


def at_url(url, **facts):
    return Source(kind="url", url=url, filename="x.pth", **facts)


def test_a_url_is_fetched_checked_cached_and_had_offline(hub, client):
    source = at_url(hub.add_file("x.pth", BYTES), sha256=SHA256, size_bytes=len(BYTES))
    assert client(fetched(source)) == SHA256
    assert client(fetched(source)) == SHA256
    assert client(fetched(source), HF_HUB_OFFLINE="1") == SHA256
    assert hub.paths() == ["/plain/x.pth"]
    assert [request.token for request in hub.requests] == [None]


def test_a_url_offline_without_a_cached_copy_says_so(hub, client):
    source = at_url(hub.add_file("x.pth", BYTES))
    kind, message = client(fetched(source, local_files_only=True))
    assert kind == "SourceUnavailable"
    assert "cxr convert" in message
    assert hub.requests == []


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.5, 0.999])
def test_a_url_that_is_cut_goes_on_where_it_broke(hub, client, fraction):
    source = at_url(hub.add_file("x.pth", BYTES), sha256=SHA256)
    hub.fail("cut", "x.pth", fraction=fraction)
    assert client(fetched(source)) == SHA256
    assert sum(request.sent for request in hub.requests) <= 1.1 * len(BYTES)


def test_a_url_that_is_cut_at_each_tenth_arrives(hub, client):
    source = at_url(hub.add_file("x.pth", BYTES), sha256=SHA256)
    hub.fail("cut", "x.pth", fraction=0.1, times=10)
    assert client(fetched(source)) == SHA256
    assert sum(request.sent for request in hub.requests) <= 1.1 * len(BYTES)


def test_a_server_that_ignores_the_range_spoils_nothing(hub, client):
    source = at_url(hub.add_file("x.pth", BYTES), sha256=SHA256)
    hub.fail("cut", "x.pth")
    hub.fail("ignore_range", "x.pth")
    assert client(fetched(source)) == SHA256


def test_a_url_with_wrong_bytes_is_tried_once_more_and_then_refused(hub, client, tmp_path):
    source = at_url(hub.add_file("x.pth", BYTES), sha256=SHA256)
    hub.fail("wrong", "x.pth", times=2)
    kind, message = client(fetched(source))
    assert (kind, len(hub.requests)) == ("HashMismatch", 2)
    assert message.startswith("cxr_resnet50.x: the file's sha256 is ")
    assert list((tmp_path / "home").rglob("x.pth")) == []
    assert client(fetched(source)) == SHA256


def test_another_size_than_the_cards_is_refused(hub, client):
    source = at_url(hub.add_file("x.pth", BYTES), size_bytes=5)
    kind, message = client(fetched(source))
    assert kind == "HashMismatch"
    assert "102,400 bytes where 5 were promised" in message


@pytest.mark.parametrize("retry_after", ["1", "Wed, 21 Oct 2015 07:28:00 GMT", None])
def test_a_busy_server_is_asked_again_when_it_says(hub, client, retry_after):
    source = at_url(hub.add_file("x.pth", BYTES), sha256=SHA256)
    headers = {} if retry_after is None else {"Retry-After": retry_after}
    hub.fail("status", "x.pth", status=429, headers=headers)
    start = time.monotonic()
    assert client(fetched(source)) == SHA256
    assert time.monotonic() - start >= (1 if retry_after == "1" else 0)


def test_a_server_that_asks_for_an_hour_is_not_waited_for(hub, client):
    source = at_url(hub.add_file("x.pth", BYTES))
    hub.fail("status", "x.pth", status=503, headers={"Retry-After": "3600"})
    kind, message = client(fetched(source))
    assert kind == "SourceUnavailable"
    assert "answered 503, and asks to wait 3600 s more" in message


def test_a_missing_file_is_an_error_at_once(hub, client):
    kind, message = client(fetched(at_url(f"{hub.endpoint}/plain/none.pth")))
    assert (kind, len(hub.requests)) == ("SourceUnavailable", 1)
    assert "127.0.0.1 answered 404" in message


def test_a_redirect_is_followed_to_https_or_the_loopback_alone(hub, client):
    source = at_url(hub.add_file("x.pth", BYTES), sha256=SHA256)
    hub.add_file("real.pth", BYTES)
    hub.fail("status", "x.pth", status=302, headers={"Location": "/plain/real.pth"})
    assert client(fetched(source)) == SHA256


@pytest.mark.parametrize(
    "location", ["http://example.org/x.pth", "file:///etc/passwd", "ftp://example.org/x.pth"]
)
def test_a_redirect_away_from_https_is_refused(hub, client, location):
    source = at_url(hub.add_file("x.pth", BYTES))
    hub.fail("status", "x.pth", status=302, headers={"Location": location})
    kind, message = client(fetched(source))
    assert kind == "SourceUnavailable"
    assert "Only https" in message


def test_a_redirect_loop_ends_after_ten_hops(hub, client):
    source = at_url(hub.add_file("x.pth", BYTES))
    hub.fail("status", "x.pth", status=302, times=99, headers={"Location": "/plain/x.pth"})
    kind, message = client(fetched(source))
    assert (kind, len(hub.requests)) == ("SourceUnavailable", 10)
    assert "redirects in a circle" in message


def test_plain_http_is_refused_before_a_request(client):
    kind, message = client(fetched(at_url("http://example.org/x.pth")))
    assert kind == "SourceUnavailable"
    assert "http is not https" in message


def test_a_web_page_is_not_a_checkpoint(hub, client, tmp_path):
    source = at_url(hub.add_file("x.pth", b"<!DOCTYPE html><html>Too many downloads</html>"))
    kind, message = client(fetched(source))
    assert kind == "SourceUnavailable"
    assert "a web page in place of the file" in message
    assert list((tmp_path / "home").rglob("x.pth")) == []


@pytest.mark.parametrize("kind_of_slowness", ["drip", "silent"])
def test_a_server_that_sends_next_to_nothing_is_left(hub, client, kind_of_slowness):
    source = at_url(hub.add_file("x.pth", BYTES))
    hub.fail(kind_of_slowness, "x.pth", times=9)
    patience = """
        from cxr_foundation.hub import web
        web._STALL_S, web._SILENCE_S, web._TRIES = 0.5, 0.5, 2
        """
    kind, message = client(textwrap.dedent(patience) + textwrap.dedent(fetched(source)))
    assert kind == "SourceUnavailable"
    assert ("next to nothing" if kind_of_slowness == "drip" else "ReadTimeout") in message


def test_a_killed_download_leaves_nothing_that_a_later_one_believes(hub, client, tmp_path):
    source = at_url(hub.add_file("x.pth", BYTES), sha256=SHA256)
    hub.fail("silent", "x.pth")
    code = (
        "from cxr_foundation import hub; from cxr_foundation.catalog import Source\n"
        f"hub.fetch({source!r}, name='x')"
    )
    process = subprocess.Popen([sys.executable, "-c", code], env=hub.environment(tmp_path / "home"))
    while not hub.requests:
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert list((tmp_path / "home").rglob("x.pth")) == []
    assert client(fetched(source)) == SHA256


# ------------------------------------------------------------------ Google Drive, bundled, ask

DRIVE = Source(kind="google_drive", file_id="1AbCdEfGhIjK", filename="x.pth")


def test_a_drive_file_is_fetched_by_its_id(monkeypatch, tmp_path):
    asked = []

    def download(**options):
        asked.append((options["id"], options["use_cookies"]))
        Path(options["output"]).write_bytes(BYTES)

    monkeypatch.setattr(sources, "is_offline", lambda _: False)
    monkeypatch.setattr(gdown, "download", download)
    source = dataclasses.replace(DRIVE, sha256=SHA256)
    for _ in range(2):
        path = fetch(source, name="cxr_resnet50.chess", cache_dir=tmp_path)
        assert path.read_bytes() == BYTES
    assert asked == [("1AbCdEfGhIjK", False)]
    assert is_stamped(path, SHA256)


@pytest.mark.parametrize(
    "error",
    [
        gdown.exceptions.FileURLRetrievalError("quota"),
        requests.exceptions.ConnectionError("no route"),
        None,
    ],
)
def test_a_drive_that_refuses_tells_how_to_go_on_by_hand(monkeypatch, tmp_path, error):
    def download(**options):
        Path(options["output"] + "ab12cd34.part").write_bytes(b"half")
        if error is not None:
            raise error

    monkeypatch.setattr(sources, "is_offline", lambda _: False)
    monkeypatch.setattr(gdown, "download", download)
    with pytest.raises(SourceUnavailable) as caught:
        fetch(DRIVE, name="cxr_resnet50.chess", cache_dir=tmp_path)
    assert "https://drive.google.com/file/d/1AbCdEfGhIjK/view" in str(caught.value)
    assert "cxr convert FILE OUT_DIR" in str(caught.value)
    assert "folder" in str(caught.value)
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == [".x.pth.lock"]


def test_a_full_disk_during_a_download_is_named_and_leaves_nothing(monkeypatch, tmp_path):
    def download(**options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(sources, "is_offline", lambda _: False)
    monkeypatch.setattr(gdown, "download", download)
    with pytest.raises(OutputFailed, match="the disk is full"):
        fetch(DRIVE, name="cxr_resnet50.chess", cache_dir=tmp_path)
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == [".x.pth.lock"]


def test_a_file_that_cannot_fit_is_not_begun(monkeypatch, tmp_path):
    monkeypatch.setattr(sources, "is_offline", lambda _: False)
    monkeypatch.setattr(gdown, "download", lambda **_: pytest.fail("was begun"))
    source = dataclasses.replace(DRIVE, size_bytes=10**18)
    with pytest.raises(OutputFailed, match="1,000,000,000,000,000,000 bytes"):
        fetch(source, name="cxr_resnet50.chess", cache_dir=tmp_path)


def test_a_file_that_its_authors_give_by_hand_says_how_to_ask():
    with pytest.raises(AskTheAuthors) as caught:
        fetch(Source(kind="ask", how="Write to a@example.org."), name="cxr_vit_b.x")
    assert str(caught.value) == (
        "cxr_vit_b.x: its authors give the file to those who ask."
        " Write to a@example.org. Then `cxr convert FILE OUT_DIR --name cxr_vit_b.x`."
    )


def test_a_bundled_file_is_checked_where_it_lies(monkeypatch, tmp_path):
    folder = tmp_path / "weights" / "cxr_resnet18.x"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(BYTES)
    monkeypatch.setattr(sources.importlib.resources, "files", lambda _: tmp_path)
    source = Source(kind="bundled", path="cxr_resnet18.x", sha256=SHA256)
    assert fetch(source, name="cxr_resnet18.x") == folder / "model.safetensors"
    (folder / "model.safetensors").write_bytes(BYTES[:-1])
    with pytest.raises(HashMismatch, match="Install cxr-foundation-hub again"):
        fetch(source, name="cxr_resnet18.x")
    assert [p.name for p in folder.iterdir()] == ["model.safetensors"]


@pytest.mark.parametrize("path", ["cxr_absent.x", "../weights_elsewhere", "/etc"])
def test_a_bundled_path_outside_the_package_or_absent_is_refused(path):
    source = Source(kind="bundled", path=path, filename="passwd")
    with pytest.raises(SourceUnavailable, match="not in the installed package"):
        fetch(source, name="cxr_resnet18.x")


# ------------------------------------------------------------------ the cache


def test_the_cache_is_in_hf_home_unless_told_otherwise(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    assert cache_root() == tmp_path / "hf" / "cxr_foundation"
    assert cache_root(tmp_path) == tmp_path / "cxr_foundation"


def test_a_stamp_holds_until_the_file_is_written(tmp_path):
    path = tmp_path / "x.pth"
    path.write_bytes(BYTES)
    assert not is_stamped(path, SHA256)
    stamp(path, SHA256)
    assert is_stamped(path, SHA256)
    assert not is_stamped(path, "0" * 64)
    path.write_bytes(BYTES)
    os.utime(path, ns=(1, 1))
    assert not is_stamped(path, SHA256)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"size": 1}'])
def test_a_damaged_stamp_is_no_stamp(tmp_path, content):
    path = tmp_path / "x.pth"
    path.write_bytes(BYTES)
    stamp(path, SHA256)
    (tmp_path / ".x.pth.stamp").write_text(content)
    assert not is_stamped(path, SHA256)


def test_a_cards_file_name_never_leaves_the_cache(tmp_path):
    place = sources.place("https://example.org/x", "../../.ssh/authorized_keys", tmp_path)
    assert place.parent.parent == tmp_path / "cxr_foundation" / "sources"
    assert place.name == "_.._.ssh_authorized_keys"
