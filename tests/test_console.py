"""What the command line shows goes where it should."""

import json
import warnings

from everlearn.console import Bar, plain_warnings, print_figures, print_json


def test_progress_goes_to_standard_error_alone(capsys):
    with Bar("comparing", quiet=False) as bar:
        bar.move(0.5, 1, 2)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "1/2 runs" in shown.err


def test_a_quiet_bar_says_nothing(capsys):
    with Bar("comparing", quiet=True) as bar:
        bar.move(1.0, 2, 2)
    assert capsys.readouterr() == ("", "")


def test_json_is_read_back(capsys):
    assert print_json({"a": [1, None]}) == 0
    assert json.loads(capsys.readouterr().out) == {"a": [1, None]}


def test_figures_show_numbers_and_leave_lists_out(capsys):
    print_figures({"matrix": {"matrix": [[1.0]], "average_accuracy": 0.98765}, "plasticity": {}})
    assert capsys.readouterr().out == "matrix: average_accuracy 0.9877\n"


def test_a_long_title_leaves_room_for_the_time_left(capsys):
    with Bar("comparing on " + "x" * 200, quiet=False) as bar:
        bar.move(0.5, 1, 2)
    shown = capsys.readouterr().err
    assert "1/2 runs" in shown
    assert "left" in shown


def test_a_warning_is_one_line_said_once(capsys):
    with plain_warnings():
        for _ in range(2):
            warnings.warn("2 of 9 rows are left out", stacklevel=1)
    assert capsys.readouterr().err == "everlearn: warning: 2 of 9 rows are left out\n"
