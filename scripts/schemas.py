"""Writes schemas/v1/: the JSON Schemas of the values in a session document, and OpenAPI. `make schemas` runs it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from crdt_sessions.model import SCHEMAS
from crdt_sessions.storage import MemoryStore
from crdt_sessions_server.service import Service
from crdt_sessions_server.settings import Settings
from scripts import asyncapi

FOLDER = Path(__file__).parent.parent / "schemas/v1"


def generate() -> dict[str, str]:
    """Return file name to content."""
    files = {}
    for name, model in SCHEMAS.items():
        schema = model.model_json_schema(by_alias=True, mode="validation")
        schema = {"$schema": "https://json-schema.org/draft/2020-12/schema"} | schema
        files[f"{name}.schema.json"] = _spell(schema)
    files["asyncapi.json"] = _spell(asyncapi.document())
    files["openapi.json"] = _spell(asyncio.run(_openapi()))
    return files


async def _openapi() -> Any:
    service = Service(Settings(), store=MemoryStore())
    async with service:
        answer = await service.app.test_client().get("/openapi.json", headers={"Host": "localhost"})
        return await answer.get_json()


def _spell(value: Any) -> str:
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, content in generate().items():
        (FOLDER / name).write_text(content, "utf-8")
    print(f"wrote {FOLDER}")
