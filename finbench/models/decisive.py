"""What of a model folder's JSON files decides an answer, the same for every version of transformers that wrote them.

Everything does that transformers reads, but for what is listed here. What transformers would have taken without being
told (its defaults, and what follows from other keys) is left out, so that a file that states it and one that does not
are the same.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from finbench.core.errors import FinbenchError
from finbench.core.files import sha256_file, stable_json
from finbench.core.safety import read_json

LARGEST_JSON = 64 * 2**20  # bytes; the largest tokenizers have 35 MB
_CONFIG_OUT = {
    *("_name_or_path", "name_or_path", "_model_name_or_path", "transformers_version"),  # its name, and what wrote it
    *("dtype", "torch_dtype"),  # every tensor's own is covered, and the one computed in stands in the card
    *("id2label", "label2id", "num_labels", "problem_type"),  # of classifiers
    *("use_cache", "output_attentions", "output_hidden_states", "return_dict"),  # how the library is called
}
_GENERATION_OUT = {
    *("_from_model_config", "transformers_version"),
    *("use_cache", "output_attentions", "output_hidden_states", "output_scores", "output_logits"),
    *("return_dict_in_generate",),
}
_TOKENIZER_OUT = {"version", "truncation", "padding"}  # the last two are set anew at every call
# Of tokenizer_config.json: where it lay and what wrote it; what is set anew at every call; what is looked at by itself.
_SETTINGS_OUT = {
    *("name_or_path", "tokenizer_file", "special_tokens_map_file", "transformers_version", "processor_class"),
    *("backend", "is_local", "local_files_only", "files_loaded", "device_map", "use_fast", "verbose"),
    *("padding_side", "truncation_side", "padding", "truncation", "max_length", "stride", "truncation_strategy"),
    *("chat_template", "tokenizer_class", "added_tokens_decoder"),
}
_MORE_TOKENS = ("additional_special_tokens", "extra_special_tokens", "model_specific_special_tokens")
_NOT_SAID = ("clean_up_tokenization_spaces", "split_special_tokens")  # false in every class that is not told otherwise
_NO_LENGTH = 10**9  # a model_max_length from here on states none
# Names under which a class reads tokenizer.json and adds nothing of its own; older versions have the other ones.
_PLAIN_CLASSES = ("TokenizersBackend", "PreTrainedTokenizer", "PythonBackend", "")
_OTHER_TOKENIZERS = (
    *("tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "vocab.json", "merges.txt", "vocab.txt"),
    *("added_tokens.json", "special_tokens_map.json"),
)
_MISTRAL = ("tekken.json", "tokenizer.model.v1", "tokenizer.model.v2", "tokenizer.model.v3")  # read before all others
_DEEPEST = 3  # levels of configurations in a configuration that are looked into for what goes without saying


def configuration(stated: dict[str, Any]) -> Any:
    """What of a ``config.json`` decides: as transformers' class of its architecture reads it, less defaults.

    A ``model_type`` that transformers does not know keeps every key as it is stated. Raises what that class raises.
    """
    from transformers import CONFIG_MAPPING

    kind = stated.get("model_type")
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
        return _whole(_without(_plain(stated), _CONFIG_OUT))
    return _whole(json.loads(_told(kind, json.dumps(stated, sort_keys=True))))


@functools.lru_cache(64)
def _told(kind: str, text: str) -> str:
    from transformers import CONFIG_MAPPING
    from transformers.utils import logging

    def read(stated: str) -> Any:
        # from a text: classes change what they are given
        return _without(_plain(CONFIG_MAPPING[kind].from_dict(json.loads(stated)).to_dict()), _CONFIG_OUT)

    whole = read(text)
    kept = json.loads(json.dumps(whole))
    told = logging.get_verbosity()
    logging.set_verbosity(logging.CRITICAL)  # the class complains of what is left out on trial
    try:
        usual = _tried(read, {}) or {}
        for inner, key in list(_places(kept, usual)):
            value = inner.pop(key)
            if _tried(read, kept) != whole:
                inner[key] = value
    finally:
        logging.set_verbosity(told)
    return json.dumps(kept, sort_keys=True)


def _tried(read: Callable[[str], Any], stated: dict[str, Any]) -> Any:
    """What a class makes of a mapping; None where it lacks something that this class wants."""
    from huggingface_hub.errors import StrictDataclassError

    try:
        return read(json.dumps(stated))
    except (ValueError, TypeError, AttributeError, LookupError, ArithmeticError, RuntimeError, StrictDataclassError):
        return None


def _places(stated: dict[str, Any], usual: Any, depth: int = 0) -> Iterator[tuple[dict[str, Any], str]]:
    """Every key that the class itself has, innermost first, each with the mapping that it stands in."""
    for key in sorted(stated):
        if not isinstance(usual, dict) or key not in usual or key == "model_type":
            continue  # a key of the author's own says something by being there
        if isinstance(stated[key], dict) and depth < _DEEPEST:
            yield from _places(stated[key], usual[key], depth + 1)
        yield stated, key


def generation(folder: Path, config: dict[str, Any]) -> Any:
    """What of ``generation_config.json`` decides, less defaults and what ``config.json`` says as well."""
    path = folder / "generation_config.json"
    if not path.is_file():
        return {}
    stated = _whole(_without(read_json(path, folder), _GENERATION_OUT))
    from transformers import GenerationConfig

    usual = GenerationConfig._get_default_generation_params()
    return {
        key: value
        for key, value in stated.items()
        if value is not None
        and value is not False
        and value != usual.get(key)
        and not (key.endswith("_token_id") and value == config.get(key))
    }


def tokenizer(folder: Path, config: dict[str, Any]) -> Any:
    """What of the tokenizer's files decides: the tokens of every text, and which of them are special.

    ``config``: of config.json, which may name the class and so which files are read.
    """
    path = folder / "tokenizer.json"
    more = _if_there(folder, "tokenizer_config.json")
    named = _class(more.get("tokenizer_class"))
    if path.is_file():
        stated = read_json(path, folder, LARGEST_JSON)
        model = stated.get("model")
        if not isinstance(model, dict) or "vocab" not in model:
            raise FinbenchError(f"{path} holds no tokenizer.", "Fetch it again.")
        merges = model.get("merges")
        if isinstance(merges, list):  # older files join the two by a space
            merges = [one.split(" ", 1) if isinstance(one, str) else one for one in merges]
        found: Any = _said({**stated, "model": {**model, "merges": merges}}, _TOKENIZER_OUT)
        own = {token.get("content"): token for token in stated.get("added_tokens") or [] if isinstance(token, dict)}
        said = {*_NOT_SAID, "add_bos_token", "add_eos_token"}  # of which the last two are not read then
        files = {*_MISTRAL}
    else:
        found, own, said, files = {}, {}, {*_NOT_SAID}, {*_MISTRAL, *_OTHER_TOKENIZERS}
    for kind in (more.get("tokenizer_class"), config.get("tokenizer_class"), _usual(config)):
        files |= _files(kind, path.is_file())
    found |= {name: sha256_file(folder / name) for name in sorted(files) if (folder / name).is_file()}
    special, added = _tokens(folder, own, more)
    settings = {
        key: value
        for key, value in more.items()
        if key not in {*_SETTINGS_OUT, *_MORE_TOKENS, *special}
        and value not in (None, "", [], {})
        and not (value is False and key in said)
        and not (key == "model_max_length" and isinstance(value, int | float) and value >= _NO_LENGTH)
    }
    if named:
        settings["tokenizer_class"] = named
    if more.get("fix_mistral_regex"):  # which asks what wrote the configuration
        settings["written_by"] = config.get("transformers_version")
    return [found, special | ({"added": added} if added else {}), _whole(settings)]


def _class(stated: Any) -> str:
    """The name of a tokenizer's class as every version has it; empty where it means tokenizer.json as it is."""
    name = str(stated or "").removesuffix("Fast")
    return "" if name in _PLAIN_CLASSES else name


def _usual(config: dict[str, Any]) -> str | None:
    """The class of tokenizer that transformers takes for an architecture."""
    from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES

    kind = config.get("model_type")
    return TOKENIZER_MAPPING_NAMES.get(kind) if isinstance(kind, str) else None


def _files(stated: Any, whole: bool) -> set[str]:
    """The files that a class of tokenizers reads; with ``whole``, beside a tokenizer.json, which most take for all."""
    name = _class(stated)
    if not name or name == "MistralCommonBackend":  # whose files always count
        return set()
    from transformers import TokenizersBackend
    from transformers.models.auto.tokenization_auto import tokenizer_class_from_name

    try:
        kind = tokenizer_class_from_name(name) or tokenizer_class_from_name(name + "Fast")
        read = {str(file) for file in kind.vocab_files_names.values()} - {"tokenizer.json"} if kind else set()
    except (ImportError, RuntimeError):  # of a package that it wants
        return {*_OTHER_TOKENIZERS}
    if kind is None or (whole and issubclass(kind, TokenizersBackend)):
        return read - {*_OTHER_TOKENIZERS}
    return read | {*_OTHER_TOKENIZERS}


def _tokens(folder: Path, own: dict[Any, Any], more: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """(special tokens by their role, tokens that other files add to those of ``tokenizer.json`` or tell otherwise).

    transformers cuts every text at each of them. Files that only repeat what is in ``own``, as older versions write
    them, add none. special_tokens_map.json counts where tokenizer_config.json lists no tokens, as there.
    """
    beside = {} if "added_tokens_decoder" in more else _if_there(folder, "special_tokens_map.json")
    roles = {key: value for key, value in (more | beside).items() if key.endswith("_token") and _content(value)}
    special = {key: _content(value) for key, value in roles.items() if isinstance(_content(value), str)}
    listed: list[Any] = [roles[key] for key in special]
    for source in (more, beside):
        for key in _MORE_TOKENS:
            value = source.get(key)
            listed += value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    found = [_plain(token) for token in listed if _content(token) not in own]
    decoder = more.get("added_tokens_decoder")
    for number, token in decoder.items() if isinstance(decoder, dict) else ():
        if not (isinstance(token, dict) and _flags(token) == _flags(own.get(token.get("content")) or {})):
            found.append([number, _plain(token)])
    found += [[text, number] for text, number in _if_there(folder, "added_tokens.json").items() if text not in own]
    return special, sorted({stable_json(token) for token in found})


def _flags(token: dict[str, Any]) -> dict[str, Any]:
    """How texts are cut at an added token."""
    return {"content": token.get("content")} | {
        key: bool(token.get(key)) for key in ("lstrip", "rstrip", "single_word", "normalized", "special")
    }


def _if_there(folder: Path, name: str) -> dict[str, Any]:
    return read_json(folder / name, folder, LARGEST_JSON) if (folder / name).is_file() else {}


def _content(token: Any) -> Any:
    return token.get("content") if isinstance(token, dict) else token


def _said(stated: dict[str, Any], out: Iterable[str]) -> dict[str, Any]:
    """A mapping without what is null or false, at its top and in its model: newer versions write them out."""
    found = {
        key: value
        for key, value in stated.items()
        if key not in out and value is not None and (value is not False or key == "legacy") and value not in ("", [])
    }
    if isinstance(found.get("model"), dict):
        found["model"] = _said(found["model"], ())
    return found


def _without(value: Any, out: set[str]) -> Any:
    """A configuration, and those in it, without these keys; a quantisation's own are others."""
    if not isinstance(value, dict):
        return value
    return {
        key: part if key == "quantization_config" else _without(part, out)
        for key, part in value.items()
        if key not in out
    }


def _plain(value: Any) -> Any:
    """A value as JSON has it."""
    if isinstance(value, dict):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(part) for part in (value if isinstance(value, list | tuple) else sorted(value, key=str))]
    return value if isinstance(value, str | int | float) or value is None else str(value)


def _whole(value: Any) -> Any:
    """Whole numbers without a point: files of one model differ in 10000 and 10000.0, which compute the same."""
    if isinstance(value, dict):
        return {key: _whole(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_whole(part) for part in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
