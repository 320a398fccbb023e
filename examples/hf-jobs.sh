#!/usr/bin/env bash
# The reproduction queue of a published leaderboard on one machine of Hugging Face Jobs: every row that nobody vouches
# for is asked again there, and what was signed comes back as a pull request to the leaderboard's data set.
#
#     python -m build --wheel          # dist/finbench-*.whl, which the job installs
#     HF_TOKEN=hf_... examples/hf-jobs.sh you/finance ~/.ssh/finbench --dry-run      # what would be submitted
#     HF_TOKEN=hf_... examples/hf-jobs.sh you/finance ~/.ssh/finbench --flavor l4x1 --timeout 4h
#
# What follows the key goes to `hf jobs run`. The key travels as a secret of the job: take one of its own for it, and
# revoke that when the job is done. Adapters have to be on the Hub. It asks for $ASK (3h), then sends what it has;
# once that is merged, the same command goes on with the rest. Nothing here was run on Hugging Face itself.
set -euo pipefail
[ $# -ge 2 ] || { sed -n '2,13s/^# \{0,1\}//p' "$0" >&2 && exit 2; }
board=$1 key=$2
shift 2
wheels=(dist/finbench-*.whl)
[ -f "${wheels[0]}" ] || { echo "There is no wheel in dist/. Make one: python -m build --wheel" >&2 && exit 1; }
[ -f "$key" ] || { echo "There is no key $key. Make one: ssh-keygen -t ed25519 -f $key" >&2 && exit 1; }
FINBENCH_KEY=$(cat "$key")
export FINBENCH_KEY

read -r -d '' job <<'JOB' || true
set -eu
apt-get update -qq && apt-get install -qq -y openssh-client >/dev/null
pip install -q /dist/finbench-*.whl
umask 077 && printf '%s\n' "$FINBENCH_KEY" >/tmp/key && unset FINBENCH_KEY
hf download "$BOARD" --repo-type dataset --local-dir /tmp/board >/dev/null
code=0
timeout --signal=INT "$ASK" finbench leaderboard reproduce /tmp/board --key /tmp/key || code=$?
if [ -d /tmp/board/attestations ]; then
  hf upload "$BOARD" /tmp/board/attestations attestations --repo-type dataset --create-pr --commit-message "Asked again"
fi
exit "$code"
JOB

hf jobs run --name finbench-reproduce --flavor a10g-small --timeout 4h --env "BOARD=$board" \
  --env "ASK=${ASK:-3h}" --secrets HF_TOKEN --secrets FINBENCH_KEY --volume ./dist:/dist:ro "$@" python:3.12 bash -c "$job"
