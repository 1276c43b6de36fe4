"""Publishing a folder on the test Hub, and having it again: push and download_folder."""

import json
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
from hub_server import HubServer
from PIL import Image, ImageDraw, ImageFont
from safetensors.numpy import save_file

from cxr_foundation.errors import PushRefused, SourceUnavailable
from cxr_foundation.hub import push

CARD = """\
---
license: apache-2.0
library_name: timm
tags: [chest-x-ray]
cxr_foundation:
  name: cxr_resnet18.ours
  architecture: cxr_resnet18
  title: A tiny encoder
  num_features: 8
  source: {kind: google_drive, file_id: 1AbCdEfGhIjK, filename: x.pth, sha256: null,
           size_bytes: null}
  conversion: {layout: moco, takes: encoder_q, ran_on_authors_file: false}
  contract:
    {channels: 1, size: [64, 64], resize: null, aspect: squash, intensity: voi, percentile: null,
     interpolation: bilinear, mean: [0.5], std: [0.25], normalise_first: false,
     polarity: bone_bright}
  licences: {code: apache-2.0, weights: apache-2.0, data: cc-by-4.0}
  training:
    {method: MoCo v2, images: 10, data: [ours], overlaps: [], labels_used_for_selection: false}
  evidence:
    architecture: page 2026-11-20 https://example.org/paper
    num_features: page 2026-11-20 https://example.org/paper
    source: page 2026-11-20 https://example.org/paper
    conversion: page 2026-11-20 https://example.org/paper
    contract: page 2026-11-20 https://example.org/paper
    licences: page 2026-11-20 https://example.org/paper
    training: page 2026-11-20 https://example.org/paper
  unknown:
    source.sha256: the file was never held
    source.size_bytes: the file was never held
---
# A tiny encoder
"""

CLIENT = """
from pathlib import Path
from cxr_foundation import hub
from cxr_foundation.errors import CxrError

def main():
BODY

try:
    print(json.dumps(main()))
except CxrError as error:
    print(json.dumps([type(error).__name__, str(error)]))
"""

PUSH = "result = hub.push('folder', 'org/name')\nreturn [result.url, result.commit]"
NAMES = ["README.md", "config.json", "model.safetensors"]


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


@pytest.fixture(autouse=True)
def folder(tmp_path):
    """A published folder whose weights are eight numbers; every test has one."""
    path = tmp_path / "folder"
    path.mkdir()
    weights = {"conv1.weight": np.arange(8, dtype=np.float32)}
    save_file(weights, path / "model.safetensors", {"format": "pt"})
    (path / "config.json").write_text('{"architecture": "resnet18", "num_classes": 0}')
    (path / "README.md").write_text(CARD)
    return path


# ------------------------------------------------------------------ push


def test_a_folder_is_pushed_as_one_commit_and_had_by_another_process(hub, client, folder):
    url, commit = client(PUSH)
    assert url == f"{hub.endpoint}/org/name"
    assert len([path for path in hub.paths("POST") if "/commit/" in path]) == 1
    assert hub.store.repos["org/name"].branches["main"] == commit
    there = hub.files("org/name")
    assert {name: there[name] for name in NAMES} == {n: (folder / n).read_bytes() for n in NAMES}
    names, text = client(
        """
        from huggingface_hub import ModelCard
        path = hub.download_folder("org/name")
        return [sorted(p.name for p in path.iterdir()), ModelCard.load("org/name").data.license]
        """,
        home="other",
    )
    assert (names, text) == (NAMES, "apache-2.0")


def test_the_same_folder_again_makes_no_new_commit(hub, client):
    first = client(PUSH)
    assert client(PUSH) == first
    assert len([path for path in hub.paths("POST") if "/commit/" in path]) == 1


def test_a_changed_card_alone_is_a_new_commit_without_an_upload_of_weights(hub, client, folder):
    client(PUSH)
    uploads = len(hub.paths("PUT"))
    (folder / "README.md").write_text(CARD + "One more line.\n")
    client(PUSH)
    assert len(hub.paths("PUT")) == uploads
    assert hub.files("org/name")["README.md"].endswith(b"One more line.\n")


def test_files_of_other_names_stay_in_the_repository(hub, client):
    hub.add_repo("org/name", {"notes.txt": "theirs"})
    client(PUSH)
    assert hub.files("org/name")["notes.txt"] == b"theirs"


def test_a_push_can_be_private_on_a_branch_and_with_a_message(hub, client):
    client("return hub.push('folder', 'org/name', private=True).commit")
    repo = hub.store.repos["org/name"]
    assert repo.private
    repo.branches["trial"] = repo.branches["main"]
    (commit,) = client(
        """
        Path("folder/LICENSE").write_text("Apache License")
        return [hub.push("folder", "org/name", revision="trial", message="With licence").commit]
        """
    )
    assert repo.at("trial").oid == commit != repo.branches["main"]
    assert repo.at("trial").message == "With licence"


@pytest.mark.parametrize(
    ("token", "words"),
    [(None, "(401)"), (HubServer.stranger, "(403)"), ("hf_wrong", "(401)")],
)
def test_whoever_may_not_write_is_told_so(hub, client, token, words):
    kind, message = client(PUSH, token=token)
    assert kind == "SourceUnavailable"
    assert words in message
    assert "org/name" not in hub.store.repos


def test_a_card_that_the_hub_refuses_leaves_no_repository(hub, client, folder):
    card = CARD.replace("license: apache-2.0", "license: my-own").replace(
        "weights: apache-2.0", "weights: my-own"
    )
    (folder / "README.md").write_text(card)
    kind, message = client(PUSH)
    assert kind == "PushRefused"
    assert "my-own" in message
    assert hub.store.repos == {}


@pytest.mark.parametrize(
    ("path", "status"), [("/lfs/", 413), ("/preupload/", 403), ("/commit/", 412), ("/verify", 404)]
)
def test_a_push_that_fails_midway_leaves_the_old_commit_and_is_finished_later(
    hub, client, path, status
):
    old = hub.add_repo("org/name", {"notes.txt": "theirs"})
    hub.fail("status", path, method="PUT" if path == "/lfs/" else "POST", status=status)
    kind, message = client(PUSH)
    assert (kind, f"({status})" in message) == ("SourceUnavailable", True)
    assert hub.store.repos["org/name"].branches["main"] == old
    client(PUSH)
    assert set(hub.files("org/name")) == {*NAMES, "notes.txt"}


def test_a_commit_whose_answer_was_lost_is_found_again(hub, client):
    hub.fail("hangup", "/commit/", method="POST")
    kind, message = client(PUSH)
    assert (kind, "the connection failed" in message) == ("SourceUnavailable", True)
    head = hub.store.repos["org/name"].branches["main"]
    assert client(PUSH)[1] == head


def test_a_push_that_is_killed_leaves_the_old_commit(hub, client, tmp_path):
    old = hub.add_repo("org/name", {"notes.txt": "theirs"})
    hub.fail("status", "/lfs/", method="PUT", status=503, headers={"Retry-After": "60"})
    process = subprocess.Popen(
        [sys.executable, "-c", "from cxr_foundation import hub; hub.push('folder', 'org/name')"],
        env=hub.environment(tmp_path / "home"),
        cwd=tmp_path,
        stderr=subprocess.DEVNULL,
    )
    while not hub.paths("PUT"):
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert hub.store.repos["org/name"].branches["main"] == old
    client(PUSH)
    assert set(hub.files("org/name")) == {*NAMES, "notes.txt"}


# ------------------------------------------------------------------ what is never published


def add(name, content=b"x"):
    return lambda folder: (folder / name).write_bytes(content)


def picture(name, text):
    """A grey PNG with a line of text in it."""

    def write(folder):
        grey = Image.new("L", (400, 300), 80)
        ImageDraw.Draw(grey).text((6, 6), text, fill=255, font=ImageFont.load_default(20))
        grey.save(folder / name, "PNG")

    return write


def card(old, new):
    return lambda folder: (folder / "README.md").write_text(CARD.replace(old, new))


def weights(metadata):
    tensors = {"conv1.weight": np.zeros(8, np.float32)}
    return lambda folder: save_file(tensors, folder / "model.safetensors", metadata)


DIRTY = {
    "a_pickle": (add("pytorch_model.bin"), "is not a file of a published folder"),
    "code": (add("modeling.py"), "is not a file of a published folder"),
    "a_radiograph": (add("patient.dcm"), "is a picture that cannot be read"),
    "a_damaged_picture": (
        add("figure.png", b"\x89PNG\r\n\x1a\n cut off"),
        "is a picture that cannot be read",
    ),
    "a_picture_with_a_name_in_it": (
        picture("figure.png", "DOE^JANE 1970 ID 12"),
        "figure.png: is a picture with letters in its pixels, which may name a patient",
    ),
    "a_picture_without": (picture("figure.png", ""), "is a picture, which no published folder"),
    "a_picture_that_is_called_a_text": (
        picture("LICENSE", "DOE^JANE 1970 ID 12"),
        "LICENSE: is a picture with letters in its pixels",
    ),
    "a_hidden_file": (add(".env"), "is not a file of a published folder"),
    "a_subfolder": (lambda f: (f / "logs").mkdir(), "is not a file of a published folder"),
    "a_folder_named_as_a_file": (
        lambda f: (f / "LICENSE").mkdir(),
        "is not a file of a published folder",
    ),
    "a_symbolic_link": (
        lambda f: (f / "LICENSE").symlink_to("/etc/hostname"),
        "is a symbolic link",
    ),
    "no_weights": (lambda f: (f / "model.safetensors").unlink(), "has no model.safetensors"),
    "no_config": (lambda f: (f / "config.json").unlink(), "has no config.json"),
    "no_card": (lambda f: (f / "README.md").unlink(), "has no README.md"),
    "no_licence": (
        lambda f: (f / "README.md").write_text(
            CARD.replace("license: apache-2.0", "license: null")
            .replace("weights: apache-2.0", "weights: null")
            .replace("  unknown:\n", "  unknown:\n    licences.weights: they do not say\n")
        ),
        "names no licence",
    ),
    "no_licence_key": (card("license: apache-2.0\n", ""), "license"),
    "an_unknown_key": (card("num_features: 8", "num_features: 8\n  nonsense: 1"), "nonsense"),
    "no_facts": (
        lambda f: (f / "README.md").write_text("---\nlicense: mit\n---\n# Hi\n"),
        "cxr_foundation",
    ),
    "not_a_card": (lambda f: (f / "README.md").write_text("# Hi\n"), "no front matter"),
    "facts_in_the_header": (weights({"format": "pt", "path": "/home/a"}), "other metadata"),
    "no_format_in_the_header": (weights(None), "other metadata"),
    "truncated_weights": (
        lambda f: (f / "model.safetensors").write_bytes(
            (f / "model.safetensors").read_bytes()[:-1]
        ),
        "is not a sound safetensors file",
    ),
    "weights_that_are_a_pickle": (add("model.safetensors", b"\x80\x04."), "is not a sound"),
    "remote_code": (add("config.json", b'{"auto_map": {"AutoModel": "x.Y"}}'), "names code"),
    "remote_code_for_images": (
        add("preprocessor_config.json", b'{"auto_map": {"AutoImageProcessor": "x.Y"}}'),
        "names code",
    ),
    "a_config_that_is_not_json": (add("config.json", b"{"), "is not JSON"),
    "a_config_that_is_a_list": (add("config.json", b"[]"), "is not a JSON object"),
}


@pytest.mark.parametrize("case", DIRTY)
def test_what_must_not_be_published_is_refused_without_a_request(folder, monkeypatch, case):
    monkeypatch.setattr("huggingface_hub.HfApi", lambda **_: pytest.fail("the Hub was asked"))
    spoil, words = DIRTY[case]
    spoil(folder)
    with pytest.raises(PushRefused) as caught:
        push(folder, "org/name")
    assert words in str(caught.value)


def test_a_card_whose_hash_is_not_that_of_the_weights_is_refused(folder):
    text = CARD.replace(
        "{kind: google_drive, file_id: 1AbCdEfGhIjK, filename: x.pth, sha256: null,",
        f"{{kind: hub, repo: org/name, revision: {'a' * 40}, filename: null, "
        f"sha256: {json.dumps('0' * 64)},",
    )
    text = text.replace("layout: moco, takes: encoder_q", "layout: null")
    text = text.replace("    source.sha256: the file was never held\n", "")
    text = text.replace("source: page", "source: bytes")
    (folder / "README.md").write_text(text)
    with pytest.raises(PushRefused, match="is not the file whose sha256 the card gives"):
        push(folder, "org/name")


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(PushRefused, match="not a folder"):
        push(tmp_path / "none", "org/name")


def test_a_token_that_cannot_be_sent_is_refused_unprinted(folder):
    with pytest.raises(SourceUnavailable, match="the token has characters") as caught:
        push(folder, "org/name", token="hf_secret\n")
    assert "hf_secret" not in str(caught.value)


# ------------------------------------------------------------------ download_folder

DOWNLOAD = """
    path = hub.download_folder("org/name", OPTIONS)
    return [path.name, {p.name: p.read_text() for p in sorted(path.iterdir())}]
"""
REPO = {"config.json": "{}", "model.safetensors": "weights", "README.md": "card"}


def downloaded(options=""):
    return DOWNLOAD.replace("OPTIONS", options)


def test_only_the_four_files_of_a_published_folder_are_fetched(hub, client):
    extra = {"modeling.py": "raise", "pytorch_model.bin": "pickle", "a/config.json": "{}"}
    commit = hub.add_repo("org/name", REPO | extra)
    assert client(downloaded()) == [commit, REPO]
    assert not any("modeling" in request.path or ".bin" in request.path for request in hub.requests)


def test_a_revision_is_a_tag_or_a_commit(hub, client):
    old = hub.add_repo("org/name", REPO, tag="v1")
    hub.add_repo("org/name", REPO | {"config.json": '{"new": 1}'})
    assert client(downloaded("revision='v1'")) == [old, REPO]
    assert client(downloaded(f"revision='{old}'")) == [old, REPO]


def test_all_files_come_from_the_commit_of_the_first(hub, client):
    old = hub.add_repo("org/name", REPO)
    meanwhile = """
        from cxr_foundation.hub import repository
        from huggingface_hub import CommitOperationAdd, HfApi
        real = repository.download
        def download(repo, filename, **options):
            path = real(repo, filename, **options)
            if filename == "config.json":
                add = CommitOperationAdd("model.safetensors", b"other")
                HfApi().create_commit(repo, [add], commit_message="meanwhile")
            return path
        repository.download = download
    """
    assert client(textwrap.dedent(meanwhile) + textwrap.dedent(downloaded())) == [old, REPO]


def test_a_folder_once_fetched_is_had_offline_and_by_commit_without_a_request(hub, client):
    commit = hub.add_repo("org/name", REPO)
    assert client(downloaded()) == [commit, REPO]
    asked = len(hub.requests)
    assert client(downloaded(), HF_HUB_OFFLINE="1") == [commit, REPO]
    assert client(downloaded("local_files_only=True")) == [commit, REPO]
    assert client(downloaded(f"revision='{commit}'")) == [commit, REPO]
    assert len(hub.requests) == asked


def test_a_repository_without_weights_is_not_a_published_folder(hub, client):
    hub.add_repo("org/name", {"config.json": "{}"})
    kind, message = client(downloaded())
    assert kind == "SourceUnavailable"
    assert "org/name has no file model.safetensors" in message


def test_weights_that_are_not_the_ones_that_the_hub_names_are_refused(hub, client):
    hub.add_repo("org/name", REPO)
    hub.fail("wrong", "model.safetensors", times=2)
    assert client(downloaded())[0] == "HashMismatch"
    assert client(downloaded())[1] == REPO


@pytest.mark.parametrize(
    ("facts", "token", "kind"),
    [
        ({"gated": True}, HubServer.stranger, "GatedSource"),
        ({"private": True}, HubServer.stranger, "SourceUnavailable"),
        ({"private": True}, None, "SourceUnavailable"),
    ],
)
def test_a_closed_repository_is_refused(hub, client, facts, token, kind):
    hub.add_repo("org/name", REPO, **facts)
    assert client(downloaded(), token=token)[0] == kind
    assert client(downloaded(f"token='{HubServer.token}'"), token=None, home="b")[1] == REPO
