"""References: hostile ones are refused, and hub: never names anything on this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from conftest import within
from finbench.core import refs
from finbench.core.errors import FinbenchError
from finbench.hub.dev.server import DevHub
from finbench.models import adapters

SHA = "0123456789abcdef0123456789abcdef01234567"

HOSTILE = [
    *("hub:", "hub:/", "hub:name", "hub:org/", "hub:/name", "hub:org/name/more", "hub: org/name", "hub:org/name "),
    *(
        "hub:../etc",
        "hub:../../etc/passwd",
        "hub:org/..",
        "hub:a/../b",
        "hub:org/na..me",
        "hub:./name",
        "hub:.org/name",
    ),
    *("hub://org/name", "hub:org//name", "hub:org\\name", "hub:\\\\host\\share", "hub:/etc/passwd", "hub:C:\\x/y"),
    *(
        "hub:org/name\0",
        "hub:org/na\0me",
        "hub:org/name\n",
        "hub:org/name\r\nX: y",
        "hub:org/na\tme",
        "hub:org/\x1b[31m",
    ),
    *("hub:org/name.git", "hub:org/na--me", "hub:or--g/name", "hub:-org/name", "hub:org/name-", "hub:org/.name"),
    *(
        "hub:file:///etc/passwd",
        "hub:http://host/x",
        "hub:hub:org/name",
        "hub:~/name",
        "hub:$HOME/name",
        "hub:org/na%2e%2e",
    ),
    *("hub:оrg/name", "hub:org/nаme", "hub:org/name․x", "hub:org／name", "hub:org/n​ame", "hub:org/name‮"),
    *("hub:" + "a" * 97 + "/b", "hub:a/" + "b" * 97, "hub:a/b@" + "c" * 101, "hub:" + "a/" * 50_000),
    *(
        "hub:a/b@",
        "hub:a/b@../x",
        "hub:a/b@refs/../x",
        "hub:a/b@/etc",
        "hub:a/b@x//y",
        "hub:a/b@x\n",
        "hub:a/b@x@y",
        "hub:a/b@-x",
    ),
    *("hub:a/b@refs/pr/", "hub:a/b@x.", "hub:a/b@x y", "hub:a/b@x?y", "hub:a/b@x#y", "hub:a/b@x%2fy"),
    *(
        "file:///etc/passwd",
        "file:x",
        "FILE:/etc",
        "HUB:org/name",
        "Hub:org/name",
        "https://huggingface.co/a/b",
        "hf://a/b",
    ),
    *("һub:org/name", "ｈub:org/name", "hub：org/name", "zoo:", "zoo:../x", "zoo:a/b", "zoo:a\n", "zoo:" + "a" * 97),
    *("", "\0", "a\0b", "./a\nb", "a\x1bb/c"),
]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_references_never_name_a_folder_or_a_repository(text: str) -> None:
    with within(1), pytest.raises(FinbenchError, match="Not a valid reference") as caught:
        refs.parse(text)
    assert len(caught.value.message) < 500
    assert all(ord(character) >= 32 for character in caught.value.message)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("https://huggingface.co/org/name/tree/main", "Write hub:org/name."),
        ("http://127.0.0.1:8000/v1", "Write --engine server --model NAME --arg url=ADDRESS for an endpoint."),
    ],
)
def test_an_address_says_what_to_write_instead(text: str, hint: str) -> None:
    with pytest.raises(FinbenchError) as caught:
        refs.parse(text)
    assert caught.value.hint == hint


@pytest.mark.parametrize(
    ("text", "ref"),
    [
        ("hub:org/name", refs.Ref("hub", "org/name")),
        ("hub:org/na.me_1-x@main", refs.Ref("hub", "org/na.me_1-x", "main")),
        (f"hub:org/name@{SHA}", refs.Ref("hub", "org/name", SHA)),
        ("hub:org/name@refs/pr/1", refs.Ref("hub", "org/name", "refs/pr/1")),
        ("zoo:fpb-smollm2-135m-lora", refs.Ref("zoo", "fpb-smollm2-135m-lora")),
        ("./folder", refs.Ref("folder", "./folder")),
        ("~/folder", refs.Ref("folder", "~/folder")),
        ("a/b", refs.Ref("folder", "a/b")),
        ("C:\\models\\x", refs.Ref("folder", "C:\\models\\x")),
        ("smollm2-135m", refs.Ref("name", "smollm2-135m")),
    ],
)
def test_good_references(text: str, ref: refs.Ref) -> None:
    assert refs.parse(text) == ref


def test_a_local_folder_of_the_same_name_is_never_taken(
    dev_hub: DevHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("hub:org/name", "org/name"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "adapter_config.json").write_text("{}")
    with pytest.raises(FinbenchError, match="does not exist"):
        adapters.locate("hub:org/name")
