"""An endpoint that already runs and speaks the OpenAI API: check that it can be driven, and describe it as a started server is.

Checked in this order, each with a sentence of its own: the key's variable, the connection, TLS, the key, the API, the model, one real
completion. Every failure is an EndpointError. The key is read from the environment when it is needed and kept nowhere.
"""

from __future__ import annotations

import os
import urllib.parse
from typing import Any, Literal, Self

from perfbench.errors import EndpointError
from perfbench.records import ServerInfo
from perfbench.scenario.model import Endpoint as EndpointSpec
from perfbench.scenario.model import Scenario
from perfbench.serve.control import Answer, ControlError, get, post_json
from perfbench.serve.engine_facts import engine_version, kv_cache_bytes, kv_cache_tokens, served_models
from perfbench.variants import ServerPlan

_EXACT_LENGTH = {"ignore_eos": True, "min_tokens": 1}
"""What an answer of exact length asks for beside `max_tokens`: fields of vLLM's that other servers know too, and some refuse."""
_TIMEOUT_S = 30.0
_COMPLETION_TIMEOUT_S = 120.0


class Endpoint:
    """The same handle as `server.Server`: a context manager with `url`, `plan.served_names`, `api_key_env` and `info`."""

    def __init__(self, plan: ServerPlan, *, api: Literal["chat", "completions"] = "chat", exact_length: bool = False) -> None:
        """`exact_length`: answers of exact length will be asked for, so refuse a server that cannot give them."""
        if plan.endpoint is None:
            raise ValueError(f"{plan.name} is a server to start, no endpoint")
        self.plan = plan
        self.url = plan.endpoint.url.rstrip("/")
        self.api_key_env = plan.endpoint.api_key_env
        self.info: ServerInfo | None = None
        self._model = plan.endpoint.model
        self._api = api
        self._exact_length = exact_length

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> ServerInfo:
        """Check everything and describe the endpoint; raises EndpointError."""
        self._check_url()
        key = self._key()
        lengths = self._check_models(self._ask("/v1/models", key), key)
        self._complete(key)
        if self._exact_length and not self.gives_exact_length():
            raise self._error(
                f"refuses `ignore_eos` and `min_tokens` at {self.url}, which answers of exact length need; give the stages' `output` as `max_tokens` alone"
            )
        metrics = self._optional("/metrics", key)
        version = self._optional("/version", key)
        self.info = ServerInfo(
            name=self.plan.name,
            variants=list(self.plan.variants),
            url=self.url,
            argv=[],
            env={},
            engine_version=engine_version(version.json()) if version else None,
            kv_cache_tokens=kv_cache_tokens(metrics.text()) if metrics else None,
            kv_cache_bytes=kv_cache_bytes(metrics.text()) if metrics else None,
            max_model_len=lengths[self._model],
        )
        return self.info

    def stop(self) -> None:
        """Nothing to stop: it is not ours."""

    def check(self) -> None:
        """Raise EndpointError if it no longer answers."""
        self._ask("/v1/models", self._key())

    def _check_url(self) -> None:
        parts = urllib.parse.urlsplit(self.url)
        if parts.username or parts.password:
            raise EndpointError(f"endpoint `{self.plan.name}`: a key never stands in a URL; take it out and name its variable in `api_key_env`")
        if parts.path.endswith("/v1"):
            raise EndpointError(f"endpoint `{self.plan.name}`: {self.url} must end before /v1; perfbench adds it")

    def _key(self) -> str | None:
        if self.api_key_env is None:
            return None
        key = os.environ.get(self.api_key_env, "").strip()
        if not key:
            raise self._error(f"needs the environment variable {self.api_key_env}, which holds no key; export it before you start perfbench")
        if not (key.isascii() and key.isprintable()):
            raise self._error(f"cannot use the key in {self.api_key_env}: it holds characters that no HTTP header may carry; export it again")
        return key

    def _ask(self, path: str, key: str | None) -> Answer:
        """GET with every way to get no proper answer turned into its sentence."""
        try:
            answer = get(self.url + path, key=key, timeout_s=_TIMEOUT_S)
        except ControlError as error:
            raise self._unanswered(error) from None
        self._check_allowed(answer)
        return answer

    def _optional(self, path: str, key: str | None) -> Answer | None:
        """What only vLLM answers."""
        try:
            answer = get(self.url + path, key=key, timeout_s=_TIMEOUT_S)
        except ControlError:
            return None
        return answer if answer.status == 200 else None

    def _check_models(self, answer: Answer, key: str | None) -> dict[str, int | None]:
        served = served_models(answer.json()) if answer.status == 200 else None
        if served is None:
            got = f"status {answer.status}" if answer.status != 200 else "something else than a list of models"
            raise self._error(f"is no OpenAI API: GET {self.url}/v1/models answers with {got}; correct `endpoints.{self.plan.name}.url`")
        if self._model not in served:
            listed = ", ".join(f"`{_hidden(model, key)}`" for model in served) or "nothing"
            raise self._error(f"does not serve `{self._model}`; it serves {listed}; correct `endpoints.{self.plan.name}.model`")
        return served

    def gives_exact_length(self) -> bool:
        """Whether it takes the fields by which an answer is asked for in exact length; raises EndpointError for every other failure."""
        key = self._key()
        answer = self._completion(key, _EXACT_LENGTH)
        if answer.status in (400, 422):
            return False
        self._check_completion(answer, key)
        return True

    def _complete(self, key: str | None) -> None:
        self._check_completion(self._completion(key, {}), key)

    def _completion(self, key: str | None, extra: dict[str, Any]) -> Answer:
        body: dict[str, Any] = {"model": self._model, "max_tokens": 1, "temperature": 0, **extra}
        if self._api == "chat":
            body["messages"] = [{"role": "user", "content": "Hello"}]
        else:
            body["prompt"] = "Hello"
        try:
            answer = post_json(self.url + self._path, body, key=key, timeout_s=_COMPLETION_TIMEOUT_S)
        except ControlError as error:
            raise self._unanswered(error) from None
        self._check_allowed(answer)
        return answer

    @property
    def _path(self) -> str:
        return "/v1/chat/completions" if self._api == "chat" else "/v1/completions"

    def _check_completion(self, answer: Answer, key: str | None) -> None:
        if answer.status != 200:
            raise self._error(f"answers a completion by `{self._model}` with status {answer.status}: {_hidden(answer.message(), key)}")
        reply = answer.json()
        if not isinstance(reply, dict) or not reply.get("choices"):
            raise self._error(f"is no OpenAI API: POST {self.url}{self._path} answers without `choices`; correct `endpoints.{self.plan.name}.url`")

    def _check_allowed(self, answer: Answer) -> None:
        # What the server says is left out: some repeat the key they refuse.
        if answer.status not in (401, 403):
            return
        if self.api_key_env is None:
            raise self._error(f"asks for a key (status {answer.status}); name the variable that holds it in `endpoints.{self.plan.name}.api_key_env`")
        raise self._error(f"refuses the key in {self.api_key_env} (status {answer.status}); check that it is the right one for {self.url}")

    def _unanswered(self, error: ControlError) -> EndpointError:
        if error.kind == "tls":
            plain = "; it seems to speak plain HTTP, use http://" if "wrong version" in error.reason or "record layer" in error.reason else ""
            ca = "; where you trust its certificate, name the file with it or with its CA in SSL_CERT_FILE" if "certificate" in error.reason else ""
            return self._error(f"cannot be reached by TLS at {self.url}: {error.reason}{plain}{ca}")
        if error.kind == "timeout":
            return self._error(f"did not answer at {self.url} in time; check that it runs and is not overloaded")
        if error.kind == "protocol":
            return self._error(f"does not speak HTTP at {self.url} ({error.reason}); correct `endpoints.{self.plan.name}.url`")
        return self._error(f"cannot be reached at {self.url}: {error.reason}; start it, or correct `endpoints.{self.plan.name}.url`")

    def _error(self, clause: str) -> EndpointError:
        return EndpointError(f"endpoint `{self.plan.name}` {clause}")


def _hidden(text: str, key: str | None) -> str:
    """Text from the server, without the key should it have repeated it."""
    return text.replace(key, "***") if key else text


def check_endpoints(scenario: Scenario) -> None:
    """Ask every endpoint of a scenario whether it can be driven, before anything is made for it; raises EndpointError."""
    exact = asks_exact_length(scenario)
    for name, endpoint in scenario.endpoints.items():
        Endpoint(_plan(name, endpoint), api=scenario.prompt.api, exact_length=exact).start()


def asks_exact_length(scenario: Scenario) -> bool:
    """Whether some stage wants answers of exact length."""
    outputs = [stage.output for stage in scenario.load.stages]
    return any(output.fixed is not None or output.distribution is not None or output.trace == "fixed" for output in outputs)


def answers_of_fixed_length(name: str, endpoint: EndpointSpec, api: Literal["chat", "completions"]) -> bool:
    """Whether this endpoint, which must be one that can be driven (else EndpointError), gives answers of exact length."""
    checked = Endpoint(_plan(name, endpoint), api=api)
    checked.start()
    return checked.gives_exact_length()


def _plan(name: str, endpoint: EndpointSpec) -> ServerPlan:
    return ServerPlan(name, (name,), {name: endpoint.model}, endpoint=endpoint)
