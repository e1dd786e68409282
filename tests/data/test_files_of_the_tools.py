"""Files that the tools' own libraries wrote: labelme 6.3.1, datumaro 1.13.12, label-studio-sdk 2.1.2, dlib 20.0.1.

Each was told the same face: the eyes at (20.5, 10.25) and (40.5, 10.25), the nose at (30, 20), and a box from (5, 6)
to (45, 40). They are as they were written, but for the indentation and the bytes of labelme's picture.
"""

import numpy as np
import pytest


datasets = pytest.importorskip("datasets")

from fabrec_hf.data.readers import guess_kind  # noqa: E402
from support.hand_written import EYES, picture, read, same  # noqa: E402


FACE = ([20.5, 10.25], [40.5, 10.25], [30, 20])

# labelme's LabelFile; the picture is a pixel here
LABELME = """{"version": "6.3.1", "flags": {}, "shapes": [
 {"label": "left_eye", "points": [[20.5, 10.25]], "group_id": 1, "shape_type": "point", "flags": {},
  "description": "", "mask": null},
 {"label": "right_eye", "points": [[40.5, 10.25]], "group_id": 1, "shape_type": "point", "flags": {"occluded": true},
  "description": "", "mask": null},
 {"label": "nose", "points": [[30, 20]], "group_id": 1, "shape_type": "point", "flags": {},
  "description": "", "mask": null},
 {"label": "face", "points": [[5, 6], [45, 40]], "group_id": 1, "shape_type": "rectangle", "flags": {},
  "description": "", "mask": null}],
 "imagePath": "a.png",
 "imageData": "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGPg5OQEAABFACL77zPZAAAAAElFTkSuQmCC",
 "imageHeight": 48, "imageWidth": 64}"""

# datumaro's exporter `cvat`
CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version><meta><task><id></id><name>train</name><size>1</size><mode>annotation</mode>
<overlap></overlap><start_frame>0</start_frame><stop_frame>1</stop_frame><frame_filter></frame_filter>
<z_order>True</z_order><labels>
<label><name>left_eye</name><attributes></attributes></label><label><name>right_eye</name><attributes></attributes></label>
<label><name>nose</name><attributes></attributes></label><label><name>face</name><attributes></attributes></label>
</labels></task></meta>
<image id="0" name="a.png" width="64" height="48">
<points label="left_eye" occluded="0" outside="0" keyframe="0" points="20.50,10.25" z_order="0" group_id="1"></points>
<points label="right_eye" occluded="1" outside="0" keyframe="0" points="40.50,10.25" z_order="0" group_id="1"></points>
<points label="nose" occluded="0" outside="0" keyframe="0" points="30.00,20.00" z_order="0" group_id="1"></points>
<box label="face" occluded="0" outside="0" keyframe="0" xtl="5.00" ytl="6.00" xbr="45.00" ybr="40.00" z_order="0"
 group_id="1"></box>
</image></annotations>"""

# datumaro's exporter `coco_person_keypoints`
COCO = """{"licenses":[{"name":"","id":0,"url":""}],
"info":{"contributor":"","date_created":"","description":"","url":"","version":"","year":""},
"categories":[{"id":1,"name":"face","supercategory":"","keypoints":["left_eye","right_eye","nose"],
"skeleton":[[0,1],[1,2]]}],
"images":[{"id":1,"width":64,"height":48,"file_name":"a.png","license":0,"flickr_url":"","coco_url":"",
"date_captured":0}],
"annotations":[{"id":1,"image_id":1,"category_id":1,"segmentation":[],"area":1360.0,"bbox":[5.0,6.0,40.0,34.0],
"iscrowd":0,"keypoints":[20.5,10.25,2,40.5,10.25,1,30.0,20.0,2],"num_keypoints":3}]}"""

# the short form that label-studio-sdk's converter makes of an annotation; its places are percent of 64 x 48
LABEL_STUDIO = """[{"image": "/data/local-files/?d=train/a.png", "id": 2,
"box": [{"x": 7.8125, "y": 12.5, "width": 62.5, "height": 70.83333333333333, "rotation": 0,
 "rectanglelabels": ["face"], "original_width": 64, "original_height": 48}],
"points": [{"x": 32.03125, "y": 21.354166666666668, "width": 0.5, "keypointlabels": ["left_eye"],
 "original_width": 64, "original_height": 48},
 {"x": 63.28125, "y": 21.354166666666668, "width": 0.5, "keypointlabels": ["right_eye"], "original_width": 64,
 "original_height": 48},
 {"x": 46.875, "y": 41.666666666666664, "width": 0.5, "keypointlabels": ["nose"], "original_width": 64,
 "original_height": 48}],
"annotator": null, "annotation_id": null, "created_at": null, "updated_at": null, "lead_time": null}]"""

# dlib's save_image_dataset_metadata, which is imglab's, too; dlib holds whole pixels
IMGLAB = """<?xml version='1.0' encoding='ISO-8859-1'?>
<?xml-stylesheet type='text/xsl' href='image_metadata_stylesheet.xsl'?>
<dataset>
<name>imglab dataset</name>
<comment>Created by imglab tool.</comment>
<images>
  <image file='a.png'>
    <box top='6' left='5' width='40' height='34'>
      <part name='left_eye' x='20' y='10'/>
      <part name='nose' x='30' y='20'/>
      <part name='right_eye' x='40' y='10'/>
    </box>
  </image>
</images>
</dataset>
"""


@pytest.mark.parametrize(
    ("kind", "name", "content", "visibility"),
    [
        ("labelme", "a.json", LABELME, [True, False, True]),
        ("cvat", "train.xml", CVAT, [True, False, True]),
        ("coco", "person_keypoints_train.json", COCO, [True, False, True]),
        ("labelstudio", "result.json", LABEL_STUDIO, None),
        ("dlib", "faces.xml", IMGLAB, None),
    ],
)
def test_a_file_that_the_tool_itself_has_written(tmp_path, kind, name, content, visibility):
    picture(tmp_path / "a.png", (64, 48))
    (tmp_path / name).write_text(content)
    assert guess_kind(tmp_path) == kind
    (row,) = read(kind, tmp_path, scheme=EYES)
    same(row, *(np.trunc(FACE) if kind == "dlib" else FACE))
    np.testing.assert_allclose(row["box"], [5, 6, 40, 34], atol=1e-5)
    assert row.get("visibility") == visibility
    assert row["image"]["path"] == str(tmp_path / "a.png")
