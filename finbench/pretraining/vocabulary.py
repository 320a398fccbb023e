"""Tokenizers of a pretraining: a base's, or a byte-level BPE made from the training documents; where a text begins."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from finbench.core import paths
from finbench.core.console import say
from finbench.core.errors import FinbenchError
from finbench.core.files import digest, folder_atomic
from finbench.models import bases
from finbench.pretraining import corpus
from finbench.pretraining.spec import StartSpec

END = "<|endoftext|>"


def tokenizer_of(start: StartSpec, located: Sequence[corpus.Located], held_out: float) -> Any:
    """The tokenizer that a recipe names, or the one made from its documents, once, in the cache."""
    from filelock import FileLock
    from transformers import AutoTokenizer

    if start.vocabulary is None:
        return bases.load_tokenizer(bases.resolve(start.base or start.tokenizer or ""))
    key = digest({"vocabulary": start.vocabulary, "sources": [part.identity for part in located], "held_out": held_out})
    folder = paths.cache_dir() / "pretrain" / f"tokenizer-{key[:16]}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not (folder / "tokenizer.json").is_file():
            say(f"Making a vocabulary of {start.vocabulary:,} from the training documents (once) ...")
            with folder_atomic(folder) as staging:
                _made(start.vocabulary, _training_texts(located, held_out)).save_pretrained(staging)
    return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def _training_texts(located: Sequence[corpus.Located], held_out: float) -> Iterator[str]:
    for part in located:
        divider = corpus.Divider(held_out)
        for text in corpus.raw(part):
            if divider.held_out(text) is False:
                yield text


def _made(size: int, texts: Iterator[str]) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # as GPT-2: any text comes back as it was
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=raw, eos_token=END, pad_token=END, bos_token=END)


def frame(tokenizer: Any) -> tuple[list[int], list[int]]:
    """(ids before a document, ids after it): the first token where the tokenizer puts one, else end-of-text.

    GPT-2's stream is ``end text end text ...``; Llama-2's ``<s> text </s> <s> text </s> ...``.
    """
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    puts_first = bos is not None and bos != eos and tokenizer.encode("a")[:1] == [bos]
    return ([bos], [eos]) if puts_first else ([eos], [])


def identity(tokenizer: Any) -> str:
    """A digest of all that decides the ids of a text."""
    if not getattr(tokenizer, "is_fast", False):
        raise FinbenchError("Pretraining wants a fast tokenizer (tokenizer.json).", "Name another tokenizer.")
    return digest({"tokenizer": json.loads(tokenizer.backend_tokenizer.to_str()), "frame": frame(tokenizer)})
