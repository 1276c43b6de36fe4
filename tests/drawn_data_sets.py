"""Published data sets drawn in their official layouts, one function each, a few tiny pictures.

"ZZPHI" marks what must not get out: reports, names, identifiers.
"""

import json

import numpy as np
from PIL import Image


def grey(path, value=100, size=(8, 6)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, value).save(path)
    return path


def text(path, content, encoding="utf-8"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding=encoding, newline="")
    return path


def kermany(root):
    for name in (
        "train/PNEUMONIA/BACTERIA-1008087-0001",
        "train/PNEUMONIA/BACTERIA-1008087-0002",
        "train/PNEUMONIA/VIRUS-1008467-0001",
        "train/NORMAL/NORMAL-1003233-0001",
        "test/PNEUMONIA/VIRUS-1008470-0001",
        "test/NORMAL/NORMAL-1003234-0001",
    ):
        grey(root / "chest_xray" / f"{name}.jpeg")
    return root


def montgomery(root):
    for name, reading in (
        ("MCUCXR_0001_0", "Patient's Sex: F \nPatient's Age: 027Y\nnormal\n"),
        ("MCUCXR_0104_1", "Patient's Sex: M\r\nPatient's Age: 006M\r\nZZPHI cavity RUL\r\n"),
    ):
        grey(root / "MontgomerySet" / "CXR_png" / f"{name}.png")
        text(root / "MontgomerySet" / "ClinicalReadings" / f"{name}.txt", reading)
        for part, value in (("leftMask", 255), ("rightMask", 0)):
            grey(root / "MontgomerySet" / "ManualMask" / part / f"{name}.png", value)
    return root


def shenzhen(root):
    for name, reading in (
        ("CHNCXR_0001_0", "male 45yrs\nnormal"),
        ("CHNCXR_0330_1", "Femal, 16month\nZZPHI PTB in the right upper field"),
        ("CHNCXR_0331_1", "unknown"),
    ):
        grey(root / "ChinaSet_AllFiles" / "CXR_png" / f"{name}.png")
        text(root / "ChinaSet_AllFiles" / "ClinicalReadings" / f"{name}.txt", reading)
    grey(root / "ChinaSet_AllFiles" / "mask" / "CHNCXR_0001_0_mask.png", 255)
    return root


def tbx11k(root):
    categories = [
        {"id": 1, "name": "ActiveTuberculosis"},
        {"id": 2, "name": "ObsoletePulmonaryTuberculosis"},
        {"id": 3, "name": "PulmonaryTuberculosis"},
    ]
    parts = {
        "train": (["health/h0001", "sick/s0001", "tb/tb0005"], [(3, 1, [10.5, 20, 30, 40])]),
        "val": (["tb/tb0006", "tb/tb1199"], [(1, 2, [1, 2, 3, 4]), (1, 1, [5, 6, 7, 8])]),
    }
    for split, (names, drawn) in parts.items():
        images = [
            {"id": i, "file_name": f"{n}.png", "width": 512, "height": 512}
            for i, n in enumerate(names, start=1)
        ]
        annotations = [
            {"id": i, "image_id": image, "category_id": category, "bbox": box}
            for i, (image, category, box) in enumerate(drawn)
        ]
        document = {"images": images, "annotations": annotations, "categories": categories}
        folder = root / "TBX11K"
        text(folder / "annotations/json" / f"TBX11K_{split}.json", json.dumps(document))
        for name in names:
            grey(folder / "imgs" / f"{name}.png")
    text(root / "TBX11K/lists/all_test.txt", "test/t0001.png\nextra/mc/MCUCXR_0001_0.png\n")
    grey(root / "TBX11K/imgs/test/t0001.png")
    return root


def jsrt(root):
    for name, value in (("JPCLN001", 1000), ("JPCLN002", 2000), ("JPCNN001", 3000)):
        film = np.full((2048, 2048), value, ">u2")
        film[:, :1024] = 4095
        (root / "All247images").mkdir(parents=True, exist_ok=True)
        (root / "All247images" / f"{name}.IMG").write_bytes(film.tobytes())
    table = (
        "JPCLN001.IMG\t5\t14\t53\tmale\t1634\t692\tmalignant\tl.upper lobe\tlung cancer\r"
        "JPCLN002.IMG\t3\t?\t?\tfemale\t1614\t1090\tbenign\tl.upper\tZZPHI nécrosis\r"
    )
    text(root / "Clinical_Information/CLNDAT_EN.txt", table, "latin-1")
    text(root / "Clinical_Information/CNNDAT_EN.TXT", "JPCNN001.IMG 21 female non-nodule\r")
    for fold, name in (("fold1", "JPCLN001"), ("fold2", "JPCLN002")):
        for organ in ("left lung", "heart"):
            grey(root / fold / "masks" / organ / f"{name}.gif", 255, (1024, 1024))
    pair = Image.new("L", (64, 64))
    pair.paste(200, (32, 0, 64, 64))
    for place in ("BSE_JSRT/BSE_JSRT", "augmented/augmented/train"):
        (root / place).mkdir(parents=True)
        pair.save(root / place / "JPCLN001.png")
    return root


def vindr_ribcxr(root):
    for split, number in (("train", 0), ("val", 1)):
        name = f"VinDr_RibCXR_{split}_{number:03}.png"
        grey(root / "data" / split / "img" / name, size=(8, 6))
        ribs = {f"{side}{n}": {"0": None} for side in "RL" for n in range(1, 11)}
        square = [{"x": x, "y": y} for x, y in ((1, 1), (3, 1), (3, 4), (1, 4))]
        ribs["R1"] = {"0": square}
        document = {"img": {"0": f"data/{split}/img/{name}"}, **ribs}
        place = root / "data" / split / f"Vindr_RibCXR_{split}_mask.json"
        text(place, json.dumps(document))
    return root


def node21(root):
    table = (
        ",height,img_name,label,width,x,y\n"
        "0,10,n0001.mha,1,20,100,200\n1,30,n0001.mha,1,40,300,400\n2,0,c0002.mha,0,0,0,0\n"
    )
    text(root / "cxr_images/proccessed_data/metadata.csv", table)
    header = "NDims = 2\nDimSize = 2 1\nElementType = MET_UCHAR\nElementDataFile = LOCAL\n"
    for name in ("n0001", "c0002"):
        file = text(root / f"cxr_images/proccessed_data/images/{name}.mha", header)
        file.write_bytes(file.read_bytes() + b"\x00\xff")
    return root


REPORT = """<?xml version="1.0" encoding="utf-8"?>
<eCitation><uId id="CXR7"/><MedlineCitation><Article><Abstract>
<AbstractText Label="FINDINGS">ZZPHI mild cardiomegaly.</AbstractText></Abstract></Article>
</MedlineCitation><MeSH>{headings}<automatic>heart</automatic></MeSH>
<parentImage id="CXR7_IM-2263-1001"><caption>PA</caption></parentImage>
<parentImage id="CXR7_IM-2263-2001"/></eCitation>"""


def openi(root):
    headings = "<major>Cardiomegaly/mild</major><major>Hernia, Hiatal</major>"
    text(root / "ecgen-radiology" / "7.xml", REPORT.format(headings=headings))
    for view in ("1001", "2001"):
        grey(root / "NLMCXR_png" / f"CXR7_IM-2263-{view}.png")
    return root


BRAX = (
    "DicomPath,PngPath,PatientID,PatientSex,PatientAge,AccessionNumber,StudyDate,No Finding,"
    "Enlarged Cardiomediastinum,Cardiomegaly,Lung Lesion,Lung Opacity,Edema,Consolidation,"
    "Pneumonia,Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,Support Devices,"
    "ViewPosition,Rows,Columns\n"
)


def brax(root):
    folder = "id_ZZPHI1/Study_1.2.3/Series_4"
    rows = (
        f"Anonymized_DICOMs/{folder}/image-1.dcm,images/{folder}/image-1.png,ZZPHI1,F,85 or more,"
        "ZZPHIA,20110101,,,1.0,,,-1.0,,,0,,,,,1,PA,2000,1500\n"
        f"Anonymized_DICOMs/{folder}/image-2.dcm,images/{folder}/image-2.png,ZZPHI1,F,85 or more,"
        "ZZPHIA,20110101,,,1.0,,,-1.0,,,0,,,,,1,L,2000,1500\n"
    )
    text(root / "master_spreadsheet_update.csv", BRAX + rows)
    for number in (1, 2):
        grey(root / "images" / folder / f"image-{number}.png")
    return root


def chexmask(root):
    columns = "Image Index,Dice RCA (Max),Dice RCA (Mean),Landmarks,Left Lung,Right Lung,Heart"
    rows = (
        f"{columns},Height,Width\n"
        '00000001_000.png,0.9,0.8,"[1,2]",2 3 10 1,17 2,,6,8\n'
        '00000002_000.png,0.9,0.6,"[1,2]",1 1,1 1,1 1,6,8\n'
    )
    text(root / "OriginalResolution" / "ChestX-Ray8.csv", rows)
    return root


LAYOUTS = {
    "brax": brax, "chexmask": chexmask, "jsrt": jsrt, "kermany": kermany,
    "montgomery": montgomery, "node21": node21, "openi": openi, "shenzhen": shenzhen,
    "tbx11k": tbx11k, "vindr_ribcxr": vindr_ribcxr,
}  # fmt: skip
