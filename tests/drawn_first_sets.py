"""The first half of the published data sets, drawn in their official layouts: NIH to BIMCV.

"ZZPHI" marks what must not get out: reports, dates, names, identifiers.
"""

import gzip
import json

import numpy as np
from drawn_data_sets import grey, text
from drawn_dicom import draw
from PIL import Image


def dicom(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    draw(path, np.arange(48, dtype=np.uint16).reshape(6, 8), BitsStored=12)
    return path


def packed(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content.encode()))
    return path


def nih(root):
    header = (
        "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,"
        "View Position,OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],\n"
    )
    rows = (
        "00000001_000.png,Cardiomegaly|Effusion,0,1,058Y,M,PA,2682,2749,0.143,0.143,\n"
        "00000001_001.png,No Finding,1,1,058Y,M,PA,2894,2729,0.143,0.143,\n"
        "00000002_000.png,Pleural_Thickening,0,2,414Y,F,AP,2500,2048,0.168,0.168,\n"
        "00000003_000.png,Hernia,0,3,009M,F,PA,2582,2991,0.143,0.143,\n"
    )
    text(root / "Data_Entry_2017.csv", header + rows)
    text(root / "train_val_list.txt", "00000001_000.png\n00000001_001.png\n00000002_000.png\n")
    text(root / "test_list.txt", "00000003_000.png")
    text(
        root / "BBox_List_2017.csv",
        "Image Index,Finding Label,Bbox [x,y,w,h],,,\n"
        "00000001_000.png,Cardiomegaly,225.08,547.01,86.77,79.18,,,\n"
        "00000001_000.png,Infiltrate,1.5,2.5,3.5,4.5\n",
    )
    labels = " ".join("0" * 14)
    for file, names in (
        ("train_list.txt", ["00000003_000.png"]),
        ("val_list.txt", ["00000002_000.png"]),
        ("test_list.txt", ["00000001_000.png", "00000001_001.png"]),
    ):
        text(root / "labels" / file, "".join(f"{name} {labels}\n" for name in names))
    for i, name in enumerate(("00000001_000", "00000001_001", "00000002_000", "00000003_000")):
        grey(root / f"images_{i + 1:03}" / "images" / f"{name}.png", 10 * i)
    return root


CHEXPERT = (
    "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Enlarged Cardiomediastinum,Cardiomegaly,"
    "Lung Opacity,Lung Lesion,Edema,Consolidation,Pneumonia,Atelectasis,Pneumothorax,"
    "Pleural Effusion,Pleural Other,Fracture,Support Devices\n"
)


def chexpert(root):
    train = (
        "CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg,"
        "Female,68,Frontal,AP,1.0,,,,,,,,,0.0,,,,1.0\n"
        "CheXpert-v1.0-small/train/patient00002/study2/view1_frontal.jpg,"
        "Male,0,Frontal,PA,,,-1.0,1.0,,-1.0,,,,,0.0,,1.0,\n"
        "CheXpert-v1.0-small/train/patient00002/study2/view2_lateral.jpg,"
        "Male,0,Lateral,,,,-1.0,1.0,,-1.0,,,,,0.0,,1.0,\n"
    )
    valid = (
        "CheXpert-v1.0-small/valid/patient64541/study1/view1_frontal.jpg,"
        "Male,73,Frontal,AP" + ",0.0,1.0,1.0,1.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0\n"
    )
    text(root / "train.csv", CHEXPERT + train)
    text(root / "valid.csv", CHEXPERT + valid)
    for line in (train + valid).splitlines():
        grey(root / line.split(",")[0].removeprefix("CheXpert-v1.0-small/"))
    return root


def mimic_cxr(root):
    images = (
        ("d1-aaaa", "50414267", "10000032", "train", "PA", "3056", "2544"),
        ("d2-aaaa", "50414267", "10000032", "train", "LATERAL", "3056", "2544"),
        ("d3-aaaa", "53189527", "10000980", "validate", "AP", "2022", "2022"),
        ("d4-aaaa", "57000000", "18000123", "test", "", "2022", "2022"),
    )
    findings = CHEXPERT.strip().split(",")[5:]
    split = "dicom_id,study_id,subject_id,split\n"
    metadata = (
        "dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition,Rows,"
        "Columns,StudyDate,StudyTime\n"
    )
    for image, study, subject, part, view, rows, columns in images:
        split += f"{image},{study},{subject},{part}\n"
        metadata += f"{image},{subject},{study},ZZPHI,{view},{rows},{columns},ZZPHI,ZZPHI\n"
        grey(root / f"files/p{subject[:2]}/p{subject}/s{study}/{image}.jpg")
    labels = f"subject_id,study_id,{','.join(sorted(findings))}\n"
    ones = {"50414267": {"Edema": "1.0", "Pneumonia": "-1.0"}, "53189527": {"No Finding": "1.0"}}
    for study, cells in ones.items():
        labels += f"1,{study}," + ",".join(cells.get(f, "") for f in sorted(findings)) + "\n"
    packed(root / "mimic-cxr-2.0.0-split.csv.gz", split)
    packed(root / "mimic-cxr-2.0.0-metadata.csv.gz", metadata)
    packed(root / "mimic-cxr-2.0.0-chexpert.csv.gz", labels)
    text(root / "mimic-cxr-2.0.0-negbio.csv", labels.replace("-1.0", "0.0"))
    return root


def padchest(root):
    header = (
        ",ImageID,ImageDir,StudyDate_DICOM,StudyID,PatientID,PatientBirth,PatientSex_DICOM,"
        "Projection,MethodLabel,Report,Labels,Rows_DICOM,Columns_DICOM\n"
    )
    rows = (
        "0,1_a.png,0,20140915,1,81,1930.0,F,PA,Physician, ZZPHI informe .,['normal'],2092,2251\n"
        "1,2_a.png,0,20150914,2,82,1929.0,M,L,RNN_model, ZZPHI .,"
        "\"['pulmonary fibrosis', ' kyphosis', 'loculated pleural effusion', '']\",2631,2065\n"
        "2,3_a.png,1,20150914,3,82,nan,O,AP_horizontal,Physician,ZZPHI,['unchanged'],9,9\n"
        "3,4_a.png,1,20150914,4,83,1929.0,M,EXCLUDE,Physician,ZZPHI,['exclude'],9,9\n"
        "4,5_a.png,1,20150914,5,84,1929.0,M,PA,Physician,ZZPHI,nan,9,9\n"
    )
    text(root / "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv", header + rows)
    for name in ("0/1_a", "0/2_a", "1/3_a", "1/4_a", "1/5_a"):
        path = root / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((6, 8), 40_000, dtype=np.uint16)).save(path)
    return root


def vindr_cxr(root):
    findings = ["Cardiomegaly", "ILD", "Nodule/Mass", "Pneumonia", "No finding"]
    header = f"image_id,rad_id,{','.join(findings)}\n"
    text(
        root / "annotations" / "image_labels_train.csv",
        header
        + "aa,R1,1,0,0,0,0\naa,R2,1,1,0,0,0\naa,R3,0,0,0,0,0\n"
        + "bb,R8,0,0,0,0,1\nbb,R9,0,0,0,0,1\nbb,R10,0,0,0,0,1\n",
    )
    text(
        root / "annotations" / "annotations_train.csv",
        "image_id,rad_id,class_name,x_min,y_min,x_max,y_max\n"
        "aa,R1,Cardiomegaly,691.0,1375.0,1653.0,1831.0\nbb,R8,No finding,,,,\n",
    )
    text(
        root / "annotations" / "image_labels_test.csv",
        header.replace("rad_id,", "") + "cc,0,0,1,0,0\n",
    )
    text(
        root / "annotations" / "annotations_test.csv",
        "image_id,class_name,x_min,y_min,x_max,y_max\ncc,Nodule/Mass,1,2,3,5\n",
    )
    for name in ("train/aa", "train/bb", "test/cc"):
        dicom(root / f"{name}.dicom")
    return root


def vindr_kaggle(root):
    text(
        root / "train.csv",
        "image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max\n"
        "aa,No finding,14,R11,,,,\naa,No finding,14,R7,,,,\naa,Cardiomegaly,3,R10,1,2,3,4\n"
        "bb,Cardiomegaly,3,R10,1,2,3,4\nbb,Cardiomegaly,3,R9,1,2,3,5\nbb,ILD,5,R8,1,2,9,9\n",
    )
    for name in ("aa", "bb"):
        dicom(root / "train" / f"{name}.dicom")
    return root


def vindr_pcxr(root):
    header = "image_id,rad_ID,No finding,Bronchitis,Brocho-pneumonia,Bronchiolitis,CPAM\n"
    text(root / "image_labels_train.csv", header + "aa,R1,0,0,1,0,0\nbb,R2,1,0,0,0,0\n")
    text(root / "image_labels_test.csv", header + "cc,R1,0,1,0,0,1\n")
    text(
        root / "annotations_train.csv",
        "image_id,rad_ID,class_name,class_id,x_min,y_min,x_max,y_max\n"
        "aa,R1,Reticulonodular opacity,3,10.5,20,30.5,60\n",
    )
    for name in ("train/aa", "train/bb", "test/cc"):
        dicom(root / f"{name}.dicom")
    return root


def rsna(root):
    text(
        root / "stage_2_train_labels.csv",
        "patientId,x,y,width,height,Target\n"
        "aa,,,,,0\nbb,264.0,152.0,213.0,379.0,1\nbb,562.0,152.0,256.0,453.0,1\ncc,,,,,0\n",
    )
    text(
        root / "stage_2_detailed_class_info.csv",
        "patientId,class\naa,No Lung Opacity / Not Normal\nbb,Lung Opacity\nbb,Lung Opacity\n"
        "cc,Normal\n",
    )
    for name in ("aa", "bb", "cc"):
        dicom(root / "stage_2_train_images" / f"{name}.dcm")
    dicom(root / "stage_2_test_images" / "dd.dcm")
    return root


def rsna_mapping(root):
    pairs = (("aa", "00000012_003.png"), ("bb", "00000012_000.png"), ("cc", "00000007_000.png"))
    entries = [
        {"subset_img_id": ours, "img_id": theirs, "orig_labels": ["ZZPHI"], "SOPInstanceUID": "1"}
        for ours, theirs in pairs
    ]
    text(root / "pneumonia-challenge-dataset-mappings_2018.json", json.dumps(entries))
    return root


def siim(root):
    # 1024 rows a column: two pixels of column 0 from row 3, then row 2 of column 1.
    text(
        root / "stage_2_train.csv",
        "ImageId, EncodedPixels\n1.2.3,3 2 1021 1\n1.2.3,1048575 1\n1.2.4,-1\n",
    )
    for name in ("1.2.3", "1.2.4"):
        dicom(root / "dicom-images-train" / f"{name}.7" / f"{name}.8" / f"{name}.dcm")
    return root


def covidx(root):
    text(root / "train.txt", "379 a b (1).png positive cohen\n12 c.png negative rsna\n")
    text(root / "val.txt", "379 v.png positive bimcv\n")
    text(root / "test.txt", "MIDRC-1 t.png negative midrc\n")
    for name in ("train/a b (1).png", "train/c.png", "val/v.png", "test/t.png"):
        grey(root / name)
    return root


def cohen(root):
    header = (
        "patientid,offset,sex,age,finding,RT_PCR_positive,survival,view,modality,date,location,"
        "folder,filename,doi,url,license,clinical notes,other notes,\n"
    )
    rows = (
        "2,0,M,65,Pneumonia/Viral/COVID-19,Y,Y,PA,X-ray,ZZPHI,ZZPHI,images,a.jpg,,,"
        'CC BY-NC-SA 4.0,"ZZPHI ""quoted""\nsecond line",,\n'
        "2,3,M,65,Pneumonia/Viral/COVID-19,Y,Y,L,X-ray,ZZPHI,ZZPHI,images,b.jpg,,,CC BY 4.0,,,\n"
        "4,0,,,todo,,,AP Supine,X-ray,ZZPHI,ZZPHI,images,c.jpg,,,,,,\n"
        "5,0,F,,Pneumonia,,,Axial,CT,ZZPHI,ZZPHI,volumes,d.nii.gz,,,,,,\n"
        "6,0,F,30,No Finding,,,AP,X-ray,ZZPHI,ZZPHI,images,e.jpg,,,,,,\n"
    )
    text(root / "metadata.csv", header + rows)
    for name in "abce":
        grey(root / "images" / f"{name}.jpg")
    grey(root / "annotations" / "lungVAE-masks" / "a_mask.png", 255)
    return root


def bimcv_covid(root):
    text(
        root / "derivatives" / "labels" / "labels_covid_posi.tsv",
        "\tPatientID\tReportID\tReport\tLabels\tLocalizations\n"
        "0\tsub-S03044\tses-E06093\tZZPHI\t['COVID 19', ' pneumonia']\t[]\n"
        "1\tsub-S03045\tses-E06094\tZZPHI\t['COVID 19 uncertain', 'kyphosis']\t[]\n"
        "2\tsub-S03045\tses-E06095\tZZPHI\t['normal']\t[]\n",
    )
    text(
        root / "participants.tsv",
        "participant\tmodality_dicom\tbody_parts\tage\tgender\n"
        "sub-S03044\t['CR']\t[['CHEST']]\t[71]\tM\n"
        "sub-S03045\t['CR', 'DX']\t[['CHEST']]\t[48, 49]\tF\n",
    )
    for name in (
        "sub-S03044/ses-E06093/mod-rx/sub-S03044_ses-E06093_run-1_bp-chest_vp-ap_dx",
        "sub-S03045/ses-E06094/mod-rx/sub-S03045_ses-E06094_run-1_bp-chest_vp-pa_cr",
        "sub-S03045/ses-E06094/mod-rx/sub-S03045_ses-E06094_run-1_bp-chest_vp-lateral_cr",
        "sub-S03045/ses-E06095/mod-rx/sub-S03045_ses-E06095_run-1_bp-chest_vp-pa_cr",
        "sub-S03046/ses-E06096/mod-rx/sub-S03046_ses-E06096_run-1_bp-chest_vp-pa_cr",
    ):
        grey(root / f"{name}.png")
        text(root / f"{name}.json", '{"ZZPHI": 1}')
    text(root / "sub-S03046" / "ses-E06096" / "mod-ct" / "x.nii.gz", "")
    return root


LAYOUTS = {
    "nih": nih,
    "chexpert": chexpert,
    "mimic_cxr": mimic_cxr,
    "padchest": padchest,
    "vindr_cxr": vindr_cxr,
    "vindr_pcxr": vindr_pcxr,
    "rsna": rsna,
    "siim": siim,
    "covidx": covidx,
    "cohen": cohen,
    "bimcv_covid": bimcv_covid,
}
