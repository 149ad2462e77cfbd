"""What a receipt and a moment say of themselves, and that states and policies are the words that the log holds."""

from everlearn.serve.records import After, Answer, Input, Moment, Receipt, State


def test_a_receipt_is_joined_once_it_has_a_number():
    assert not Receipt("a", None).joined
    assert Receipt("a", 3).joined


def test_a_moment_counts_inputs_and_answers():
    asked = Input(1, "a", b"", {}, 0, 1.0)
    told = Answer(2, "a", b"", {}, 0, 1, 0, 1.0, 2.0)
    assert len(Moment(0, 1, 1, 2, (asked,), (told,))) == 2


def test_words_of_the_log_are_text():
    assert (str(State.ACTIVE), State("pruned"), str(After.QUARANTINE)) == ("active", State.PRUNED, "quarantine")
