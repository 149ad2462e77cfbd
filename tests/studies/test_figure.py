"""The figure of a study shows every arm."""

from PIL import Image

from everlearn.studies.figure import draw


def test_the_figure_grows_with_the_arms(tmp_path):
    arm = {"label": "replay", "role": "system", "values": [0.1, 0.2], "mean": 0.15, "low": 0.1, "high": 0.2}
    alone = {**arm, "label": "one seed", "role": "baseline", "values": [0.3], "mean": 0.3, "low": None, "high": None}
    record = {"title": "t", "verdict": "HOLDS", "measure": "accuracy", "scale": "quick"}
    draw(record | {"arms": [arm]}, tmp_path / "one.png")
    draw(record | {"arms": [arm, alone, arm]}, tmp_path / "three.png")
    with Image.open(tmp_path / "one.png") as one, Image.open(tmp_path / "three.png") as three:
        assert three.height > one.height
        assert len(three.convert("RGB").getcolors(1_000_000)) > 2  # more than paper and ink
