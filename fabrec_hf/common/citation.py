"""How to cite the method; the cards of models and metrics show it."""

__all__ = ["CITATION"]

CITATION = """
@inproceedings{browatzki2020fabrec,
    title = {3FabRec: Fast Few-shot Face alignment by Reconstruction},
    author = {Browatzki, Bj{\\"o}rn and Wallraven, Christian},
    booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR)},
    year = {2020}
}
"""
