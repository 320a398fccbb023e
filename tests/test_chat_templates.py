"""Chat templates of families: what they are given stands in the prompt, or one line says what does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from jinja2 import TemplateError

from finbench.core.errors import FinbenchError
from finbench.models import bases

SYSTEM, ASKED = {"role": "system", "content": "Be a banker."}, {"role": "user", "content": " What is IT?\n"}
REPLY = {"role": "assistant", "content": "It is <b>Cash</b>."}
CONVERSATIONS = ([ASKED], [SYSTEM, ASKED], [ASKED, REPLY, ASKED], [SYSTEM, ASKED, REPLY, ASKED, REPLY, ASKED])

_ENDS = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}" + _ENDS
_IS_USER = (
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}"
)
# each as its family writes, cut to what it does with texts
FAMILIES = {
    "ChatML": CHATML,
    "in capitals": CHATML.replace("m.content", "m.content | upper"),
    "Llama 3": "{% for m in messages %}{% set c = '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' + "
    "m['content'] | trim + '<|eot_id|>' %}{% if loop.first %}{% set c = bos_token + c %}{% endif %}{{ c }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}",
    "Llama 2": "{% set o = 0 %}{% if messages[0].role == 'system' %}{% set o = 1 %}{% endif %}"
    "{% for m in messages[o:] %}{% if m.role == 'user' %}[INST] {% if loop.first and o %}<<SYS>>\n"
    "{{ messages[0].content }}\n<</SYS>>\n\n{% endif %}{{ m.content.strip() }} [/INST]{% else %} "
    "{{ m.content.strip() }} </s>{% endif %}{% endfor %}",
    "Gemma 2": "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}{% for m in messages %}" + _IS_USER +
    "{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\n' + m['content'] | trim + "
    "'<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}",
    "Gemma 3": "{% set first = '' %}{% if messages[0].role == 'system' %}{% set first = (messages[0].content if "
    "messages[0].content is string else messages[0].content[0].text) + '\n\n' %}{% set messages = messages[1:] %}"
    "{% endif %}{% for m in messages %}" + _IS_USER + "<start_of_turn>{{ m.role }}\n{{ first if loop.first }}"
    "{% if m.content is string %}{{ m.content | trim }}{% else %}{% for part in m.content %}{{ part.text | trim }}"
    "{% endfor %}{% endif %}<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}",
    "Mistral, whose system prompt stands in the last turn": "{% set first = namespace(text='') %}{{ bos_token }}"
    "{% for m in messages %}{% if m.role == 'system' %}{% set first.text = m.content %}{% elif m.role == 'user' %}"
    "[INST] {% if loop.last %}{{ first.text + '\n\n' if first.text }}{% endif %}{{ m.content }}[/INST]"
    "{% else %} {{ m.content }}</s>{% endif %}{% endfor %}",
    "Qwen3": "{% if messages[0].role == 'system' %}<|im_start|>system\n{{ messages[0].content }}<|im_end|>\n{% endif %}"
    "{% for m in messages %}{% if m.content is string %}{% set c = m.content %}{% else %}{% set c = '' %}{% endif %}"
    "{% if m.role == 'user' or (m.role == 'system' and not loop.first) %}<|im_start|>{{ m.role }}\n{{ c }}<|im_end|>\n"
    "{% elif m.role == 'assistant' %}{% if '</think>' in c %}{% set c = c.split('</think>')[-1].lstrip('\n') %}"
    "{% endif %}<|im_start|>assistant\n{{ c }}<|im_end|>\n{% endif %}{% endfor %}" + _ENDS +
    "{% if add_generation_prompt and enable_thinking is defined and enable_thinking is false %}"
    "<think>\n\n</think>\n\n{% endif %}",
    "DeepSeek R1": "{% set ns = namespace(system='') %}{% for m in messages %}{% if m['role'] == 'system' %}"
    "{% set ns.system = m['content'] %}{% endif %}{% endfor %}{{ bos_token }}{{ ns.system }}{% for m in messages %}"
    "{% if m['role'] == 'user' %}{{ '<｜User｜>' + m['content'] }}{% elif m['role'] == 'assistant' %}"
    "{% set c = m['content'] %}{% if '</think>' in c %}{% set c = c.split('</think>')[-1] %}{% endif %}"
    "{{ '<｜Assistant｜>' + c + '<｜end▁of▁sentence｜>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<｜Assistant｜><think>\n' }}{% endif %}",
    "Zephyr": "{% for m in messages %}{% if m['role'] == 'user' %}{{ '<|user|>\n' + m['content'] + eos_token }}"
    "{% elif m['role'] == 'system' %}{{ '<|system|>\n' + m['content'] + eos_token }}{% else %}"
    "{{ '<|assistant|>\n' + m['content'] + eos_token }}{% endif %}"
    "{% if loop.last and add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}{% endfor %}",
    "Qwen2, with a system prompt of its own": "{% for m in messages %}{% if loop.first and m.role != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "<|im_end|>\n{% endfor %}" + _ENDS,
}  # fmt: skip
PHI3 = (
    "{% for m in messages %}{% if m['role'] == 'user' %}{{ '<|user|>\n' + m['content'] + '<|end|>\n' }}"
    "{% elif m['role'] == 'assistant' %}{{ '<|assistant|>\n' + m['content'] + '<|end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
LAST_ONLY = "<user>{{ messages[-1]['content'] }}" + _ENDS
# of models that see pictures
SMOLVLM = (
    "<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }}"
    "{% if message['content'][0]['type'] == 'image' %}{{ ':' }}{% else %}{{ ': ' }}{% endif %}"
    "{% for line in message['content'] %}{% if line['type'] == 'text' %}{{ line['text'] }}"
    "{% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
_PARTS = "{% for part in m.content | selectattr('type', 'equalto', 'text') %}{{ part.text }}{% endfor %}"
ONLY_PARTS = "{% for m in messages %}{% if m.content is string %}{{ raise_exception('a list is wanted') }}{% endif %}"
ONLY_PARTS += "<{{ m.role }}>" + _PARTS + "\n{% endfor %}"


@pytest.fixture(scope="module")
def tokenizer(llama: Path) -> Any:
    found = bases.load_tokenizer(bases.resolve(str(llama)))
    found.bos_token = found.eos_token
    return found


def made(tokenizer: Any, template: Any, messages: list[dict[str, str]], *how: bool, **variables: Any) -> str:
    tokenizer.chat_template = template
    return bases.chat_template(tokenizer, "x", variables)(messages, *how)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_template_that_shows_what_it_is_given_is_used_as_it_is(name: str, tokenizer: Any) -> None:
    refused = 0
    for messages in [*CONVERSATIONS, [ASKED, REPLY], [*CONVERSATIONS[2], REPLY]]:
        asks = messages[-1] is ASKED
        for variables in ({}, {"enable_thinking": False}):
            tokenizer.chat_template = FAMILIES[name]
            try:
                wanted = tokenizer.apply_chat_template(
                    messages, tokenize=False, add_generation_prompt=asks, **variables
                )
            except TemplateError as fault:
                wanted, refused = f"The chat template of x refuses: {fault}", refused + 1
            try:
                found = made(tokenizer, FAMILIES[name], messages, asks, True, **variables)
            except FinbenchError as fault:
                found = fault.message
            assert found == wanted
    assert refused == (4 if name == "Gemma 2" else 0)


@pytest.mark.parametrize("template", [SMOLVLM, ONLY_PARTS])
def test_templates_for_pictures_and_text_are_given_parts(template: str, tokenizer: Any) -> None:
    """They show nothing of a text that is given as it is, and say nothing of it."""
    for messages in CONVERSATIONS:
        text = made(tokenizer, template, messages)
        assert text.count(ASKED["content"]) == sum(message is ASKED for message in messages)
        assert all(message["content"] in text for message in messages)
    begun = made(tokenizer, SMOLVLM, [ASKED, {"role": "assistant", "content": "It is"}], False)
    assert begun.endswith("Assistant: It is")


@pytest.mark.parametrize(
    ("template", "messages", "what", "hint"),
    [
        (_ENDS, [ASKED], "what the user says", "Use --no-chat"),
        (_ENDS, [SYSTEM, ASKED, REPLY, ASKED], "what the user says", "Use --no-chat"),
        (PHI3, [SYSTEM, ASKED], "the system prompt", "Leave out --system-prompt, or use --no-chat."),
        (SMOLVLM.replace("{{ line['text'] }}", "{{ line['text'] if message.role != 'system' }}"), [SYSTEM, ASKED],
         "the system prompt", "Leave out --system-prompt"),
        (LAST_ONLY, [ASKED, REPLY, ASKED], "earlier turns", "Use --no-fewshot-as-multiturn"),
        (PHI3.replace("'assistant'", "'model'"), [ASKED, REPLY, ASKED], "earlier turns", "--no-fewshot-as-multiturn"),
        (PHI3.replace("'assistant'", "'model'"), [ASKED, REPLY], "what the assistant says", "--set chat=false"),
    ],
)  # fmt: skip
def test_what_a_template_leaves_out_is_said(
    template: str, messages: list[dict[str, str]], what: str, hint: str, tokenizer: Any
) -> None:
    with pytest.raises(FinbenchError) as fault:
        made(tokenizer, template, messages, messages[-1] is ASKED, True)
    assert fault.value.message == f"The chat template of x leaves out {what}."
    assert hint in fault.value.hint
    tokenizer.chat_template = template
    if template is not _ENDS:  # what it does show is shown
        assert made(tokenizer, template, [ASKED]).count(ASKED["content"]) == 1


def test_each_shape_of_a_conversation_is_tried_once(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer.chat_template = CHATML
    apply, rendered = bases.chat_template(tokenizer, "x"), []
    real = tokenizer.apply_chat_template
    monkeypatch.setattr(
        tokenizer, "apply_chat_template", lambda given, **how: rendered.append(given) or real(given, **how)
    )
    for _ in range(3):
        apply([ASKED])
        apply([SYSTEM, ASKED])
    assert len(rendered) == 2 + 6


@pytest.mark.parametrize(
    ("template", "why"), [(FAMILIES["Gemma 2"], "System role not supported"), ("alternating", "roles must alternate")]
)
def test_a_template_that_refuses_a_system_prompt_says_what_to_leave_out(
    template: str, why: str, tokenizer: Any
) -> None:
    template = template.replace("alternating", "{% for m in messages %}" + _IS_USER + "{{ m.content }}{% endfor %}")
    with pytest.raises(FinbenchError, match=why) as fault:
        made(tokenizer, template, [SYSTEM, ASKED])
    assert fault.value.hint == "Leave out --system-prompt, or use --no-chat."
    with pytest.raises(FinbenchError, match="roles must alternate") as fault:
        made(tokenizer, template, [ASKED, ASKED])
    assert fault.value.hint == "Use --no-chat; in training, --set chat=false."


def test_of_several_templates_the_default_is_used(tokenizer: Any) -> None:
    assert made(tokenizer, {"rag": PHI3, "default": CHATML}, [ASKED]) == made(tokenizer, CHATML, [ASKED])
    with pytest.raises(FinbenchError) as fault:
        made(tokenizer, {"rag": PHI3, "tool_use": CHATML}, [ASKED])
    assert fault.value.message.endswith(
        "has several chat templates (rag, tool_use), and none of them is named default."
    )
    assert "--no-chat" in fault.value.hint
