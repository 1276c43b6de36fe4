"""The test Hub, spoken to by the real clients: huggingface_hub, timm and transformers."""

import functools
import json
import subprocess
import sys

import pytest
from hub_server import HubServer

ENCODER = {
    "architecture": "resnet10t",
    "num_classes": 0,
    "num_features": 512,
    "global_pool": "avg",
    "model_args": {"in_chans": 1},
    "pretrained_cfg": {
        "input_size": [1, 64, 64],
        "mean": [0.5],
        "std": [0.25],
        "num_classes": 0,
        "first_conv": "conv1.0",
        "classifier": "fc",
        "pool_size": [2, 2],
        "license": "apache-2.0",
    },
}


@pytest.fixture
def hub():
    with HubServer() as server:
        yield server


@pytest.fixture
def client(hub, tmp_path):
    """Runs Python in a process that speaks to the test Hub; its home is that of one test."""
    return functools.partial(hub.run, folder=tmp_path)


def fails_with(statement):
    return f"""
        import huggingface_hub
        try:
            {statement}
        except Exception as error:
            print(json.dumps(type(error).__name__))
    """


def test_a_folder_is_uploaded_over_lfs_in_one_commit_and_read_back(hub, client, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(bytes(range(256)) * 64)
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# A card\n")
    answer = client("""
        from huggingface_hub import HfApi, hf_hub_download
        api = HfApi()
        api.create_repo("org/name", private=True)
        before = api.model_info("org/name").sha
        commit = api.upload_folder(repo_id="org/name", folder_path="folder").oid
        again = api.upload_folder(repo_id="org/name", folder_path="folder").oid
        info = api.model_info("org/name", files_metadata=True)
        tree = {f.path: f.size for f in api.list_repo_tree("org/name")}
        with open(hf_hub_download("org/name", "model.safetensors"), "rb") as file:
            same = file.read() == bytes(range(256)) * 64
        print(json.dumps([before != commit, again == commit == info.sha, info.private, tree, same,
                          info.card_data.license, api.file_exists("org/name", "absent")]))
    """)
    tree = {".gitattributes": 0, "README.md": 30, "model.safetensors": 16384}
    assert answer == [True, True, True, tree, True, "mit", False]
    assert len([path for path in hub.paths("PUT") if path.startswith("/lfs/")]) == 1
    assert len([path for path in hub.paths("POST") if "/commit/" in path]) == 1


def test_revisions_are_branches_tags_and_commits(hub, client):
    old = hub.add_repo("org/name", {"config.json": '{"n": 1}'}, tag="v1")
    new = hub.add_repo("org/name", {"config.json": '{"n": 2}'})
    answer = client(f"""
        from huggingface_hub import HfApi, hf_hub_download
        HfApi().create_tag("org/name", tag="v2", revision="main")
        HfApi().create_branch("org/name", branch="side", revision="v1")
        read = lambda revision: json.load(open(hf_hub_download("org/name", "config.json",
                                                               revision=revision)))["n"]
        refs = HfApi().list_repo_refs("org/name")
        print(json.dumps([[read(r) for r in ("main", "v1", "v2", "side", "{old}", "{new}")],
                          sorted(t.name for t in refs.tags)]))
    """)
    assert answer == [[2, 1, 2, 1, 1, 2], ["v1", "v2"]]


@pytest.mark.parametrize(
    ("call", "token", "error"),
    [
        ("model_info('org/absent')", HubServer.token, "RepositoryNotFoundError"),
        ("model_info('org/private')", None, "RepositoryNotFoundError"),
        ("model_info('org/private')", HubServer.stranger, "RepositoryNotFoundError"),
        ("hf_hub_download('org/gated', 'a.txt')", None, "GatedRepoError"),
        ("hf_hub_download('org/gated', 'a.txt')", HubServer.stranger, "GatedRepoError"),
        ("hf_hub_download('org/open', 'a.txt', revision='no')", None, "RevisionNotFoundError"),
        ("hf_hub_download('org/open', 'b.txt')", None, "RemoteEntryNotFoundError"),
        ("create_tag('org/open', tag='v1')", HubServer.stranger, "HfHubHTTPError"),
    ],
)
def test_what_a_user_may_not_have_is_refused_as_the_hub_refuses_it(hub, client, call, token, error):
    hub.add_repo("org/open", {"a.txt": "a"})
    hub.add_repo("org/private", {"a.txt": "a"}, private=True)
    hub.add_repo("org/gated", {"a.txt": "a"}, gated=True)
    assert client(fails_with(f"huggingface_hub.{call}"), token=token) == error


def test_whoever_has_access_reads_private_and_gated_repositories(hub, client):
    hub.add_repo("org/closed", {"a.txt": "inside"}, private=True, gated=True)
    answer = client("""
        from huggingface_hub import hf_hub_download, model_info
        print(json.dumps([open(hf_hub_download("org/closed", "a.txt")).read(),
                          model_info("org/closed").gated]))
    """)
    assert answer == ["inside", "manual"]


@pytest.mark.parametrize(
    ("front_matter", "accepted"),
    [
        ("license: apache-2.0", True),
        ("license: not-a-licence", False),
        ("license: mit\ntags: tag", False),
        ("license: [mit", False),
    ],
)
def test_cards_are_validated(client, front_matter, accepted):
    answer = client(f"""
        from huggingface_hub import get_session, constants
        card = {f"---{chr(10)}{front_matter}{chr(10)}---{chr(10)}"!r}
        reply = get_session().post(constants.ENDPOINT + "/api/validate-yaml",
                                   json={{"content": card, "repoType": "model"}})
        print(json.dumps(reply.status_code))
    """)
    assert answer == (200 if accepted else 400)


def test_a_range_is_answered_with_that_part_alone(hub, client):
    hub.add_repo("org/name", {"digits.txt": "0123456789"})
    answer = client("""
        from huggingface_hub import get_session, hf_hub_url
        url = hf_hub_url("org/name", "digits.txt")
        reply = get_session().get(url, headers={"Range": "bytes=3-5"})
        rest = get_session().get(url, headers={"Range": "bytes=8-"})
        past = get_session().get(url, headers={"Range": "bytes=10-"})
        print(json.dumps([reply.status_code, reply.text, reply.headers["Content-Range"], rest.text,
                          past.status_code]))
    """)
    assert answer == [206, "345", "bytes 3-5/10", "89", 416]


def test_timm_and_transformers_load_one_encoder_with_equal_features(hub, client):
    answer = client(f"""
        import timm, torch
        from safetensors.torch import save_file
        torch.manual_seed(0)
        model = timm.create_model("resnet10t", in_chans=1, num_classes=0).eval()
        save_file(model.state_dict(), "model.safetensors", {{"format": "pt"}})
        open("config.json", "w").write({json.dumps(json.dumps(ENCODER))})
        print(json.dumps("made"))
    """)
    assert answer == "made"
    answer = client("""
        from huggingface_hub import HfApi
        api = HfApi()
        api.create_repo("org/encoder")
        for name in ("config.json", "model.safetensors"):
            api.upload_file(repo_id="org/encoder", path_or_fileobj=name, path_in_repo=name)
        api.create_tag("org/encoder", tag="v1")

        import timm, torch
        from transformers import AutoImageProcessor, AutoModel
        torch.manual_seed(1)
        image = torch.rand(2, 1, 64, 64)
        features = []
        for model in (timm.create_model("hf-hub:org/encoder", pretrained=True).eval(),
                      timm.create_model("hf-hub:org/encoder@v1", pretrained=True).eval()):
            features.append(model(image))
        wrapped = AutoModel.from_pretrained("org/encoder").eval()
        features.append(wrapped(image).pooler_output)
        same = [torch.equal(features[0], other) for other in features]
        print(json.dumps([same, list(features[0].shape),
                          type(AutoImageProcessor.from_pretrained("org/encoder")).__name__]))
    """)
    assert answer == [[True] * 3, [2, 512], "TimmWrapperImageProcessor"]


def test_the_server_runs_as_a_program(tmp_path):
    from hub_server import __file__ as program

    with subprocess.Popen(
        [sys.executable, program, "--port", "0"], stdout=subprocess.PIPE, text=True
    ) as process:
        endpoint = process.stdout.readline().strip()
        exports = process.stdout.readline()
        process.terminate()
    assert endpoint.startswith("http://127.0.0.1:")
    assert exports.startswith(f"export HF_ENDPOINT={endpoint} HF_TOKEN=")
