"""Request bytes: exact, paired by number, and never with a key that could break out of its header."""

from __future__ import annotations

from pathlib import Path

import httptools
import pytest

from perfbench.errors import LoadError
from perfbench.load.address import resolve
from perfbench.load.request_book import RequestBook, read_bodies, read_key
from perfbench.load.trial import Body


def bodies(tmp_path: Path, text: str) -> list[Body]:
    path = tmp_path / "bodies.jsonl"
    path.write_text(text, encoding="utf-8")
    return read_bodies(str(path))


class Parsed:
    """What httptools makes of a request."""

    def __init__(self, request: bytes) -> None:
        self.headers: dict[str, str] = {}
        self.body = b""
        self.url = b""
        self.complete = False
        parser = httptools.HttpRequestParser(self)
        parser.feed_data(request)
        self.method = parser.get_method()

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode().lower()] = value.decode()

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.complete = True


def test_a_request_is_whole_and_carries_its_body_as_it_stands(tmp_path: Path) -> None:
    rows = bodies(tmp_path, '{"prompt_id": "a", "body": {"x":  "ü"}}\n{"prompt_id": "b", "body": {"y": 1}}\n')
    book = RequestBook(resolve("http://127.0.0.1:9/base/"), "/v1/completions", rows, "t-", "sk-1")
    request_id, prompt_id, request, adapter, conversation = book.request(2)
    assert (adapter, conversation) == (None, None)
    parsed = Parsed(request)
    assert (request_id, prompt_id) == ("t-2", "a")
    assert (parsed.method, parsed.url, parsed.complete) == (b"POST", b"/base/v1/completions", True)
    assert parsed.body == '{"x":  "ü"}'.encode()
    assert parsed.headers == {
        "host": "127.0.0.1:9", "authorization": "Bearer sk-1", "content-type": "application/json", "accept": "text/event-stream, application/json",
        "x-request-id": "t-2", "content-length": str(len(parsed.body)),
    }  # fmt: skip


def test_request_i_uses_body_i_mod_n(tmp_path: Path) -> None:
    rows = bodies(tmp_path, "".join(f'{{"prompt_id": "{name}", "body": {{}}}}\n' for name in "abc"))
    book = RequestBook(resolve("http://127.0.0.1:9"), "/p", rows, "t-", None)
    assert [book.request(number)[1] for number in range(7)] == list("abcabca")
    assert b"Authorization" not in book.request(0)[2]


@pytest.mark.parametrize(("text", "said"), [("", "holds no request body"), ("{not json\n", "cannot be read as request bodies")])
def test_bodies_that_cannot_be_used(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(LoadError, match=said):
        bodies(tmp_path, text)


def test_the_key_comes_from_the_environment_and_must_be_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PB_KEY", "sk-secret")
    assert read_key("PB_KEY") == "sk-secret"
    assert read_key(None) is None
    monkeypatch.setenv("PB_KEY", "sk\r\nX-Evil: 1")
    with pytest.raises(LoadError, match="PB_KEY") as caught:
        read_key("PB_KEY")
    assert "Evil" not in str(caught.value)
    monkeypatch.delenv("PB_KEY")
    with pytest.raises(LoadError, match="PB_KEY is not set"):
        read_key("PB_KEY")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("ftp://127.0.0.1", "is not an http or https URL"),
        ("http://", "is not an http or https URL"),
        ("http://127.0.0.1:99999", "is not a URL"),
        ("http://no-such-host.invalid", "cannot be resolved"),
        ("http://bücher.example", "ASCII"),
    ],
)
def test_urls_that_cannot_be_driven_get_one_sentence(url: str, said: str) -> None:
    with pytest.raises(LoadError, match=said):
        resolve(url)


def test_ipv6_addresses_keep_their_brackets_in_the_host_header() -> None:
    address = resolve("http://[::1]:8000/x")
    assert (address.host_header, address.sockaddr[:2], address.path) == ("[::1]:8000", ("::1", 8000), "/x")


def test_tls_is_checked_for_the_name_in_the_url() -> None:
    address = resolve("https://127.0.0.1/x")
    assert (address.tls_name, address.sockaddr, address.host_header) == ("127.0.0.1", ("127.0.0.1", 443), "127.0.0.1")
    assert resolve("http://127.0.0.1/x").tls_name is None
