"""Signatures by OpenSSH, as git takes them for commits: ``ssh-keygen -Y``, offline, without a secret to check them.

A leaderboard's ``allowed_signers`` names the keys of its maintainers, ``revoked_keys`` those that are not believed
any more (a key a line, or a list that ``ssh-keygen -k`` made).
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from finbench.core.errors import FinbenchError, reason

NAMESPACE = "finbench-attestation"  # a signature for anything else is none here
SIGNERS, REVOKED = "allowed_signers", "revoked_keys"
_SECONDS = 300  # to type a passphrase, or to touch a key


@dataclass(frozen=True)
class Signed:
    """What a signature is worth: ``good`` and by whom, ``revoked`` and by whom, or ``bad`` and why."""

    state: Literal["good", "revoked", "bad"]
    by: str


def sign(text: bytes, key: Path) -> bytes:
    """A signature of ``text`` by a private key, or by the agent's for a public one. FinbenchError if there is none."""
    done = _run(["sign", "-f", str(key), "-n", NAMESPACE], text)
    if done.returncode or b"BEGIN SSH SIGNATURE" not in done.stdout:
        raise FinbenchError(
            f"Nothing was signed by {key}: {_said(done)}.",
            f"Name a private key: --key ~/.ssh/id_ed25519. Make one: ssh-keygen -t ed25519 -f {key}",
        )
    return done.stdout


def checked(text: bytes, signature: Path, when: str, signers: Path, revoked: Path) -> Signed:
    """Whether ``signature`` is of ``text`` by a key of ``signers`` that was valid at ``when`` and is not revoked."""
    if not signers.is_file():
        return Signed("bad", f"{signers} does not exist, so no key is believed")
    at = ["-O", "verify-time=" + re.sub(r"[^0-9Z]", "", when)]
    found = _run(["find-principals", "-s", str(signature), "-f", str(signers), *at], b"")
    names = found.stdout.decode("utf-8", "replace").splitlines()
    if found.returncode or not names:
        return Signed("bad", f"it is by no key of {signers}, or is no signature")
    asked = ["verify", "-s", str(signature), "-f", str(signers), "-I", names[0], "-n", NAMESPACE, *at]
    once = _run(asked, text)
    if once.returncode:
        return Signed("bad", f"it is not of this text for {NAMESPACE} ({_said(once)})")
    if revoked.is_file() and _run([*asked, "-r", str(revoked)], text).returncode:
        return Signed("revoked", names[0])
    return Signed("good", names[0])


def _run(arguments: list[str], text: bytes) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(
            ["ssh-keygen", "-Y", *arguments], input=text, capture_output=True, timeout=_SECONDS, check=False
        )
    except FileNotFoundError as fault:
        raise FinbenchError(
            "ssh-keygen is not here, which makes and checks signatures.", "Install OpenSSH: apt install openssh-client"
        ) from fault
    except (OSError, subprocess.TimeoutExpired) as fault:
        raise FinbenchError(f"ssh-keygen did not answer ({reason(fault)}).", "Try: ssh-keygen -Y sign") from fault


def _said(done: subprocess.CompletedProcess[bytes]) -> str:
    lines = (done.stderr + done.stdout).decode("utf-8", "replace").split("\n")
    lines = [line.strip() for line in lines if line.strip() and not line.startswith("Signing ")]
    return lines[-1].rstrip(".") if lines else f"ssh-keygen ended with {done.returncode}"
