"""The error tree: statuses, and that errors survive the way between processes."""

import pickle
from collections.abc import Iterator

import pytest

from serve_app import errors


def below(kind: type[errors.TierwiseError]) -> Iterator[type[errors.TierwiseError]]:
    for child in kind.__subclasses__():
        yield child
        yield from below(child)


FOR_CLIENTS = [kind for kind in below(errors.TierwiseError) if kind not in (errors.SettingsError, errors.CalibrationError)]


@pytest.mark.parametrize("kind", FOR_CLIENTS)
def test_an_error_survives_the_way_between_processes(kind: type[errors.TierwiseError]) -> None:
    error = pickle.loads(pickle.dumps(kind("text", code="c", param="p", retry_after=2.0)))  # noqa: S301 - our own bytes
    assert type(error) is kind
    assert (error.message, str(error), error.code, error.param, error.retry_after) == ("text", "text", "c", "p", 2.0)


def test_settings_problems_survive_too() -> None:
    error = pickle.loads(pickle.dumps(errors.SettingsError(["one", "two"])))  # noqa: S301 - our own bytes
    assert (error.problems, error.message) == (["one", "two"], "one\ntwo")


@pytest.mark.parametrize("kind", FOR_CLIENTS)
def test_the_type_follows_from_the_status(kind: type[errors.TierwiseError]) -> None:
    if kind is errors.BudgetSpent:  # OpenAI's own type, which says that waiting a minute does not help
        assert (kind.status, kind.type) == (429, "insufficient_quota")
        return
    expected = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
    assert kind.type == expected.get(kind.status, "invalid_request_error" if kind.status < 500 else "api_error")


def test_the_drawn_tree_is_the_real_one() -> None:
    drawn = {line.split("──")[1].split()[0]: line for line in (errors.__doc__ or "").splitlines() if "──" in line}
    assert set(drawn) == {kind.__name__ for kind in below(errors.TierwiseError)}
    assert all(str(kind.status) in drawn[kind.__name__] for kind in FOR_CLIENTS)
