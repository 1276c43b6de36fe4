"""AutoImageProcessor: our contract with our import, the stock class for everybody else."""

import json

import numpy as np
import pytest
import torch
from encoders import contract, publish
from hub_server import HubServer
from PIL import Image
from transformers import AutoImageProcessor, AutoModel, TimmWrapperImageProcessor, pipeline

from cxr_foundation.errors import ContractError
from cxr_foundation.images import phantom
from cxr_foundation.images.processor import Processor
from cxr_foundation.models.auto import CxrImageProcessor

MADE = contract(1, 64, aspect="pad", intensity="minmax")


@pytest.fixture
def folder(tmp_path):
    return publish(tmp_path / "folder", "resnet18", made=MADE)


@pytest.fixture
def foreign(tmp_path):
    """What timm itself publishes: no contract of ours."""
    folder = publish(tmp_path / "foreign", "resnet18", made=MADE)
    config = json.loads((folder / "config.json").read_text())
    del config["cxr_foundation"]
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_a_folder_with_a_contract_gets_our_processor(folder):
    processor = AutoImageProcessor.from_pretrained(folder)
    assert isinstance(processor, CxrImageProcessor)
    batch = processor(phantom.draw(), return_tensors="pt")
    assert list(batch) == ["pixel_values"]
    assert torch.equal(batch["pixel_values"], Processor(MADE)(phantom.draw())["pixel_values"])


def test_it_reads_dicom_files_and_sixteen_bits(folder, tmp_path):
    processor = AutoImageProcessor.from_pretrained(folder)
    phantom.draw_dicom(tmp_path / "a.dcm", bits=12)
    deep = phantom.draw().astype(np.uint16) * 257
    Image.fromarray(deep).save(tmp_path / "a.png")
    batch = processor([str(tmp_path / "a.dcm"), tmp_path / "a.png", deep])["pixel_values"]
    assert batch.shape == (3, 1, 64, 64)
    torch.testing.assert_close(batch[0], batch[1], rtol=0, atol=1e-3)
    assert torch.equal(batch[1], batch[2])


@pytest.mark.parametrize("backend", [None, "pil", "torchvision"])
def test_a_foreign_timm_folder_gets_the_stock_processor(foreign, backend):
    processor = AutoImageProcessor.from_pretrained(foreign, backend=backend)
    assert type(processor) is TimmWrapperImageProcessor


def test_saving_the_processor_writes_nothing_and_the_model_keeps_the_contract(folder, tmp_path):
    AutoImageProcessor.from_pretrained(folder).save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()
    AutoModel.from_pretrained(folder).save_pretrained(tmp_path / "saved")
    again = AutoImageProcessor.from_pretrained(tmp_path / "saved")
    assert isinstance(again, CxrImageProcessor)
    assert again.contract == MADE.to_dict()


def test_a_contract_that_is_not_one_is_an_error(folder):
    config = json.loads((folder / "config.json").read_text())
    config["cxr_foundation"]["contract"]["mean"] = None
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ContractError, match="mean"):
        AutoImageProcessor.from_pretrained(folder)


def test_a_pipeline_feeds_the_model_by_the_contract(folder):
    extract = pipeline("image-feature-extraction", model=str(folder), framework="pt", pool=True)
    assert isinstance(extract.image_processor, CxrImageProcessor)
    features = extract(Image.fromarray(phantom.draw()))
    assert np.asarray(features).shape == (1, 512)


def test_a_repository_on_a_hub_with_and_without_our_import(folder, foreign, tmp_path):
    def held(place):
        return {p.name: p.read_bytes() for p in place.iterdir()}

    with HubServer() as hub:
        hub.add_repo("org/ours", held(folder))
        hub.add_repo("org/foreign", held(foreign))
        code = """
            import numpy
            {imported}
            from transformers import AutoImageProcessor, AutoModel
            found = []
            for repo in ("org/ours", "org/foreign"):
                processor = AutoImageProcessor.from_pretrained(repo)
                AutoModel.from_pretrained(repo)
                found.append(type(processor).__name__)
            print(json.dumps(found))
        """
        with_us = hub.run(code.format(imported="import cxr_foundation"), tmp_path)
        without = hub.run(code.format(imported=""), tmp_path)
    assert with_us == ["CxrImageProcessor", "TimmWrapperImageProcessor"]
    assert without == ["TimmWrapperImageProcessor", "TimmWrapperImageProcessor"]
