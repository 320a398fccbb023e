"""Signatures by OpenSSH, as git takes them for commits: ``ssh-keygen -Y``, offline, without a secret to check them.

A leaderboard's ``allowed_signers`` names the keys of its maintainers, ``revoked_keys`` those that are not believed
any more (a key a line, or a list that ``ssh-keygen -k`` made).
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from finbench.core.errors import FinbenchError, reason

NAMESPACE = "finbench-attestation"  # a signature for anything else is none here
SIGNERS, REVOKED = "allowed_signers", "revoked_keys"
_SECONDS = 300  # to type a passphrase, or to touch a key
LARGEST = 2**16  # bytes of a signature: with a certificate it has some 3 kB; ssh-keygen reads 200 MB for minutes


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


def checked(text: bytes, signature: bytes, when: str, signers: Path, revoked: Path) -> Signed:
    """Whether ``signature`` is of ``text`` by a key of ``signers`` that was valid at ``when`` and is not revoked."""
    if not signers.is_file():
        return Signed("bad", f"{signers} does not exist, so no key is believed")
    if len(signature) > LARGEST:
        return Signed("bad", f"its signature has more than {LARGEST:,} bytes")
    at = ["-O", "verify-time=" + re.sub(r"[^0-9Z]", "", when)]
    with tempfile.NamedTemporaryFile() as file:  # so that all steps see the same bytes
        file.write(signature)
        file.flush()
        by = ["-s", file.name, "-f", str(signers), *at]
        found = _run(["find-principals", *by], b"")
        names = found.stdout.decode("utf-8", "replace").splitlines()
        if found.returncode or not names:
            return Signed("bad", f"it is by no key of {signers}, or is no signature")
        asked = ["verify", *by, "-I", names[0], "-n", NAMESPACE]
        once = _run(asked, text)
        if once.returncode:
            return Signed("bad", f"it is not of this text for {NAMESPACE} ({_said(once)})")
        # a list that is there and cannot be read revokes all
        if os.path.lexists(revoked) and _run([*asked, "-r", str(revoked)], text).returncode:
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
