"""What others call the keys of a recipe: transformers, TRL, peft, LLaMA-Factory, axolotl."""

from __future__ import annotations

import functools
import importlib.util
import re
from pathlib import Path

_ALIKE = {
    "base": "model model_name model_name_or_path base_model pretrained_model_name_or_path pretrained",
    "data": "dataset datasets dataset_name train_file data_files dataset_path",
    "method": "peft_type peft_method finetuning_type adapter_type",
    "bits": "load_in_4bit load_in_8bit quantization_bit quantization quantize",
    "rank": "r lora_r lora_rank",
    "alpha": "lora_alpha",
    "dropout": "lora_dropout",
    "target_modules": "lora_target lora_target_modules lora_target_linear",
    "lr": "learning_rate peak_lr max_lr",
    "schedule": "lr_scheduler_type lr_scheduler scheduler lr_schedule",
    "warmup": "warmup_ratio warmup_steps num_warmup_steps",
    "weight_decay": "wd decay",
    "max_grad_norm": "clip_grad gradient_clipping grad_clip",
    "epochs": "num_train_epochs num_epochs epoch train_epochs",
    "batch_size": "per_device_train_batch_size micro_batch_size train_batch_size batch",
    "accumulate": "gradient_accumulation_steps grad_accum accumulation_steps",
    "optimizer": "optim",
    "gradient_checkpointing": "activation_checkpointing use_gradient_checkpointing",
    "compile": "torch_compile",
    "kernels": "use_liger_kernel use_liger liger_kernel enable_liger_kernel",
    "sharding": "fsdp deepspeed fsdp_config",
    "max_length": "cutoff_len max_seq_length max_seq_len sequence_len model_max_length seq_length block_size",
    "limit": "max_samples max_train_samples num_samples",
    "chat": "template chat_template apply_chat_template",
    "dtype": "bf16 fp16 torch_dtype compute_dtype precision",
    "save_every": "save_steps checkpoint_steps",
    "seed": "random_seed data_seed random_state",
}
SYNONYMS = {other: key for key, others in _ALIKE.items() for other in others.split()}


@functools.cache
def options_of_peft() -> frozenset[str]:
    """The fields of peft's configurations, by their text: importing peft takes seconds."""
    found = importlib.util.find_spec("peft")
    files = Path(found.origin).parent.glob("tuners/*/config.py") if found and found.origin else ()
    field = re.compile(r"^    ([a-z]\w*)\s*:", re.MULTILINE)
    return frozenset(name for file in files for name in field.findall(file.read_text(encoding="utf-8")))
