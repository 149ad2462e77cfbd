"""The figure of a study shows every arm."""

from PIL import Image

from everlearn.studies.figure import _curve, draw


def test_the_figure_grows_with_the_arms(tmp_path):
    found = {"values": [0.1, 0.2], "mean": 0.15, "low": 0.1, "high": 0.2}
    arm = {"label": "replay", "role": "system", "measures": {"accuracy": found}, "curves": {}}
    single = {"values": [0.3], "mean": 0.3, "low": None, "high": None}
    alone = {**arm, "label": "one seed", "role": "baseline", "measures": {"accuracy": single}}
    record = {"title": "t", "verdict": "HOLDS", "measures": {"accuracy": "accuracy"}, "scale": "quick"}
    draw(record | {"arms": [arm]}, tmp_path / "one.png")
    draw(record | {"arms": [arm, *[{**alone, "label": str(number)} for number in range(6)], arm]}, tmp_path / "three.png")
    with Image.open(tmp_path / "one.png") as one, Image.open(tmp_path / "three.png") as three:
        assert three.height > one.height
        assert len(three.convert("RGB").getcolors(1_000_000)) > 2  # more than paper and ink


def test_every_measure_and_every_curve_has_a_panel(tmp_path):
    found = {"values": [0.1, 0.2], "mean": 0.15, "low": 0.1, "high": 0.2}
    arm = {"label": "replay", "role": "system", "measures": {"accuracy": found, "forgetting": found}, "curves": {}}
    bent = {**arm, "curves": {"accuracy over tasks": [[1, 0.2, 0.1, 0.3], [2, 0.4, 0.3, 0.5]]}}
    record = {"title": "t", "verdict": "HOLDS", "scale": "quick"}
    two = {"accuracy": "accuracy", "forgetting": "forgetting"}
    draw(record | {"measures": {"accuracy": "accuracy"}, "arms": [arm]}, tmp_path / "one.png")
    draw(record | {"measures": two, "arms": [arm]}, tmp_path / "two.png")
    draw(record | {"measures": two, "arms": [bent]}, tmp_path / "three.png")
    sizes = []
    for name in ("one", "two", "three"):
        with Image.open(tmp_path / f"{name}.png") as image:
            sizes.append(image.size)
    assert sizes[1][0] > 1.5 * sizes[0][0] and sizes[1][1] == sizes[0][1]
    assert sizes[2][1] > 1.5 * sizes[1][1]


def test_a_curve_says_what_lies_along_it():
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    arm = {
        "label": "sparse",
        "role": "system",
        "measures": {},
        "curves": {"by density": [[0.1, 0.2, 0.1, 0.3], [1.0, 0.4, 0.3, 0.5]]},
    }
    record = {"arms": [arm], "axes": {"by density": "density (logarithmic)"}}
    figure, (told, plain) = pyplot.subplots(1, 2)
    _curve(told, record, "by density")
    _curve(plain, {"arms": [arm]}, "by density")
    assert (told.get_xlabel(), told.get_xscale()) == ("density (logarithmic)", "log")
    assert (plain.get_xlabel(), plain.get_xscale()) == ("tasks", "linear")
    pyplot.close(figure)
