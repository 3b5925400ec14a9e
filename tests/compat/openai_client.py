"""Does the official OpenAI client work against a running server, and do responses have OpenAI's schemas?

Usage: openai_client.py BASE_URL. The schemas come from ATTUNE_EVAL_DATA (default ../shared/data)/openai-api/openapi.yaml;
without that file the client is exercised all the same, and the missing check is said.
"""

import json
import os
import sys
import urllib.error
import urllib.request
from pathlib import Path

import openai

QUESTION = [{"role": "user", "content": "Where is the HR department in Boston?"}]
LIMIT_SECONDS = 60


class Schemas:
    """Validates JSON against the component schemas of an OpenAPI document."""

    def __init__(self, path: Path):
        self.document = None
        if path.exists():
            import yaml

            self.document = yaml.load(path.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        else:
            print(f"skipped: schemas are not checked, there is no {path}; set ATTUNE_EVAL_DATA")

    def check(self, name: str, value: object) -> None:
        if self.document is None:
            return
        import jsonschema

        schema = {"$ref": f"#/components/schemas/{name}", "components": self.components()}
        jsonschema.Draft202012Validator(schema).validate(value)
        print(f"valid {name}")

    def components(self) -> dict:
        """The components, with OpenAPI 3.0's `nullable` said in JSON Schema's words."""

        def convert(node):
            if isinstance(node, list):
                return [convert(item) for item in node]
            if not isinstance(node, dict):
                return node
            node = {key: convert(value) for key, value in node.items()}
            if node.pop("nullable", False) is True:
                return {"anyOf": [node, {"type": "null"}]}
            return node

        if not hasattr(self, "_components"):
            self._components = convert(self.document["components"])
        return self._components


def post(base: str, body: dict) -> tuple[int, str]:
    """A plain request, to see the bytes the client does not show."""
    request = urllib.request.Request(
        f"{base}/v1/chat/completions", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=LIMIT_SECONDS) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def expect(kind, call):
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(f"{kind.__name__} was not raised")


def check_client(base: str) -> None:
    client = openai.OpenAI(base_url=f"{base}/v1", api_key="unused", max_retries=0, timeout=LIMIT_SECONDS)
    models = [model.id for model in client.models.list()]
    assert models[0] == "attune" and len(models) >= 2, models
    assert client.models.retrieve(models[1]).id == models[1]

    answer = client.chat.completions.create(
        model="attune", messages=QUESTION, seed=7, logprobs=True, top_logprobs=1, max_completion_tokens=100
    )
    assert answer.id.startswith("chatcmpl-") and answer.choices[0].message.content
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert answer.choices[0].logprobs.content[0].top_logprobs
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.choices[0].message.attune["citations"], "no citation"

    text, usage, attune = "", None, None
    stream = client.chat.completions.create(
        model=models[1], messages=QUESTION, stream=True, stream_options={"include_usage": True}, seed=7
    )
    for chunk in stream:
        usage = chunk.usage or usage
        attune = getattr(chunk, "attune", None) or attune
        text += "".join(choice.delta.content or "" for choice in chunk.choices)
    assert text and usage.completion_tokens > 0 and attune["answer_id"].startswith("chatcmpl-")

    error = expect(openai.NotFoundError, lambda: client.chat.completions.create(model="gpt-4o", messages=QUESTION))
    assert error.code == "model_not_found" and error.param == "model"
    error = expect(
        openai.BadRequestError,
        lambda: client.chat.completions.create(model="attune", messages=QUESTION, temperature=7),
    )
    assert error.param == "temperature" and error.type == "invalid_request_error"
    print("the client lists, chats, streams and gets typed errors")


def check_schemas(base: str, schemas: Schemas) -> None:
    with urllib.request.urlopen(f"{base}/v1/models", timeout=LIMIT_SECONDS) as response:
        schemas.check("ListModelsResponse", json.load(response))
    for extra in ({}, {"logprobs": True, "top_logprobs": 1}, {"n": 2}):
        _, body = post(base, {"model": "attune", "messages": QUESTION, **extra})
        schemas.check("CreateChatCompletionResponse", json.loads(body))
    for extra in ({}, {"stream_options": {"include_usage": True}}, {"logprobs": True, "top_logprobs": 1}):
        _, body = post(base, {"model": "attune", "messages": QUESTION, "stream": True, **extra})
        data = [line[6:] for line in body.splitlines() if line.startswith("data: ")]
        assert data.pop() == "[DONE]"
        for chunk in data:
            schemas.check("CreateChatCompletionStreamResponse", json.loads(chunk))
    status, body = post(base, {"model": "attune"})
    assert status == 400, status
    schemas.check("ErrorResponse", json.loads(body))


def main() -> None:
    base = sys.argv[1]
    root = Path(__file__).resolve().parents[2]
    data = Path(os.environ.get("ATTUNE_EVAL_DATA", root / "../shared/data"))
    check_client(base)
    check_schemas(base, Schemas(data / "openai-api/openapi.yaml"))


if __name__ == "__main__":
    main()
