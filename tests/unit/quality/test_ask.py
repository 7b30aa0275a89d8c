import socket
import threading
import time
from typing import Any

import pytest
from answering_server import AnsweringServer, chat

from perfbench.errors import EndpointError
from perfbench.prompts import RenderedPrompt
from perfbench.quality.ask import Answer, Target, ask_all
from perfbench.scenario.model import Decoding


def prompts(count: int) -> list[RenderedPrompt]:
    return [RenderedPrompt(prompt_id=f"p{n}", messages=[{"role": "user", "content": f"question {n}"}], text=None, sha256=str(n)) for n in range(count)]


def ask(url: str, asked: list[RenderedPrompt], **changes: Any) -> list[Answer]:
    target = Target(url=url, model="m", api_key_env=changes.pop("api_key_env", None), timeout_s=changes.pop("timeout_s", 5.0))
    return ask_all(target, asked, Decoding(seed=3, stop=("END",)), **{"max_tokens": 9, "concurrency": 4, **changes})


def question(body: dict[str, Any]) -> str:
    return str(body["messages"][0]["content"])


def test_answers_come_in_the_order_of_the_prompts_over_few_connections() -> None:
    seen: list[tuple[int, int]] = []

    def reply(body: dict[str, Any]) -> Any:
        time.sleep(0.02 if question(body).endswith(("0", "1")) else 0)  # the first ones come back last
        return chat(f"answer to {question(body)}")

    with AnsweringServer(reply) as server:
        answers = ask(server.url, prompts(12), on_progress=lambda done, count: seen.append((done, count)))
    assert [answer.output for answer in answers] == [f"answer to question {n}" for n in range(12)]
    assert [answer.prompt_id for answer in answers] == [f"p{n}" for n in range(12)]
    assert answers[0].prompt_tokens == 7
    assert answers[0].output_tokens == 2
    assert answers[0].finish_reason == "stop"
    assert seen == [(n, 12) for n in range(1, 13)]
    assert len(server.connections) <= 4


def test_what_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THE_KEY", "secret")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with AnsweringServer(lambda body: chat("x")) as server:
        ask(server.url + "/deep/", prompts(2), api_key_env="THE_KEY")
    assert server.paths == ["/deep/v1/chat/completions"] * 2
    assert sorted(question(body) for body in server.bodies) == ["question 0", "question 1"]
    rest = {key: value for key, value in server.bodies[0].items() if key != "messages"}
    assert rest == {"model": "m", "temperature": 0.0, "top_p": 1.0, "seed": 3, "max_tokens": 9, "stop": ["END"]}
    assert server.headers[0]["Authorization"] == "Bearer secret"
    assert len({headers["X-Request-Id"] for headers in server.headers}) == 2


def test_token_ids_of_chat_and_of_completions() -> None:
    with AnsweringServer(lambda body: chat("x", token_ids=[4, 2]) | {"prompt_token_ids": [1, 2, 3]}) as server:
        (answer,) = ask(server.url, prompts(1), token_ids=True)
        assert server.bodies[0]["return_token_ids"] is True
    assert (answer.prompt_token_ids, answer.token_ids) == ([1, 2, 3], [4, 2])
    text = RenderedPrompt(prompt_id="t", messages=None, text="once", sha256="")
    reply = {"choices": [{"text": " upon", "finish_reason": "length", "token_ids": [9], "prompt_token_ids": [8]}]}
    with AnsweringServer(lambda body: reply) as server:
        (answer,) = ask(server.url, [text], token_ids=True)
        assert server.paths == ["/v1/completions"]
        assert server.bodies[0]["prompt"] == "once"
    assert (answer.output, answer.prompt_token_ids, answer.token_ids, answer.prompt_tokens) == (" upon", [8], [9], None)


@pytest.mark.parametrize(
    ("reply", "kind", "said"),
    [
        ((404, b'{"error": {"message": "The model `m` does not exist"}}'), "http", "status 404: The model `m` does not exist"),
        ((500, b"oops\n<html>"), "http", "status 500: oops <html>"),
        ((200, b"no json"), "protocol", "no json"),
        ((200, b'{"choices": []}'), "protocol", "choices"),
        ((200, b"[1]"), "protocol", "no chat or text completion"),
        (None, "disconnected", "the connection broke"),
    ],
)
def test_one_failed_request_is_an_answer_with_its_error(reply: Any, kind: str, said: str) -> None:
    with AnsweringServer(lambda body: reply if question(body) == "question 1" else chat("fine")) as server:
        answers = ask(server.url, prompts(3))
    assert [answer.output for answer in answers] == ["fine", None, "fine"]
    assert answers[1].error == kind
    assert said in (answers[1].error_message or "")
    tries = sum(question(body) == "question 1" for body in server.bodies)
    assert tries == (2 if kind == "disconnected" else 1)


def test_a_connection_that_breaks_once_is_tried_again() -> None:
    broken = threading.Event()

    def reply(body: dict[str, Any]) -> Any:
        if question(body) == "question 0" and not broken.is_set():
            broken.set()
            return None
        return chat("fine")

    with AnsweringServer(reply) as server:
        answers = ask(server.url, prompts(3), concurrency=1)
    assert [answer.output for answer in answers] == ["fine"] * 3


def test_a_slow_answer_is_a_timeout_and_is_not_sent_twice() -> None:
    free = threading.Event()

    def reply(body: dict[str, Any]) -> Any:
        if question(body) == "question 0":
            free.wait(10)
        return chat("fine")

    with AnsweringServer(reply) as server:
        answers = ask(server.url, prompts(2), timeout_s=0.3)
        free.set()
    assert answers[0].error == "timeout"
    assert "0.3 s" in (answers[0].error_message or "")
    assert answers[1].output == "fine"
    assert len(server.bodies) == 2


def test_nobody_there_is_one_sentence() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    with pytest.raises(EndpointError, match=rf"all 3 requests to http://127.0.0.1:{port} failed; the first: connect: no connection"):
        ask(f"http://127.0.0.1:{port}", prompts(3))


def test_a_key_that_is_not_set_is_said_before_anything_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_KEY", raising=False)
    with AnsweringServer(lambda body: chat("x")) as server, pytest.raises(EndpointError, match="NO_KEY is not set"):
        ask(server.url, prompts(1), api_key_env="NO_KEY")
    assert server.bodies == []


def test_an_empty_answer_is_an_answer_and_text_that_cannot_be_stored_is_mended() -> None:
    with AnsweringServer(lambda body: chat(None) if question(body) == "question 0" else chat("a\ud800b")) as server:
        answers = ask(server.url, prompts(2))
    assert [answer.output for answer in answers] == ["", "a?b"]


def test_ctrl_c_ends_requests_in_flight() -> None:
    free = threading.Event()

    def reply(body: dict[str, Any]) -> Any:
        if question(body) != "question 0":
            free.wait(20)
        return chat("fine")

    def interrupt(done: int, count: int) -> None:
        raise KeyboardInterrupt

    with AnsweringServer(reply) as server:
        before = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            ask(server.url, prompts(8), timeout_s=20.0, on_progress=interrupt)
        assert time.monotonic() - before < 10  # not the 20 s that the open requests would take
        assert not [thread for thread in threading.enumerate() if thread.name == "perfbench-ask"]
        free.set()


def test_no_prompts_no_answers() -> None:
    assert ask("http://127.0.0.1:1", []) == []
