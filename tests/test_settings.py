"""Profiles, overrides and the sentences about what is wrong with them."""

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel

from serve_app.errors import SettingsError
from serve_app.explain import _models_in as models_in
from serve_app.explain import known_keys, nearest
from serve_app.settings import PROFILES, Live, Settings, load_profile, merge, parse, parse_live


def models(root: type[BaseModel]) -> Iterator[type[BaseModel]]:
    yield root
    for field in root.model_fields.values():
        for inner in models_in(field.annotation):
            yield from models(inner)


def problems_of(args: dict[Any, Any]) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        parse(args)
    return caught.value.problems


@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_alone_is_complete(name: str) -> None:
    assert parse({"profile": name}).profile == name


@pytest.mark.parametrize("model", sorted(set(models(Settings)), key=str), ids=lambda model: model.__name__)
def test_every_field_says_what_it_is(model: type[BaseModel]) -> None:
    assert [name for name, field in model.model_fields.items() if not field.description] == []


def test_one_line_changes_the_profile() -> None:
    local, g6e = parse({"profile": "local"}), parse({"profile": "g6e"})
    assert (local.large.gpus, local.auth.mode) == (0, "open")
    assert (g6e.large.gpus, g6e.auth.mode) == (4, "keys")


def test_an_override_changes_its_field_and_keeps_the_ones_beside_it() -> None:
    profile = parse({"profile": "local"})
    changed = parse({"profile": "local", "small": {"engine_kwargs": {"max_num_seqs": 4}}})
    assert changed.small.engine_kwargs == {**profile.small.engine_kwargs, "max_num_seqs": 4}
    assert changed.large == profile.large


def test_a_list_is_replaced_as_a_whole() -> None:
    changed = parse({"profile": "g6e", "fleet": [{"instance": "mine", "cpus": 8, "memory_gib": 64}]})
    assert [node.instance for node in changed.fleet] == ["mine"]


def test_merge_leaves_both_sides_as_they_were() -> None:
    base, override = {"a": {"b": 1, "c": [1, 2]}}, {"a": {"c": [3]}, "d": None}
    assert merge(base, override) == {"a": {"b": 1, "c": [3]}, "d": None}
    assert (base, override) == ({"a": {"b": 1, "c": [1, 2]}}, {"a": {"c": [3]}, "d": None})


def test_settings_cannot_be_changed_afterwards() -> None:
    settings = parse({"profile": "local"})
    with pytest.raises(ValueError, match="frozen"):
        settings.live.threshold = 0.5  # type: ignore[misc]


@pytest.mark.parametrize(
    ("args", "line"),
    [
        ({}, "args.profile: needed, one of local, g6e"),
        ({"profile": 3}, "args.profile: needed, one of local, g6e"),
        ({"profile": "g6"}, "args.profile: unknown profile 'g6', did you mean 'g6e'?"),
        ({"profile": "local", "live": {"treshold": 0.5}}, "args.live.treshold: unknown key, did you mean 'threshold'?"),
        (
            {"profile": "local", "auth": {"xyz": 1}},
            "args.auth.xyz: unknown key; known: admin_keys_env, cors_origins, keys_env, keys_file, mode",
        ),
        (
            {"profile": "local", "small": {"engine_kwarg": {}}},
            "args.small.engine_kwarg: unknown key, did you mean 'engine_kwargs'?",
        ),
        (
            {"profile": "local", "large": {"price": {"input": "1.2"}}},
            "args.large.price.input: input should be a valid number, got '1.2'",
        ),
        (
            {"profile": "local", "live": {"threshold": 1.5}},
            "args.live.threshold: input should be 'auto', got 1.5; or input should be less than or equal to 1, got 1.5",
        ),
        ({"profile": "local", 1: 2}, "args.1: keys should be strings, got 1"),
    ],
)
def test_what_is_wrong_is_one_line_with_its_path(args: dict[Any, Any], line: str) -> None:
    assert problems_of(args) == [line]


def test_a_key_inside_a_list_is_named_by_its_index() -> None:
    node = {"instance": "mine", "cpus": 8, "memory_gib": 64, "gpu_mb": 1}
    assert problems_of({"profile": "local", "fleet": [node]}) == ["args.fleet.0.gpu_mb: unknown key, did you mean 'gpu_mib'?"]


def test_every_problem_is_named_at_once() -> None:
    assert len(problems_of({"profile": "local", "live": {"a": 1, "b": 2}, "auth": {"mode": "shut"}})) == 3


def test_known_keys_follow_the_path() -> None:
    assert "kv_kib_per_token" in known_keys(Settings, ["large", "model", "memory"])
    assert "gpu_mib" in known_keys(Settings, ["fleet", 0])
    assert known_keys(Settings, ["nothing", "here"]) == set()


def test_nearest_suggests_or_lists_or_says_nothing() -> None:
    assert nearest("thresold", ("threshold", "auto")) == ", did you mean 'threshold'?"
    assert nearest("xyz", ("threshold", "auto")) == "; known: threshold, auto"
    assert nearest("xyz", [f"option_{number}" for number in range(20)]) == ""


def test_an_unknown_profile_is_no_file_name() -> None:
    with pytest.raises(SettingsError):
        load_profile("../profiles/local")


def test_live_settings_lie_over_the_ones_before() -> None:
    base = Live(decisive_margin=0.1)
    assert parse_live(base, {"threshold": 0.4}) == Live(decisive_margin=0.1, threshold=0.4)
    assert parse_live(base, {}) == base


@pytest.mark.parametrize("value", [{"threshold": 2}, {"threshold": None}, {"treshold": 0.5}, {"self_assessment": "yes"}, {1: 2}])
def test_a_bad_live_setting_is_refused_and_the_old_ones_stay(value: dict[Any, Any]) -> None:
    base = Live()
    with pytest.raises(SettingsError, match=r"^user_config\."):
        parse_live(base, {"decisive_margin": 0.3, **value})
    assert base == Live()


def test_a_live_setting_with_one_good_and_one_bad_value_is_refused_as_a_whole() -> None:
    with pytest.raises(SettingsError) as caught:
        parse_live(Live(), {"threshold": 0.4, "embedding_weight": 7})
    assert caught.value.problems == ["user_config.embedding_weight: input should be less than or equal to 1, got 7"]
