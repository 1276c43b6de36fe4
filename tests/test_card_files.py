"""Every card loads: from a stand-in of its authors' file, over the source that the card names.

One process goes through all cards; its Hub, its web server and its Drive are on the loopback. A
stand-in is written as the original project writes it (tests/wild), so the names in the file owe
nothing to the card. Cards whose file is only given to those who ask go through `cxr convert`.
"""

import contextlib
import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from hub_server import HubServer

# Which dialect of a layout a card's file is written in, where the layout has several.
DIALECTS = {
    "cxr_densenet121.chexnet": "chexnet",
    "cxr_densenet121.xrv_": "xrv_densenet121",
    "cxr_densenet121.covid_prognosis": "covid_prognosis",
    "cxr_vit_b14.xray_dinov2": "xray_dinov2",
    "cxr_vit_s.spcxr": "sit",
}


def standins_for(card):
    """Stand-ins with their case for a card's layout, network and channels."""
    from wild import STANDINS

    from cxr_foundation.models.architectures import STOCK

    stock, args = STOCK[card.architecture]
    wanted = {**args, "in_chans": card.contract.channels}
    wanted = (wanted, {**wanted, "img_size": card.contract.size[0]})
    found = [
        (standin, case)
        for standin in STANDINS.values()
        for case in standin.cases
        if standin.layout == card.conversion.layout
        and standin.takes in (None, card.conversion.takes)
        # CLIP's two activations have the same tensors, of which a file does not tell.
        and case.network.replace("_quickgelu", "") == stock.replace("_quickgelu", "")
        and dict(case.args) in wanted
    ]
    dialect = next((d for prefix, d in DIALECTS.items() if card.name.startswith(prefix)), None)
    return [pair for pair in found if dialect in (None, pair[0].name)]


def go_through(names, folder):
    """Print a line of JSON for each card: what became of it."""
    with HubServer() as server:
        # Before huggingface_hub is imported, which reads them then.
        os.environ.pop("HF_HUB_OFFLINE", None)
        os.environ.update(server.environment(folder / "home"))
        for name in names:
            try:
                outcome = loaded(name, server, folder)
            except Exception as error:  # one card must not hide the others
                outcome = {"error": f"{type(error).__name__}: {error}"}
            # Together they would fill a disk.
            for made in folder.iterdir():
                shutil.rmtree(made) if made.is_dir() else made.unlink()
            print(json.dumps({"name": name, **outcome}), flush=True)


def loaded(name, server, folder):
    import timm
    import torch

    import cxr_foundation
    from cxr_foundation import catalog

    torch.set_num_threads(1)
    card = catalog.checkpoint(name)
    if card.source.kind == "bundled":
        return described(cxr_foundation.create_model(name), card)
    pairs = standins_for(card)
    if not pairs:
        return {"error": "no stand-in is written for its layout, network and channels"}
    standin, case = pairs[0]
    file = folder / "file"
    standin.write(file, case)
    if card.source.kind == "ask":
        from cxr_foundation.models.loading import convert_to_folder

        convert_to_folder(file, folder / name, name=name)
        model = cxr_foundation.load(folder / name)
    else:
        with served(card, file, server):
            model = timm.create_model(name, pretrained=True, num_classes=0)
    from cxr_foundation.convert import convert

    # The features of the layout are the layouts' own test: here every tensor has to arrive.
    state = convert(file, layout=card.conversion.layout, takes=card.conversion.takes).state
    own = model.state_dict()
    differing = [n for n in state if n not in own or not torch.equal(own[n], state[n])]
    if differing or own.keys() != state.keys():
        return {"error": f"tensors differ: {differing[:3]}"}
    return {**described(model, card), "standin": standin.name, "tensors": len(state)}


def described(model, card):
    import timm

    data = timm.data.resolve_model_data_config(model)
    contract = card.contract
    return {
        "features": [model.num_features, card.num_features],
        "input": [list(data["input_size"]), [contract.channels, *contract.size]],
        "mean": [list(data["mean"]), list(contract.mean or data["mean"])],
    }


@contextlib.contextmanager
def served(card, file, server):
    """The card's file on the loopback, in place of where the card says that it is."""
    import gdown

    from cxr_foundation import catalog
    from cxr_foundation.hub import web

    data, source = file.read_bytes(), card.source
    changes = {"sha256": None, "size_bytes": len(data)}
    kept = (catalog.checkpoints, gdown.download, web.save)

    def download(*, id, output, **options):
        assert id == source.file_id
        Path(output).write_bytes(data)
        return output

    def save(url, target, *, subject):
        assert url == source.url
        kept[2](server.add_file("file.pth", data), target, subject=subject)

    if source.kind == "hub":
        server.add_repo(source.repo, {source.filename: data}, tag=source.revision)
    record = dataclasses.replace(card, source=dataclasses.replace(source, **changes))
    catalogue = {**catalog.checkpoints(), card.name: record}
    catalog.checkpoints, gdown.download, web.save = lambda: catalogue, download, save
    try:
        yield
    finally:
        catalog.checkpoints, gdown.download, web.save = kept
        server.store.repos.clear()
        server.store.plain.clear()


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    from cxr_foundation import catalog

    folder = tmp_path_factory.mktemp("cards")
    names = sorted(catalog.checkpoints())
    command = [sys.executable, __file__, str(folder), *names]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr[-2000:]
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert [f["name"] for f in found] == names
    return found


def test_every_card_loads_from_its_source(results):
    assert [f for f in results if "error" in f] == []


def test_what_was_loaded_is_what_the_card_says(results):
    assert len(results) >= 30
    for found in results:
        for fact in ("features", "input", "mean"):
            assert found[fact][0] == pytest.approx(found[fact][1]), (found["name"], fact)


if __name__ == "__main__":
    go_through(sys.argv[2:], Path(sys.argv[1]))
