"""The page's files over HTTP: what a browser may do with them, what it may keep, and that nothing else can be asked for."""

import re
from importlib.resources import files

import pytest

from serve_app.gateway import page
from tests.fakes import World
from tests.gateway.conftest import Endpoint, make_app, make_client
from tests.gateway.test_errors import check_error

FOLDER = files("serve_app.gateway").joinpath("page")
SOURCES = {item.name: item.read_text() for item in FOLDER.iterdir()}
SCRIPTS = {name: text for name, text in SOURCES.items() if name.endswith(".js")}


async def test_the_page_is_html_that_may_reach_nothing_but_its_own_origin(endpoint: Endpoint) -> None:
    response = await endpoint.http.get("/")
    assert (response.status_code, response.headers["content-type"]) == (200, "text/html; charset=utf-8")
    policy = dict(part.split(" ", 1) for part in response.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert {policy[name] for name in ("script-src", "style-src", "connect-src", "img-src")} == {"'self'"}
    assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert policy["require-trusted-types-for"] == "'script'"
    assert "unsafe" not in response.headers["content-security-policy"]
    assert response.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(("name", "media"), [("main.js", "text/javascript"), ("base.css", "text/css"), ("icon.svg", "image/svg+xml")])
async def test_each_file_has_its_type_and_the_same_policy(endpoint: Endpoint, name: str, media: str) -> None:
    response = await endpoint.http.get(f"/page/{name}")
    assert response.status_code == 200
    assert response.headers["content-type"].split(";")[0] == media
    assert response.headers["content-security-policy"] == page.POLICY
    assert response.headers["x-tierwise-schema"] == "1"


@pytest.mark.parametrize("known", ["{etag}", 'W/{etag}, "other"', "*"])
async def test_a_copy_that_is_still_right_is_not_sent_again(endpoint: Endpoint, known: str) -> None:
    first = await endpoint.http.get("/page/main.js")
    assert first.headers["cache-control"] == "no-cache"
    again = await endpoint.http.get("/page/main.js", headers={"if-none-match": known.format(etag=first.headers["etag"])})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]


async def test_a_copy_of_another_version_is_replaced(endpoint: Endpoint) -> None:
    assert (await endpoint.http.get("/page/main.js", headers={"if-none-match": '"another"'})).status_code == 200


async def test_head_tells_the_same_without_a_body(endpoint: Endpoint) -> None:
    head, get = await endpoint.http.head("/"), await endpoint.http.get("/")
    assert (head.status_code, head.content, head.headers["etag"]) == (200, b"", get.headers["etag"])


@pytest.mark.parametrize("path", ["/page/none.js", "/page/index.html", "/page/..%2Fpage%2Fmain.js", "/page/%2e%2e/page/icon.svg", "/page/"])
async def test_nothing_else_of_the_package_can_be_asked_for(endpoint: Endpoint, path: str) -> None:
    check_error(await endpoint.http.get(path), 404, code="not_found")


async def test_the_page_needs_no_key_and_the_data_does(world: World) -> None:
    async with make_client(make_app(world, keys={"key": {}})) as http:
        assert (await http.get("/")).status_code == 200
        assert (await http.get("/page/main.js")).status_code == 200
        assert (await http.get("/status")).status_code == 401


async def test_the_page_is_no_part_of_the_api_document(endpoint: Endpoint) -> None:
    paths = (await endpoint.http.get("/openapi.json")).json()["paths"]
    assert not [path for path in paths if path == "/" or path.startswith("/page")]


async def test_status_tells_an_admin_what_tokens_cost(endpoint: Endpoint) -> None:
    prices = (await endpoint.http.get("/status")).json()["prices"]
    assert prices == {"small": {"input": 0.15, "output": 0.15}, "large": {"input": 1.2, "output": 1.2}}


def test_every_file_that_is_named_is_there_and_every_file_is_named() -> None:
    named = set(re.findall(r'(?:href|src)="page/([^"]+)"', SOURCES["index.html"]))
    named |= {name for text in SCRIPTS.values() for name in re.findall(r'from "\./([^"]+)"', text)}
    assert named == set(SOURCES) - {"index.html"}


def test_nothing_in_the_page_makes_markup_of_text_or_names_another_host() -> None:
    markup = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|DOMParser|localStorage|document\.cookie"
    assert {name: found for name, text in SCRIPTS.items() if (found := re.findall(markup, text))} == {}
    hosts = {host for text in SOURCES.values() for host in re.findall(r"https?://[^\s\"'`)]+", text)}
    assert hosts == {"http://www.w3.org/2000/svg"}
    assert re.findall(r"<[^>]+\s(?:on\w+|style)=", SOURCES["index.html"]) == []


def test_no_file_of_the_page_grows_beyond_what_one_reads_at_once() -> None:
    assert {name: lines for name, text in SOURCES.items() if (lines := text.count("\n")) > 220} == {}
