"""What others call the keys of a recipe: transformers, TRL, peft, LLaMA-Factory, axolotl."""

from __future__ import annotations

import functools
import importlib.util
import re
from pathlib import Path

_ALIKE = {
    "base": "model model_name model_name_or_path base_model pretrained_model_name_or_path pretrained model_id",
    "data": "dataset datasets dataset_name train_file data_files dataset_path train_dataset",
    "method": "peft_type peft_method finetuning_type adapter_type adapter",
    "bits": "load_in_4bit load_in_8bit quantization_bit quantization quantize load_in_4_bit load_in_8_bit",
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
    "optimizer": "optim optimizer_type",
    "gradient_checkpointing": "activation_checkpointing use_gradient_checkpointing disable_gradient_checkpointing",
    "compile": "torch_compile torch_compile_backend torch_compile_mode",
    "kernels": "use_liger_kernel use_liger liger_kernel enable_liger_kernel liger_kernel_config",
    "sharding": "fsdp deepspeed fsdp_config fsdp_version parallelism_config ds_config",
    "max_length": "cutoff_len max_seq_length max_seq_len sequence_len model_max_length seq_length block_size",
    "limit": "max_samples max_train_samples num_samples",
    "chat": "template chat_template apply_chat_template chat_template_path",
    "dtype": "bf16 fp16 torch_dtype compute_dtype precision float16 bfloat16",
    "save_every": "save_steps checkpoint_steps saves_per_epoch",
    "loop": "packing sample_packing padding_free neat_packing packing_strategy pad_to_sequence_len",
    "long_rows": "truncation truncation_strategy excess_length_strategy",
    "validation": "val_size val_set_size eval_dataset validation_split eval_split test_size eval_strategy "
    "evaluation_strategy do_eval test_datasets",
    "validate_every": "eval_steps evals_per_epoch eval_every",
    "validate_on": "metric_for_best_model compute_accuracy",
    "select": "load_best_model_at_end",
    "patience": "early_stopping_patience early_stopping",
    "seed": "random_seed data_seed random_state",
    "beta": "pref_beta dpo_beta",
    "sft_weight": "pref_ftx rpo_alpha",
    "neftune": "neftune_noise_alpha noisy_embedding_alpha",
}
SYNONYMS = {other: key for key, others in _ALIKE.items() for other in others.split()}
_INSTEAD = {
    "epochs says how long, 0.1 too; limit takes fewer rows": "max_steps num_steps total_steps max_train_steps",
    "every step is logged; --report trackio, wandb, mlflow or tensorboard passes it on": "logging_steps "
    "logging_strategy logging_first_step logging_nan_inf_filter report_to run_name project logging_dir plot_loss "
    "use_wandb wandb_project wandb_entity wandb_name wandb_run_id wandb_watch wandb_mode wandb_log_model use_swanlab "
    "use_mlflow mlflow_tracking_uri mlflow_experiment_name use_tensorboard trackio_space_id trackio_project_name "
    "include_num_input_tokens_seen log_level disable_tqdm",
    "the two newest checkpoints are kept, none after the end": "save_total_limit save_strategy save_only_model "
    "save_safetensors save_on_each_node",
    "--out names the folder": "output_dir overwrite_output_dir",
    "--resume goes on": "resume_from_checkpoint auto_resume_from_checkpoints ignore_data_skip",
    "finbench push publishes": "push_to_hub hub_model_id hub_token hub_strategy hub_private_repo hub_always_push "
    "hub_revision",
    "as many rows as fit are validated at once": "per_device_eval_batch_size eval_batch_size "
    "eval_accumulation_steps auto_find_batch_size",
    "rows of like length are taken together": "group_by_length length_column_name train_sampling_strategy "
    "shuffle_dataset",
    "finbench makes the rows ready by itself": "dataloader_num_workers dataloader_pin_memory dataloader_drop_last "
    "dataloader_prefetch_factor dataloader_persistent_workers dataset_num_proc dataset_processes "
    "preprocessing_num_workers dataset_prepared_path overwrite_cache remove_unused_columns dataset_kwargs "
    "pad_to_multiple_of streaming",
    "--map prompt=COLUMN,completion=COLUMN says which columns are what": "dataset_text_field text_column "
    "prompt_column response_column field_instruction field_output label_names",
    "answers alone are learnt": "completion_only_loss assistant_only_loss train_on_inputs train_on_prompt "
    "train_on_eot mask_history response_template loss_type stage rl",
    "AdamW is used as transformers has it": "adam_beta1 adam_beta2 adam_epsilon optim_args optim_target_modules",
    "the loss is plain cross-entropy": "label_smoothing_factor label_smoothing",
    "schedule is linear, cosine or constant": "lr_scheduler_kwargs cosine_min_lr_ratio cosine_constant_lr_ratio "
    "min_lr min_learning_rate",
    "attention is chosen for the machine": "flash_attn flash_attention flash_attention_2 attn_implementation "
    "sdp_attention xformers_attention eager_attention",
    "--gpus N or --processes N shares the rows": "device_map use_cpu no_cuda local_rank n_gpu ddp_backend ddp_timeout "
    "ddp_find_unused_parameters ddp_bucket_cap_mb accelerator_config world_size",
    "bits: 4 is NF4 with double quantisation": "bnb_4bit_quant_type bnb_4bit_use_double_quant bnb_4bit_compute_dtype "
    "double_quantization quantization_type quantization_method",
    "no code of a model is run": "trust_remote_code",
    "the tokenizer is the base's own": "tokenizer tokenizer_name tokenizer_type use_fast_tokenizer eos_token pad_token "
    "special_tokens add_tokens resize_vocab",
    "gradient_checkpointing is auto, true or false": "gradient_checkpointing_kwargs activation_checkpointing_kwargs "
    "activation_offloading",
    "finbench train trains, finbench eval scores": "do_train do_predict predict_with_generate",
    "the method says it: finbench methods": "loraplus_lr_ratio loraplus_lr_embedding pissa_init pissa_iter "
    "peft_use_dora peft_use_rslora use_peft lora_modules_to_save lora_fan_in_fan_out use_galore use_badam",
}
ELSEWHERE = {other: what for what, others in _INSTEAD.items() for other in others.split()}


@functools.cache
def options_of_peft() -> frozenset[str]:
    """The fields of peft's configurations, by their text: importing peft takes seconds."""
    found = importlib.util.find_spec("peft")
    files = Path(found.origin).parent.glob("tuners/*/config.py") if found and found.origin else ()
    field = re.compile(r"^    ([a-z]\w*)\s*:", re.MULTILINE)
    return frozenset(name for file in files for name in field.findall(file.read_text(encoding="utf-8")))
