"""The state of the test Hub and its answers to each request of the protocol; no HTTP in here."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import urllib.parse
from collections.abc import Mapping
from typing import Any

import yaml

WRITER = "hf_test_writer_0123456789"
STRANGER = "hf_test_stranger_0123456789"
USERS = {WRITER: "writer", STRANGER: "stranger"}
# The Hub's list is longer; these are the ids of it that tests and demonstrations use.
LICENSES = set(
    "apache-2.0 mit bsd-2-clause bsd-3-clause cc0-1.0 cc-by-3.0 cc-by-4.0 cc-by-sa-4.0 cc-by-nc-4.0"
    " cc-by-nc-sa-4.0 cc-by-nc-nd-4.0 gpl-3.0 agpl-3.0 mpl-2.0 openrail unknown other".split()
)
_LFS_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".png", ".zip")


@dataclasses.dataclass(frozen=True)
class Blob:
    data: bytes
    lfs: bool
    sha256: str
    git_oid: str

    @classmethod
    def of(cls, data: bytes, *, lfs: bool) -> Blob:
        pointer = (
            f"version https://git-lfs.github.com/spec/v1\noid sha256:"
            f"{hashlib.sha256(data).hexdigest()}\nsize {len(data)}\n".encode()
            if lfs
            else data
        )
        git_oid = hashlib.sha1(b"blob %d\0" % len(pointer) + pointer).hexdigest()
        return cls(data, lfs, hashlib.sha256(data).hexdigest(), git_oid)

    @property
    def etag(self) -> str:
        return self.sha256 if self.lfs else self.git_oid


@dataclasses.dataclass(frozen=True)
class Commit:
    oid: str
    parent: str | None
    message: str
    files: Mapping[str, Blob]


@dataclasses.dataclass
class Repo:
    private: bool
    gated: bool
    commits: dict[str, Commit] = dataclasses.field(default_factory=dict)
    branches: dict[str, str] = dataclasses.field(default_factory=dict)
    tags: dict[str, str] = dataclasses.field(default_factory=dict)

    def commit(self, branch: str, files: Mapping[str, Blob], message: str) -> Commit:
        parent = self.branches.get(branch)
        listing = {path: blob.sha256 for path, blob in sorted(files.items())}
        seal = json.dumps([len(self.commits), parent, message, listing])
        commit = Commit(hashlib.sha1(seal.encode()).hexdigest(), parent, message, dict(files))
        self.commits[commit.oid] = commit
        self.branches[branch] = commit.oid
        return commit

    def at(self, revision: str) -> Commit | None:
        oid = self.branches.get(revision) or self.tags.get(revision) or revision
        return self.commits.get(oid)


@dataclasses.dataclass(frozen=True)
class Answer:
    """A file with headers of its own; every other answer is JSON."""

    blob: Blob
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)


class Refusal(Exception):
    """An error as the Hub gives it: status, X-Error-Code, X-Error-Message, JSON body."""

    def __init__(
        self,
        status: int,
        code: str | None,
        message: str,
        *,
        headers: Mapping[str, str] | None = None,
        **body: Any,
    ) -> None:
        self.status = status
        self.headers = {"X-Error-Message": message, **(headers or {})}
        if code is not None:
            self.headers["X-Error-Code"] = code
        self.body = {"error": message, **body}


def front_matter(card: str) -> str:
    """The YAML between the first two lines of three dashes; without them an empty mapping."""
    if not card.startswith("---\n") or "\n---" not in card[3:]:
        return "{}"
    return card[4 : card.index("\n---", 3)]


def check_card(content: str) -> list[str]:
    """What the Hub finds wrong with a card's front matter."""
    try:
        facts = yaml.safe_load(front_matter(content))
    except yaml.YAMLError as error:
        return [f"YAML: {error}"]
    if not isinstance(facts, dict):
        return ["the front matter is not a mapping"]
    errors = []
    licence = facts.get("license")
    if licence is not None and licence not in LICENSES:
        errors.append(f'"license" must be one of the known ids, not {licence!r}')
    for key in ("tags", "datasets"):
        value = facts.get(key, [])
        if not (isinstance(value, list) and all(isinstance(item, str) for item in value)):
            errors.append(f'"{key}" must be a list of strings')
    for key in ("pipeline_tag", "library_name"):
        if not isinstance(facts.get(key, ""), str):
            errors.append(f'"{key}" must be a string')
    for model in facts.get("model-index") or []:
        if not (isinstance(model, dict) and model.get("name") and "results" in model):
            errors.append('"model-index" needs a name and results')
    return errors


class Store:
    """Repositories, uploaded objects and plain files of one Hub at `endpoint`."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.repos: dict[str, Repo] = {}
        self.objects: dict[str, bytes] = {}
        self.announced: set[str] = set()
        self.plain: dict[str, Blob] = {}

    def add(
        self,
        repo_id: str,
        files: Mapping[str, bytes],
        *,
        private: bool,
        gated: bool,
        tag: str | None,
    ) -> str:
        """One commit of exactly `files` on the main branch of a new or an old repository."""
        repo = self.repos.setdefault(repo_id, Repo(private=private, gated=gated))
        blobs = {path: Blob.of(data, lfs=_is_lfs(path, len(data))) for path, data in files.items()}
        commit = repo.commit("main", blobs, "added")
        if tag is not None:
            repo.tags[tag] = commit.oid
        return commit.oid

    def add_plain(self, name: str, data: bytes) -> None:
        self.plain[name] = Blob.of(data, lfs=True)

    def answer(self, method: str, target: str, token: str | None, body: bytes) -> Any:
        """An `Answer`, or what becomes JSON; raises Refusal."""
        address = urllib.parse.urlsplit(target)
        parts = [urllib.parse.unquote(part) for part in address.path.strip("/").split("/")]
        user = USERS.get(token or "")
        if token and user is None:
            raise Refusal(401, None, "Invalid credentials in Authorization header")
        match (method, *parts):
            case ("GET" | "HEAD", "plain", name) if name in self.plain:
                return Answer(self.plain[name])
            case ("GET", "api", "whoami-v2"):
                if user is None:
                    raise Refusal(401, None, "Invalid username or password.")
                return {"type": "user", "name": user, "orgs": []}
            case ("POST", "api", "validate-yaml"):
                errors = check_card(json.loads(body)["content"])
                if errors:
                    messages = [{"message": message} for message in errors]
                    raise Refusal(400, None, "invalid card", errors=messages, warnings=[])
                return {"errors": [], "warnings": []}
            case ("POST", "api", "repos", "create"):
                return self._create(json.loads(body), user)
            case ("PUT", "lfs", oid):
                return self._put_object(oid, body)
            case ("POST", organisation, git, "info", "lfs", "objects", step):
                repo_id = f"{organisation}/{git.removesuffix('.git')}"
                self._repo(repo_id, user, write=True)
                wish = json.loads(body)
                return self._batch(repo_id, wish) if step == "batch" else self._verify(wish)
            case ("GET" | "HEAD", organisation, name, "resolve", revision, *path):
                repo = self._repo(f"{organisation}/{name}", user, read=True)
                return self._resolve(repo, revision, "/".join(path))
            case (_, "api", "models", organisation, name, *rest):
                repo_id = f"{organisation}/{name}"
                return self._api(method, repo_id, rest, body, user, address.query)
        raise Refusal(404, None, "not found")

    def _repo(
        self, name: str, user: str | None, *, read: bool = False, write: bool = False
    ) -> Repo:
        """The repository, if `user` may see it; `read` also asks for access to gated files."""
        repo = self.repos.get(name)
        if repo is None or (repo.private and user != "writer"):
            raise Refusal(401 if user is None else 404, "RepoNotFound", "Repository not found")
        if read and repo.gated and user != "writer":
            message = f"Access to model {name} is restricted. Ask its owner for access."
            raise Refusal(401 if user is None else 403, "GatedRepo", message)
        if write and user != "writer":
            raise Refusal(401 if user is None else 403, None, "You have no right to write here")
        return repo

    def _commit(self, repo: Repo, revision: str) -> Commit:
        commit = repo.at(revision)
        if commit is None:
            raise Refusal(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit

    def _resolve(self, repo: Repo, revision: str, path: str) -> Answer:
        commit = self._commit(repo, revision)
        here = {"X-Repo-Commit": commit.oid}
        if path not in commit.files:
            raise Refusal(404, "EntryNotFound", "Entry not found", headers=here)
        blob = commit.files[path]
        linked = {"X-Linked-Etag": f'"{blob.sha256}"', "X-Linked-Size": str(len(blob.data))}
        return Answer(blob, {**here, **(linked if blob.lfs else {})})

    def _create(self, wish: Mapping[str, Any], user: str | None) -> Any:
        if user is None:
            raise Refusal(401, None, "Invalid username or password.")
        repo_id = f"{wish.get('organization') or user}/{wish['name']}"
        url = f"{self.endpoint}/{repo_id}"
        if repo_id in self.repos:
            raise Refusal(409, None, "You already created this model repo", url=url)
        if user != "writer":
            raise Refusal(403, None, "You have no right to create a model here")
        private = wish.get("visibility") == "private" or bool(wish.get("private"))
        repo = Repo(private=private, gated=False)
        repo.commit("main", {".gitattributes": Blob.of(b"", lfs=False)}, "initial commit")
        self.repos[repo_id] = repo
        return {"url": url, "name": repo_id}

    def _batch(self, repo_id: str, wish: Mapping[str, Any]) -> Any:
        objects = []
        for item in wish["objects"]:
            entry: dict[str, Any] = {"oid": item["oid"], "size": item["size"]}
            if item["oid"] not in self.objects:
                self.announced.add(item["oid"])
                entry["actions"] = {
                    "upload": {"href": f"{self.endpoint}/lfs/{item['oid']}"},
                    "verify": {"href": f"{self.endpoint}/{repo_id}.git/info/lfs/objects/verify"},
                }
            objects.append(entry)
        return {"transfer": "basic", "objects": objects}

    def _put_object(self, oid: str, body: bytes) -> Any:
        if oid not in self.announced or hashlib.sha256(body).hexdigest() != oid:
            raise Refusal(400, None, "these are not the announced bytes")
        self.objects[oid] = body
        return {}

    def _verify(self, wish: Mapping[str, Any]) -> Any:
        if len(self.objects.get(wish["oid"], b"")) != wish["size"]:
            raise Refusal(404, None, "object not found")
        return {}

    def _api(
        self, method: str, name: str, rest: list[str], body: bytes, user: str | None, query: str
    ) -> Any:
        repo = self._repo(name, user, write=method != "GET" and rest[:1] != ["paths-info"])
        match (method, *rest):
            case ("GET",):
                return self._info(name, repo, "main", query)
            case ("GET", "revision", revision):
                return self._info(name, repo, revision, query)
            case ("GET", "tree", revision, *folder):
                files = self._commit(repo, revision).files
                prefix = "/".join(folder) + "/" if folder else ""
                return [_entry(p, b) for p, b in sorted(files.items()) if p.startswith(prefix)]
            case ("POST", "paths-info", revision):
                files = self._commit(repo, revision).files
                asked = urllib.parse.parse_qs(body.decode()).get("paths", [])
                return [_entry(path, files[path]) for path in asked if path in files]
            case ("GET", "refs"):
                return {
                    "branches": [_ref("heads", *item) for item in repo.branches.items()],
                    "tags": [_ref("tags", *item) for item in repo.tags.items()],
                    "converts": [],
                }
            case ("POST", "preupload", revision):
                files = self._commit(repo, revision).files
                return {"files": [_mode(f, files) for f in json.loads(body)["files"]]}
            case ("POST", "commit", revision):
                return self._apply(name, repo, revision, [json.loads(s) for s in body.splitlines()])
            case ("POST", "tag", revision):
                tag = json.loads(body)["tag"]
                if tag in repo.tags:
                    raise Refusal(409, None, f"Tag {tag} exists already")
                repo.tags[tag] = self._commit(repo, revision).oid
                return {}
            case ("POST", "branch", branch):
                start = (json.loads(body) if body else {}).get("startingPoint") or "main"
                repo.branches[branch] = self._commit(repo, start).oid
                return {}
        raise Refusal(404, None, "not found")

    def _info(self, name: str, repo: Repo, revision: str, query: str) -> Any:
        commit = self._commit(repo, revision)
        card = commit.files.get("README.md")
        facts = yaml.safe_load(front_matter(card.data.decode())) if card is not None else {}
        with_blobs = "blobs=" in query and "blobs=false" not in query.lower()
        siblings = []
        for path, blob in sorted(commit.files.items()):
            detail = {"size": len(blob.data), "blobId": blob.git_oid} if with_blobs else {}
            if with_blobs and blob.lfs:
                detail["lfs"] = {"sha256": blob.sha256, "size": len(blob.data), "pointerSize": 130}
            siblings.append({"rfilename": path, **detail})
        return {
            "_id": hashlib.sha1(name.encode()).hexdigest()[:24],
            "id": name,
            "modelId": name,
            "author": name.split("/")[0],
            "sha": commit.oid,
            "private": repo.private,
            "gated": "manual" if repo.gated else False,
            "disabled": False,
            "downloads": 0,
            "likes": 0,
            "tags": [],
            "cardData": facts,
            "siblings": siblings,
            "lastModified": "2020-01-01T00:00:00.000Z",
            "createdAt": "2020-01-01T00:00:00.000Z",
        }

    def _apply(self, name: str, repo: Repo, branch: str, lines: list[dict[str, Any]]) -> Any:
        if branch not in repo.branches:
            raise Refusal(404, "RevisionNotFound", f"Invalid rev id: {branch}")
        head = repo.commits[repo.branches[branch]]
        files, message = dict(head.files), ""
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                message = value["summary"]
                if value.get("parentCommit") not in (None, head.oid):
                    raise Refusal(412, None, "A commit has happened since")
            elif line["key"] == "file":
                files[value["path"]] = Blob.of(base64.b64decode(value["content"]), lfs=False)
            elif line["key"] == "lfsFile":
                if value["oid"] not in self.objects:
                    raise Refusal(400, None, f"{value['path']} was not uploaded")
                files[value["path"]] = Blob.of(self.objects[value["oid"]], lfs=True)
            elif line["key"] == "deletedFile":
                files.pop(value["path"])
        commit = repo.commit(branch, files, message)
        url = f"{self.endpoint}/{name}/commit/{commit.oid}"
        return {"success": True, "commitOid": commit.oid, "commitUrl": url}


def _entry(path: str, blob: Blob) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "path": path, "size": len(blob.data)}
    entry["oid"] = blob.git_oid
    if blob.lfs:
        entry["lfs"] = {"oid": blob.sha256, "size": len(blob.data), "pointerSize": 130}
    return entry


def _ref(kind: str, name: str, oid: str) -> dict[str, str]:
    return {"name": name, "ref": f"refs/{kind}/{name}", "targetCommit": oid}


def _is_lfs(path: str, size: int) -> bool:
    return path.endswith(_LFS_SUFFIXES) or size >= 10 * 2**20


def _mode(wish: Mapping[str, Any], files: Mapping[str, Blob]) -> dict[str, Any]:
    lfs = _is_lfs(wish["path"], wish["size"])
    mode: dict[str, Any] = {"path": wish["path"], "uploadMode": "lfs" if lfs else "regular"}
    there = files.get(wish["path"])
    return {**mode, "shouldIgnore": False, "oid": there.etag if there is not None else None}
