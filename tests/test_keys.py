"""API keys: where they come from, what is wrong with a file, and that no secret leaves through a log."""

import logging
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from serve_app.domain import Tier
from serve_app.errors import SettingsError
from serve_app.keys import Key, KeyRing, digest, new_key, yaml_lines
from serve_app.settings import Auth

SECRET = "tw-a-very-secret-key"


def row(name: str = "a", secret: str = SECRET, **fields: Any) -> dict[str, Any]:
    return {"id": name, "sha256": digest(secret), **fields}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "keys.yaml"
    write(path, [row()])
    return path


def write(path: Path, content: Any, mode: int = 0o600) -> None:
    """Replaces the file as a careful editor does; its time may not change within one tick of the clock, its inode does."""
    new = path.with_suffix(".new")
    new.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    new.chmod(mode)
    new.replace(path)


def put(path: Path, content: Any) -> None:
    """Writes into the file itself."""
    path.write_text(yaml.safe_dump(content))


def move(path: Path, to: Path) -> None:
    path.replace(to)


def ring(file: Path | None = None, environ: dict[str, str] | None = None) -> KeyRing:
    return KeyRing(Auth(mode="keys", keys_file=None if file is None else str(file)), environ or {})


def problem_of(path: Path) -> str:
    with pytest.raises(SettingsError) as caught:
        ring(path)
    return caught.value.message


def name_of(found: Key | None) -> str | None:
    return None if found is None else found.id


# Where keys come from


def test_keys_of_the_environment_are_found_and_others_are_not() -> None:
    keys = ring(environ={"TIERWISE_API_KEYS": f" one, two ,,sha256:{digest('three').upper()}"})
    assert [keys.find(given) is not None for given in ("one", "two", "three", "four", "one,two", "", digest("one"))] == [True] * 3 + [
        False
    ] * 4


def test_admin_keys_come_from_their_own_variable() -> None:
    keys = ring(environ={"TIERWISE_API_KEYS": "one", "TIERWISE_ADMIN_KEYS": "boss"})
    one, boss = keys.find("one"), keys.find("boss")
    assert one is not None
    assert boss is not None
    assert (one.client().admin, boss.client().admin) == (False, True)


def test_the_id_of_an_environments_key_is_stable_and_tells_nothing_of_it() -> None:
    (first,), (again,) = (list(ring(environ={"TIERWISE_API_KEYS": value}).keys) for value in (SECRET, f"sha256:{digest(SECRET)}"))
    assert first.id == again.id
    assert re.fullmatch(r"env-[0-9a-f]{12}", first.id)
    assert first.id[4:] not in digest(SECRET)


@pytest.mark.parametrize("value", ["", " , "])
def test_keys_are_asked_for_but_there_are_none(value: str) -> None:
    with pytest.raises(SettingsError, match="TIERWISE_API_KEYS holds no keys"):
        ring(environ={"TIERWISE_API_KEYS": value})


@pytest.mark.parametrize("value", ["sha256:12", "sha256:" + "g" * 64, f"sha256:{'a' * 65}"])
def test_a_bad_digest_in_the_environment_is_named_by_its_place(value: str) -> None:
    with pytest.raises(SettingsError) as caught:
        ring(environ={"TIERWISE_API_KEYS": f"good,{value}"})
    assert caught.value.problems == ["TIERWISE_API_KEYS: item 2 is not sha256: and 64 hexadecimal digits"]


def test_a_files_key_carries_its_limits(file: Path) -> None:
    write(file, [row(admin=True, tiers=["large"], threshold=0.3, requests_per_minute=5, monthly_budget_usd=2)])
    found = ring(file).find(SECRET)
    assert found is not None
    client = found.client()
    assert (client.key, client.admin, client.tiers, client.threshold) == ("a", True, (Tier.LARGE,), 0.3)
    assert (found.requests_per_minute, found.tokens_per_minute, found.monthly_budget_usd) == (5, None, 2.0)


def test_a_key_may_use_both_tiers_unless_its_record_says_otherwise(file: Path) -> None:
    found = ring(file).find(SECRET)
    assert found is not None
    assert found.client().tiers == (Tier.SMALL, Tier.LARGE)
    assert found.client().admin is False


# What is wrong with a file


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ([row(requests_per_minut=5)], "keys.0: an unknown field, did you mean 'requests_per_minute'?"),
        ([row(), {**row("b", "x"), SECRET: 1}], "keys.1: an unknown field"),
        ([{"id": "a"}], "keys.0.sha256: field required"),
        ([{"id": "a", "sha256": SECRET}], "keys.0.sha256: string should match pattern"),
        ([row("a b")], "keys.0.id: string should match pattern"),
        ([row(requests_per_minute="5")], "keys.0.requests_per_minute: input should be a valid integer"),
        ([row(requests_per_minute=0)], "keys.0.requests_per_minute: input should be greater than or equal to 1"),
        ([row(monthly_budget_usd=-1)], "keys.0.monthly_budget_usd: input should be greater than 0"),
        ([row(threshold=1.5)], "keys.0.threshold: input should be less than or equal to 1"),
        ([row(tiers=[])], "keys.0.tiers: list should have at least 1 item"),
        ([row(tiers=["medium"])], "keys.0.tiers: input should be 'small' or 'large'"),
        ([SECRET], "keys.0: input should be"),
        ({"keys": [row()]}, "must be a list of at most"),
        (f"- id: a\n  sha256: '{SECRET}\n", "line 3: invalid YAML"),
        (f"- id: a\n  id: {SECRET}\n", "line 2: invalid YAML"),
        (f"- !!python/object:os.system {SECRET}", "invalid YAML"),
        ([row("a"), row("a", "other")], "two keys have the same id: a"),
        ([row("a"), row("b")], "two keys have the same digest: a, b"),
    ],
    ids=range(18),
)
def test_what_is_wrong_is_told_by_its_path_and_without_any_value(file: Path, content: Any, says: str) -> None:
    write(file, content)
    problem = problem_of(file)
    assert says in problem
    assert SECRET not in problem
    assert digest(SECRET) not in problem


def test_a_key_of_the_file_that_the_environment_has_too_is_an_error(file: Path) -> None:
    with pytest.raises(SettingsError, match="two keys have the same digest"):
        ring(file, {"TIERWISE_API_KEYS": SECRET})


def test_a_file_that_is_not_there_keeps_it_from_starting(tmp_path: Path) -> None:
    assert "No such file" in problem_of(tmp_path / "none.yaml")


def test_a_file_that_is_no_text_is_refused(file: Path) -> None:
    file.write_bytes(b"\xff\xfe\x00")
    assert "cannot be read" in problem_of(file) or "invalid YAML" in problem_of(file)


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o640, False), (0o644, True)])
def test_a_file_that_everyone_may_read_is_warned_of(file: Path, mode: int, warned: bool, caplog: pytest.LogCaptureFixture) -> None:
    file.chmod(mode)
    ring(file)
    assert ("chmod o-r" in caplog.text) is warned


# While it is used


async def test_a_changed_file_is_taken_over(file: Path) -> None:
    keys = ring(file)
    write(file, [row("a", "new"), row("b", "second", requests_per_minute=1)])
    await keys.refresh()
    assert [name_of(keys.find(given)) for given in (SECRET, "new", "second")] == [None, "a", "b"]


async def test_keys_of_the_environment_stay_beside_a_changed_file(file: Path) -> None:
    keys = ring(file, {"TIERWISE_API_KEYS": "env"})
    write(file, [])
    await keys.refresh()
    assert keys.find("env") is not None
    assert keys.find(SECRET) is None


async def test_an_unchanged_file_is_not_read_again(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = ring(file)
    monkeypatch.setattr("serve_app.keys._read", lambda path: pytest.fail("read again"))
    await keys.refresh()
    assert keys.problem is None


@pytest.mark.parametrize("content", ["- [", [row(sha256="x")], [row("a"), row("a", "b")], None])
async def test_a_bad_file_keeps_the_old_keys_and_is_told_once(file: Path, content: Any, caplog: pytest.LogCaptureFixture) -> None:
    keys = ring(file)
    if content is None:
        move(file, file.with_suffix(".gone"))
    else:
        write(file, content)
    for _ in range(5):
        await keys.refresh()
    assert keys.find(SECRET) is not None
    assert keys.problem is not None
    assert keys.refused == 1
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert SECRET not in caplog.text
    assert digest(SECRET) not in caplog.text


@pytest.mark.parametrize("gone", [True, False])
async def test_a_good_file_after_a_bad_one_is_taken_over(file: Path, gone: bool) -> None:
    keys = ring(file)
    aside = file.with_suffix(".aside")
    if gone:
        move(file, aside)  # the same file comes back, untouched
        await keys.refresh()
        assert keys.problem is not None
        move(aside, file)
    else:
        write(file, "- [")
        await keys.refresh()
        write(file, [row("b")])
    await keys.refresh()
    assert keys.problem is None
    assert name_of(keys.find(SECRET)) == ("a" if gone else "b")


async def test_a_file_written_in_place_is_seen(file: Path) -> None:
    keys = ring(file)
    put(file, [row("a"), row("b", "second")])
    await keys.refresh()
    assert len(keys) == 2


async def test_without_a_file_there_is_nothing_to_refresh() -> None:
    keys = ring(environ={"TIERWISE_API_KEYS": "one"})
    await keys.refresh()
    assert len(keys) == 1


# Secrets


async def test_no_log_and_no_text_of_an_object_holds_a_key(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    keys = ring(file, {"TIERWISE_API_KEYS": "another-secret"})
    keys.find(SECRET)
    keys.find("wrong-secret")
    write(file, [row()], mode=0o644)
    await keys.refresh()
    write(file, [row(), row("b")])
    await keys.refresh()
    told = caplog.text + repr(keys) + repr(list(keys.keys)) + str(vars(keys)["_fixed"])
    assert [name for name in (SECRET, "another-secret", "wrong-secret") if name in told or digest(name) in told] == []


def test_every_digest_is_compared_whatever_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = ring(environ={"TIERWISE_API_KEYS": "one,two,three"})
    compared: list[bytes] = []

    def compare(known: bytes, given: bytes) -> bool:
        compared.append(known)
        return known == given

    monkeypatch.setattr("serve_app.keys.hmac.compare_digest", compare)
    for given in ("one", "three", "none"):
        compared.clear()
        keys.find(given)
        assert len(compared) == 3


def test_a_key_that_is_no_text_of_unicode_is_merely_unknown() -> None:
    assert ring(environ={"TIERWISE_API_KEYS": "one"}).find("\udcff") is None


def test_new_keys_are_long_and_never_the_same() -> None:
    made = {new_key() for _ in range(100)}
    assert len(made) == 100
    assert all(re.fullmatch(r"tw-[A-Za-z0-9_-]{43}", key) for key in made)


@pytest.mark.parametrize("admin", [True, False])
def test_the_lines_of_a_new_key_can_be_appended_to_the_file(file: Path, admin: bool) -> None:
    with file.open("a") as out:
        out.write(yaml_lines("b", "second", admin=admin))
    found = ring(file).find("second")
    assert found is not None
    assert (found.id, found.admin) == ("b", admin)


@pytest.mark.parametrize("name", ["", "a b", "-a", "a" * 65, "a\nb"])
def test_an_id_that_the_file_may_not_hold_is_refused(name: str) -> None:
    with pytest.raises(SettingsError, match="ID: letters"):
        yaml_lines(name, "x", admin=False)


def test_a_file_that_may_not_be_read_is_named(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*arguments: Any, **options: Any) -> str:
        raise PermissionError(13, "Permission denied", str(file))

    monkeypatch.setattr(Path, "read_text", refused)
    assert "cannot be read (PermissionError)" in problem_of(file)
