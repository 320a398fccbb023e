#!/usr/bin/env bash
# The reproduction queue of a published leaderboard on one machine of Hugging Face Jobs: every row that nobody vouches
# for is asked again there, and what was signed comes back as a pull request to the leaderboard's data set.
#
#     python -m build --wheel          # dist/finbench-*.whl, which the job installs
#     HF_TOKEN=hf_... examples/hf-jobs.sh you/finance ~/.ssh/finbench --dry-run      # what would be submitted
#     HF_TOKEN=hf_... examples/hf-jobs.sh you/finance ~/.ssh/finbench --flavor l4x1 --timeout 4h
#
# What follows the key goes to `hf jobs run`. The key travels as a secret of the job: take one of its own for it, and
# revoke that when the job is done. What loads the models of strangers has the key to sign with, but not the token: it
# runs as another user. So models have to be on the Hub and open to all; a gated one is asked on a machine of your own.
# It asks for $ASK (3h), then sends what it has; once that is merged, the same command goes on with the rest.
# Nothing here was run on Hugging Face itself.
set -euo pipefail
[ $# -ge 2 ] || { sed -n '2,13s/^# \{0,1\}//p' "$0" >&2 && exit 2; }
board=$1 key=$2
shift 2
wheels=(dist/finbench-*.whl)
[ ${#wheels[@]} -eq 1 ] || { echo "There are ${#wheels[@]} wheels in dist/. Leave one: ${wheels[*]}" >&2 && exit 1; }
[ -f "${wheels[0]}" ] || { echo "There is no wheel in dist/. Make one: python -m build --wheel" >&2 && exit 1; }
[ -f "$key" ] || { echo "There is no key $key. Make one: ssh-keygen -t ed25519 -f $key" >&2 && exit 1; }
FINBENCH_KEY=$(cat "$key")
export FINBENCH_KEY

read -r -d '' job <<'JOB' || true
set -euo pipefail
apt-get update -qq && apt-get install -qq -y openssh-client >/dev/null
pip install -q /dist/finbench-*.whl
work=$(mktemp -d) && chmod 711 "$work" && mkdir "$work/home"
hf download "$BOARD" --repo-type dataset --local-dir "$work/board" >/dev/null
(umask 077 && printf '%s\n' "$FINBENCH_KEY" >"$work/key")
chown -R 65534:65534 "$work/board" "$work/home" "$work/key"
as_nobody() { # who sees neither the token nor what else root has, not even in /proc
  setpriv --reuid 65534 --regid 65534 --clear-groups --no-new-privs --inh-caps=-all \
    env -i "PATH=$PATH" "HOME=$work/home" ${LD_LIBRARY_PATH:+"LD_LIBRARY_PATH=$LD_LIBRARY_PATH"} "$@"
}
code=0
cd "$work/home"
as_nobody timeout --kill-after=60 --signal=INT "$ASK" finbench leaderboard reproduce "$work/board" --key "$work/key" || code=$?
[ "$code" != 124 ] || code=0 # its time was up: what it has is sent
as_nobody bash -c 'kill -9 -1' || true # nobody's processes, left over or not: none is to write what root unpacks
if [ -d "$work/board/attestations" ]; then # read by nobody: a link there may lead anywhere
  mkdir "$work/out" && as_nobody tar -chf - -C "$work/board" attestations | tar -xf - --no-same-owner -C "$work/out"
  find "$work/out" ! -type f ! -type d -delete # upload would follow a link
  hf upload "$BOARD" "$work/out/attestations" attestations --repo-type dataset --create-pr --commit-message "Asked again"
fi
exit "$code"
JOB

hf jobs run --name finbench-reproduce --flavor a10g-small --timeout 4h --env "BOARD=$board" \
  --env "ASK=${ASK:-3h}" --secrets HF_TOKEN --secrets FINBENCH_KEY --volume ./dist:/dist:ro "$@" python:3.12 bash -c "$job"
