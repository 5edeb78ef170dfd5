"""The wording rule, and the one check that many modules share."""

import pickle

import pytest

from tokenspace import errors
from tokenspace.errors import SettingError, TokenspaceError, check_at_least

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, TokenspaceError)]


@pytest.mark.parametrize(
    ("value", "next_step", "message"),
    [
        (0, "Use 1", "`stride` must be at least 1, but is 0. Use 1."),
        ("a\nb", "Use 1.", r"`stride` must be at least 1, but is 'a\nb'. Use 1."),
        (None, "Did you mean 1?", "`stride` must be at least 1, but is None. Did you mean 1?"),
        ((1, 2), "Use 1", "`stride` must be at least 1, but is (1, 2). Use 1."),
    ],
)
def test_a_message_is_one_line_of_name_rule_value_and_next_step(value, next_step, message):
    assert str(TokenspaceError("stride", "be at least 1", value, next_step)) == message


def test_a_long_value_is_cut():
    message = str(TokenspaceError("text", "be short", "x" * 10_000, "Cut it"))
    assert message == "`text` must be short, but is '" + "x" * 119 + "…. Cut it."


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_is_a_value_error_of_this_package(kind):
    assert issubclass(kind, ValueError)
    with pytest.raises(TokenspaceError):
        raise kind("a", "be b", "c", "Do d")


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_crosses_processes_whole(kind):
    error = kind("a", "be b", 3, "Do d")
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy)) == (kind, str(error))


def test_numbers_from_the_bound_on_pass():
    check_at_least(2, stride=2, batch_size=3)


@pytest.mark.parametrize("value", [1, -5, 2.0, "3", None, True, float("nan")])
def test_what_is_below_the_bound_or_no_whole_number_is_refused(value):
    with pytest.raises(SettingError) as caught:
        check_at_least(2, batch_size=9, stride=value)
    assert str(caught.value) == f"`stride` must be a whole number of at least 2, but is {value!r}. Give 2 or more."
