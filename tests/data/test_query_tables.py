"""Tables of questions: three kinds of cells, and every fault with its place."""

import pytest
import torch

from everlearn.core.errors import DataError
from everlearn.data.folders import roots
from everlearn.data.query_tables import animals, question_table


def table(folder, text):
    path = folder / "t.csv"
    path.write_text(text)
    return str(path)


def test_yes_no_and_unknown(tmp_path):
    problem = question_table(table(tmp_path, "a,q,r\nx,Yes,?\ny,no,1\n"), noise=0.2)
    assert problem.likelihood.tolist() == [[0.8, 0.5], [0.2, 0.8]]
    assert (problem.answer_names, problem.query_names, problem.horizon) == (("x", "y"), ("q", "r"), 2)


def test_probabilities_are_kept_from_certainty(tmp_path):
    problem = question_table(table(tmp_path, "a,q,r\nx,1.0,0.3\ny,0.0,\n"))
    assert problem.likelihood.tolist() == [[0.95, 0.3], [0.05, 0.5]]


def test_strengths_are_squashed_about_their_mean(tmp_path):
    problem = question_table(table(tmp_path, "a,q,r\nx,0,50\ny,100,50\n"))
    assert problem.likelihood.tolist() == [[0.05, 0.5], [0.95, 0.5]]
    soft = question_table(table(tmp_path, "a,q,r\nx,0,50\ny,100,50\n"), scale=50.0)
    assert soft.likelihood[1, 0].item() == pytest.approx(torch.sigmoid(torch.tensor(1.0)).item(), abs=1e-6)
    assert "scale=50.0" in soft.spec


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,q,r\nx,yes\ny,no,no\n", ":2: 3 cells are expected"),
        ("a,q,q\nx,yes,no\ny,no,no\n", "'q' stands twice"),
        ("a,q,r\nx,yes,no\nx,no,no\n", "'x' stands twice"),
        ("a,q,r\nx,yes,no\ny,yes,no\n", "'x' and 'y' have the same answers"),
        ("a,q,r\nx,yes,0.5\ny,no,0.2\n", "question 'q': 'yes' is no number"),
        ("a,q,r\n", "a header and two objects"),
    ],
)
def test_faults_are_named(tmp_path, text, words):
    with pytest.raises(DataError, match=words):
        question_table(table(tmp_path, text))


def test_a_missing_file_is_a_data_error(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        question_table(str(tmp_path / "none.csv"))


@pytest.mark.skipif(
    not any((root / "animals_attributes").is_dir() for root in roots()), reason="animals_attributes is not there"
)
def test_animals_are_as_uncertain_as_they_should_be():
    """P(yes) = clip(sigmoid((s - 20.805) / 8), .05, .95); mean min(p, 1 - p) = .136."""
    problem = animals()
    assert (len(problem.answers), problem.size) == (50, 85)
    assert float(torch.minimum(problem.likelihood, 1 - problem.likelihood).mean()) == pytest.approx(0.136, abs=5e-4)
    black = problem.likelihood[problem.answer_names.index("antelope"), 0]  # strength 1.88; the centre has three digits
    assert float(black) == pytest.approx(torch.sigmoid(torch.tensor((1.88 - 20.805) / 8)).item(), abs=1e-4)
    assert animals(flip=0.1).spec == "animals(horizon=20, flip=0.1)"
