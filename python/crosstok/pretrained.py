"""Where a tokenizer.json is found or written, and which tokens begin and end a text there."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crosstok.errors import UnsupportedTokenizerError

# Stands in for an answer when a chat template is asked what follows one.
_ANSWER = "crosstok-answer"
TOKENIZER = "tokenizer.json"
CONFIGS = ("tokenizer_config.json", "generation_config.json")


@dataclass
class Source:
    """A tokenizer.json with what lies beside it.

    eos_tokens: contents of the tokens that end a text, the likeliest first; eos_ids: further ones, by id. bos_token:
    content of the one that begins it.
    """

    tokenizer_json: bytes
    eos_tokens: list[str] = field(default_factory=list)
    eos_ids: list[int] = field(default_factory=list)
    bos_token: str | None = None


def find(source: Any) -> Source:
    """Find the files of a directory, a hub id or a transformers tokenizer.

    Raises UnsupportedTokenizerError where there is no tokenizer.json, or a file beside it is not JSON.
    """
    if isinstance(source, (str, Path)):
        path = Path(source)
        if path.is_dir():
            return _from_files(lambda name: _read(path / name), str(path))
        if isinstance(source, str) and source.count("/") <= 1 and not path.exists():
            return _from_files(lambda name: _from_hub(source, name), source)
        raise UnsupportedTokenizerError(f"{source}: neither a directory nor a hub id")
    return _from_transformers(source)


def write(folder: Path, tokenizer_json: bytes, eos_ids: Sequence[int], bos_id: int | None) -> None:
    """Write the files of a directory; of configs that there are, only what they say of those tokens changes."""
    paths = [folder / name for name in CONFIGS]
    config, generation = (_json(_read(path), str(path)) for path in paths)
    config.setdefault("tokenizer_class", "PreTrainedTokenizerFast")
    contents = json.loads(tokenizer_json)
    _set(config, "eos_token", _content_of_id(contents, eos_ids[0]) if eos_ids else None)
    _set(config, "bos_token", None if bos_id is None else _content_of_id(contents, bos_id))
    _set(generation, "eos_token_id", list(eos_ids) or None)
    _set(generation, "bos_token_id", bos_id)
    (folder / TOKENIZER).write_bytes(tokenizer_json)
    for path, values in zip(paths, (config, generation), strict=True):
        path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def _set(config: dict[str, Any], key: str, value: Any) -> None:
    """Set what a config says; None: nothing, lest another tokenizer's be taken for this one's."""
    config.pop(key, None)
    if value is not None:
        config[key] = value


def _read(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def _from_hub(repo: str, name: str) -> bytes | None:
    try:
        from transformers.utils.hub import cached_file
    except ImportError:
        reason = f"{repo}: a hub id needs transformers (pip install 'crosstok[torch]')"
        raise UnsupportedTokenizerError(reason) from None
    try:
        # What there has to be raises for what is wrong: no such file, or no connection.
        found = cached_file(repo, name, _raise_exceptions_for_missing_entries=name == TOKENIZER)
    except OSError as error:
        raise UnsupportedTokenizerError(f"{repo}: {str(error).splitlines()[0]}") from None
    return None if found is None else Path(found).read_bytes()


def _from_files(read: Any, where: str) -> Source:
    tokenizer = read(TOKENIZER)
    if tokenizer is None:
        raise UnsupportedTokenizerError(f"{where}: no {TOKENIZER}")
    config, generation = (_json(read(name), f"{where}: {name}") for name in CONFIGS)
    template_file = read("chat_template.jinja")
    template = template_file.decode() if template_file else config.get("chat_template")
    source = Source(tokenizer, bos_token=_content(config.get("bos_token")))
    eos_token = _content(config.get("eos_token"))
    specials = _special_contents(json.loads(tokenizer))
    turn = _end_of_turn(template, specials, source.bos_token or "", eos_token or "")
    source.eos_tokens = [token for token in (turn, eos_token) if token]
    ids = generation.get("eos_token_id")
    source.eos_ids = ids if isinstance(ids, list) else [] if ids is None else [ids]
    if source.bos_token is None and isinstance(generation.get("bos_token_id"), int) and not config:
        source.bos_token = _content_of_id(json.loads(tokenizer), generation["bos_token_id"])
    return source


def _from_transformers(tokenizer: Any) -> Source:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        kind = type(tokenizer).__name__
        raise UnsupportedTokenizerError(f"{kind} has no backend_tokenizer: only fast tokenizers are read")
    text = backend.to_str()
    eos, bos = getattr(tokenizer, "eos_token", None), getattr(tokenizer, "bos_token", None)
    template = getattr(tokenizer, "chat_template", None)
    turn = _end_of_turn(template, _special_contents(json.loads(text)), bos or "", eos or "")
    return Source(text.encode(), [token for token in (turn, eos) if token], [], bos)


def _json(content: bytes | None, name: str) -> dict[str, Any]:
    try:
        value = json.loads(content or b"{}")
    except ValueError as error:
        raise UnsupportedTokenizerError(f"{name}: not JSON ({error})") from None
    return value if isinstance(value, dict) else {}


def _content(token: Any) -> str | None:
    """A token of tokenizer_config.json: its content, or a dict that holds it."""
    content = token.get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) else None


def _special_contents(tokenizer: dict[str, Any]) -> list[str]:
    return [token["content"] for token in tokenizer.get("added_tokens", []) if token.get("special")]


def _content_of_id(tokenizer: dict[str, Any], id: int) -> str | None:
    return next((t["content"] for t in tokenizer.get("added_tokens", []) if t["id"] == id), None)


def _end_of_turn(template: Any, specials: list[str], bos: str, eos: str) -> str | None:
    """The special token that a chat template puts behind an answer; None if it puts none, or cannot be read."""
    if isinstance(template, list):  # several named templates
        template = next((t.get("template") for t in template if t.get("name") == "default"), None)
    if not isinstance(template, str):
        return None
    from jinja2 import TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(message: str) -> None:
        raise TemplateError(message)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = lambda value, **_: json.dumps(value, ensure_ascii=False)
    environment.globals.update(raise_exception=refuse, strftime_now=lambda _: "")
    messages = [{"role": "user", "content": "question"}, {"role": "assistant", "content": _ANSWER}]
    try:
        values = {"messages": messages, "bos_token": bos, "eos_token": eos, "add_generation_prompt": False}
        rendered = environment.from_string(template).render(**values)
    except Exception:  # a template is a program of someone else's: whatever it raises, it tells nothing
        return None
    _, found, rest = rendered.rpartition(_ANSWER)
    if not found:
        return None
    rest = rest.lstrip()
    return max((special for special in specials if rest.startswith(special)), key=len, default=None)
