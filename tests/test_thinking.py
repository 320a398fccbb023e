"""Reasoning and answer are told apart in what every family writes; what was cut off is never read; prompts of cot."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import quick
from finbench.core import catalog
from finbench.engines import thinking
from finbench.engines.interface import Generated
from finbench.engines.thinking import FAMILIES, given_apart, switches, taken_apart
from finbench.scoring import prompts


def apart(raw: str, profile: Any = "think", ended: bool = True, **options: Any) -> Generated:
    stated: dict[str, Any] = {"until": ["\n"], "tokens": 100, "count": lambda text: len(text.split()), **options}
    return taken_apart(raw, profile=profile, ended=ended, **stated)


# what the families write, from their model cards and the templates of servers
WRITTEN = {
    "Qwen3": "<think>\nUp, so negative? No.\n</think>\n\npositive<|im_end|>",
    "DeepSeek-R1, whose prompt opens": "Up, so negative? No.\n</think>\n\npositive",
    "Magistral": "[THINK]Up, so negative? No.[/THINK]positive</s>",
    "gpt-oss": "<|channel|>analysis<|message|>negative? No.<|end|><|start|>assistant<|channel|>final<|message|>positive"
    "<|return|>",
    "gpt-oss with a preamble": "<|channel|>analysis<|message|>Hm<|end|><|start|>assistant"
    "<|channel|>commentary<|message|>negative<|end|><|start|>assistant"
    "<|channel|>final <|constrain|>text<|message|>positive<|return|>",
    "gpt-oss, stripped": "analysisThe profit rose, not negative.assistantfinalpositive",
    "gpt-oss, stripped, in small letters": "analysisneed a label. negative? no.assistantfinalpositive",
    "gpt-oss, stripped, with a preamble": "commentaryOne: negative?assistantanalysisNo.assistantfinalpositive",
    "gpt-oss, whose prompt opens": "<|message|>negative?<|end|><|start|>assistant<|channel|>final<|message|>positive",
    "gpt-oss, corrected": "<|channel|>analysis<|message|>Hm<|end|><|start|>assistant<|channel|>final<|message|>negative"
    "<|end|><|start|>assistant<|channel|>analysis<|message|>No<|end|><|start|>assistant<|channel|>final<|message|>"
    "positive<|return|>",
    "Gemma 4": "<|channel>thought\nnegative? No.<channel|>positive<turn|>",
    "Seed-OSS": "<seed:think>negative? No.</seed:think>positive",
    "Command A": "<|START_THINKING|>negative?<|END_THINKING|><|START_RESPONSE|>positive<|END_RESPONSE|>",
    "Kimi-VL": "◁think▷negative?◁/think▷positive",
    "Hunyuan": "<think>\nnegative?\n</think>\n<answer>\npositive\n</answer>",
    "Granite 3.2": "Here is my thought process: negative?\n\nHere is my response:\n\npositive",
    "Phi-4-reasoning": "<think>negative? No.</think>\n\n**positive**".replace("**", ""),
    "OpenThinker": "<|begin_of_thought|>negative?<|end_of_thought|><|begin_of_solution|>positive<|end_of_solution|>",
    "nested": "<think>a <think>negative</think> b</think>positive",
    "said twice": "<think><think>negative</think>positive",
    "closed twice": "<think>negative</think>\n</think>\npositive",
    "two reasonings": "<think>negative</think>\nLet me check.\n<think>neutral</think>positive",
    "talked about": "<think>They want <think> tags; negative?</think>positive",
    "its end quoted": "<think>I end with `</think>`, then negative? No.</think>positive",
    "its end named": "<think>After </think> I say negative? No, I say it rose.</think>\n\npositive",
    "in capitals": "<THINK>negative?</THINK>\npositive",
    "prompted, in capitals": "<Reasoning>\nnegative?\n</Reasoning>\n<Output>\npositive\n</Output>",
    "Marco-o1": "<Thought>negative?</Thought>\n<Output>positive</Output>",
    "prompted otherwise": "<scratchpad>\nnegative?\n</scratchpad>\n<final_answer>positive</final_answer>",
    "of two kinds": "<think>neutral</think>\n<reasoning>negative?</reasoning>\n<analysis>Up.</analysis>positive",
    "one in another": "<think>a <reasoning>negative</reasoning> b</think>positive",
    "a solution": "<think>negative?</think>\n<solution>\npositive\n</solution>",
    "an output": "<think>negative?</think><output>\npositive\n</output>",
    "an answer in capitals": "<think>negative?</think><Answer>\npositive\n</Answer>",
}
SPECIALS = ["<|im_end|>", "</s>", "<turn|>"]


@pytest.mark.parametrize("name", WRITTEN)
def test_the_final_part_is_what_follows_the_reasoning(name: str) -> None:
    found = apart(WRITTEN[name], specials=SPECIALS)
    assert (found.text, found.truncated) == ("positive", False)
    assert found.answer_tokens + found.reasoning_tokens == 100
    assert 0 < found.answer_tokens < 10


# of families whose start is no plain tag
OPENINGS = {
    "gpt-oss (harmony channels)": "<|channel|>analysis<|message|>",
    "gpt-oss, special tokens stripped": "analysis",
    "Granite 3.2": "Here's my thought process:",
    "prompted models, at the start of a turn": "<analysis>",
    "Hunyuan 3 and 4": "<think:a1>",
    "K2 (IFM)": "<ifm|think_fast>",
}


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.models)
@pytest.mark.parametrize("ended", [True, False])
def test_reasoning_that_does_not_end_is_no_answer_in_any_family(family: thinking.Family, ended: bool) -> None:
    """However plausible an answer stands in it, and although the first line ends."""
    opening = OPENINGS.get(family.models) or re.sub(r"\\(.)", r"\1", family.start)
    assert thinking._family(opening + "A") == family
    found = apart(opening + "Up: positive\n\nAnswer: positive\n", ended=ended)
    assert (found.text, found.truncated, found.answer_tokens) == ("", True, 0), opening


@given(st.text("ab \n", max_size=30), st.sampled_from(["positive", "12.5 %", '["a"]']))
def test_any_reasoning_is_followed_by_the_answer_and_never_read(thought: str, answer: str) -> None:
    for start, end in (("<think>", "</think>"), ("", "</think>"), ("[THINK]", "[/THINK]")):
        found = apart(f"{start}{thought}{end}\n\n{answer}\nand more")
        assert (found.text, found.truncated) == (answer, False)
        cut = apart(f"<think>{thought}{answer}\n", ended=False)
        assert (cut.text, cut.truncated) == ("", True)


def test_without_a_mark_a_turn_that_the_budget_ended_is_reasoning() -> None:
    raw = "positive\nOkay, let me think about that"
    assert apart(raw, ended=False) == Generated("", raw, 100, 0, truncated=True)
    assert apart(raw, ended=True).text == "positive"  # a model that does not think
    assert apart(raw, "chat", ended=False).text == "positive"  # nobody expects reasoning there
    assert apart("Ok, posit", "chat", ended=False) == Generated("", "", 0, 100, truncated=True)
    assert apart("<think>posit", "chat", ended=False).truncated  # thinks although it should not


LONG = 50_000
DEGENERATE = {
    "blank lines in a fence": "```\nx" + "\n" * LONG,
    "blanks in a fence": "```\nx" + " \n" * LONG,
    "tildes": "~~~\n" + "~~\n" * LONG,
    "starts": "<think>" * LONG,
    "ends": "</think>" * LONG,
    "marks in quotes": "'<think>'" * LONG,
    "two families in turns": "<think></think><reasoning></reasoning>" * LONG,
    "channels": "<|channel|>final" * LONG,
    "words": "analysis answer is " * LONG,
    "dress": "> **" * LONG,
    "brackets": '{"a":[' * LONG,
}


@pytest.mark.parametrize("name", DEGENERATE)
def test_what_a_model_repeats_for_ever_takes_no_time(name: str) -> None:
    """Seconds of the processor: nothing grows with the square of an answer."""
    started = time.process_time()
    for profile in ("think", "cot"):
        apart(DEGENERATE[name], profile)
    assert quick(time.process_time() - started, 5)


def test_the_prompt_may_open_the_reasoning() -> None:
    assert apart("positive\n", prompt="<|im_start|>assistant\n<think>\n").truncated
    assert apart("positive", prompt="<|start|>assistant<|channel|>analysis").truncated
    assert apart("hm</think>positive", prompt="<|im_start|>assistant\n<think>\n").text == "positive"
    assert apart("positive", "chat", prompt="<think>\n\n</think>\n\n").text == "positive"


def test_an_answer_that_the_budget_cut_is_not_whole() -> None:
    assert apart("<think>a</think>12", ended=False) == Generated("", "<think>a</think>", 99, 1, truncated=True)
    assert apart("<think>a</think>12\n", ended=False).text == "12"
    assert apart("<think>a</think>12", ended=False, until=[]).truncated
    assert apart("<think>a</think>positive <think>no, ").truncated  # thinks again
    assert apart("<think>a</think><reasoning>positive").truncated  # in another way


def test_json_and_fences_are_one_line() -> None:
    assert apart('```json\n[\n {"a": 1},\n 2]\n```', "chat").text == '[ {"a": 1}, 2]'
    assert apart('[\n {"a": 1}\n]\nThat is all.', "chat").text.replace(" ", "") == '[{"a":1}]'
    assert apart('[\n {"a": 1', "chat", ended=False).truncated
    for second in ('```json\n["b"]\n```', '["b"]', 'or\n{"b": 1}'):  # is a second answer, and seen as one
        assert "b" in apart(f'```json\n["a"]\n```\n{second}', "chat").text
        assert "b" in apart(f'["a"]\n{second}', "chat").text


def test_a_text_of_the_user_ends_the_reasoning() -> None:
    assert apart("a </t> positive", think_end="</t>").text == "positive"
    assert apart("<think>a</think> positive", think_end="</t>").truncated


def test_tags_behind_an_answer_are_no_reasoning_before_it() -> None:
    assert apart("<answer>positive</answer>\n<analysis>It rose.</analysis>", "chat").text == "positive"
    assert apart("positive\n<scratchpad>negative?</scratchpad>", "chat").text == "positive"
    assert apart("analysis", "chat").text == "analysis"  # a word of its own


COT = [
    ("so it rose\nAnswer: 12\n", "12"),
    ("so it rose\n**Answer:** 12", "12"),
    ("so\n**Final answer: 12**", "12**"),
    ("Answer: 11\nWait.\nAnswer: 12", "12"),
    ("<think>Answer: 9</think>\nAnswer: 12", "12"),
    ("<think>Answer: 9</think>Answer: 12", "12"),
    ("Answer:\n12", "12"),
    ("so\n`Answer: 12`", "12`"),
    ("so\n*Answer:* 12", "12"),
    ("so\n__Answer__: 12", "12"),
    ("so\n### Answer\uff1a12", "12"),
    ("so\nThe final answer is: 12", "12"),
    ("so\n**My answer:** **12**", "**12**"),
    ("so\nThe answer is in the table: 12", ""),
    ("The answer is 12", ""),
    ("<think>Answer: 12", ""),
]


@pytest.mark.parametrize(("raw", "text"), COT)
def test_cot_is_read_from_its_last_line_with_an_answer(raw: str, text: str) -> None:
    assert apart(raw, "cot").text == text


def test_reasoning_that_goes_on_after_an_answer_and_is_cut_off_is_not_read() -> None:
    raw = "so\nAnswer: 12\nWait, let me check the"
    assert apart(raw, "cot").text == "12"
    assert apart(raw, "cot", ended=False) == Generated("", raw, 100, 0, truncated=True)
    quoted = "<think>I will close with '</think>' and say\npositive\nor"
    assert apart(quoted, ended=False) == Generated("", quoted, 100, 0, truncated=True)


def test_a_model_without_turns_has_answered_with_its_first_line() -> None:
    prompt = f"Q\n\n{prompts.REASONING}"
    raw = "up\nAnswer: positive\n\nQ: another\nAnswer: negative\n"
    assert thinking.REASONING == prompts.REASONING
    assert apart(raw, "cot", ended=False, prompt=prompt).text == "positive"
    assert thinking.answered(raw, prompt, ["\n"])
    assert not thinking.answered("up\nAnswer: posi", prompt, ["\n"])
    assert not thinking.answered(raw, "Q", ["\n"])


def test_a_server_that_parts_the_two_itself_is_taken_at_its_word() -> None:
    def of(reasoning: str, content: str, ended: bool = True, **options: Any) -> Generated:
        stated: dict[str, Any] = {"profile": "think", "until": ["\n"], "tokens": 40, **options}
        return given_apart(reasoning, content, ended=ended, **stated)

    assert of("a b c", "positive\nwhy", reasoning_tokens=30) == Generated("positive", "a b c", 30, 10)
    assert of("positive\n", "", ended=False) == Generated("", "positive\n", 40, 0, truncated=True)
    assert of("", "<think>a</think>positive").text == "positive"
    assert of("", "positive\nOkay", ended=False).truncated
    assert of("positive?", "posit", ended=False).truncated
    assert of("a", "b\nAnswer: 3", profile="cot").text == "3"
    assert of("a", "positive", think_end="</t>") == of("a", "positive")  # the server has taken the mark away
    assert of("a", "negative?</t>positive", think_end="</t>").text == "positive"
    assert of("a", "positive\n", ended=False, think_end="</t>").truncated


def test_templates_say_which_switch_they_have() -> None:
    qwen = "{% if enable_thinking is defined and enable_thinking is false %}<think></think>{% endif %}{{ messages }}"
    assert switches(qwen, on=True) == {"enable_thinking": True}
    assert switches(qwen, on=False) == {"enable_thinking": False}
    assert switches("{% if thinking %}a{% endif %}", on=True) == {"thinking": True}
    assert switches("{{ thinking_budget }}", on=False) == {"thinking_budget": 0}
    assert switches("{{ thinking_budget }}", on=True) == {}  # its default is no limit
    assert switches("{% for m in messages %}{{ m.thinking }} thinking{% endfor %}", on=True) == {}
    assert switches({"default": qwen, "tool_use": "x"}, on=False) == {"enable_thinking": False}
    assert switches("{% broken", on=True) == {}


def test_cot_asks_before_the_cue_and_after_the_question() -> None:
    from finbench.core.records import Generation

    task = catalog.tasks()["finbench_mini_sentiment"]
    lm_task = prompts.load([task], None)[task.name]
    doc = prompts.rows(lm_task, "test")[0]
    direct = str(prompts.prompt(lm_task, doc))
    how = Generation(profile="cot")
    plain = str(prompts.prompt(lm_task, doc, how=how))
    assert direct.endswith("\nAnswer:")
    assert plain.startswith(direct.removesuffix("\nAnswer:") + "\n\nFirst reason step by step.")
    assert plain.endswith(f"Answer: <answer>\n\n{prompts.REASONING}")

    def template(messages: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        return repr(messages)

    [turn] = eval(str(prompts.prompt(lm_task, doc, template, how)))
    assert turn["content"] == plain.removesuffix(f"\n\n{prompts.REASONING}")
    lm_task.config.metadata["finbench_cot"] = "Show your work. Answer: <number>"
    assert str(prompts.prompt(lm_task, doc, template, how)).count("Show your work.") == 1


def test_the_page_names_every_family_with_its_marks() -> None:
    page = (Path(__file__).parent.parent / "docs" / "evaluation.md").read_text()
    table = page[page.index("| families | marks") :]
    for family in FAMILIES:
        assert f"| {family.models} | `" in table
    assert all(name in page for name in thinking._SWITCHES)
