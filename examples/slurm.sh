#!/usr/bin/env bash
# A grid on Slurm: a Ray node on every node of the job, the driver on the first one.
#
#     sbatch --nodes=4 --cpus-per-task=16 --time=8:00:00 examples/slurm.sh GRID.yaml --out /shared/results
#
# What follows the file goes to `finbench sweep`; results and data must lie where every node sees them. Five minutes before
# the time limit the workers write their checkpoints and the job queues itself again, until every cell is done or failed.
#SBATCH --job-name=finbench-sweep
#SBATCH --ntasks-per-node=1
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@300
set -m # jobs in the background get Ctrl-C too, by which a grid stops in good order
cpus=${SLURM_CPUS_PER_TASK:-1}
mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${nodes[0]}
address=$(srun --overlap --nodes=1 --ntasks=1 -w "$head" hostname --ip-address | cut -d' ' -f1)
# another user of the cluster must not run programs by this Ray: a token of the job's own, which srun hands on
export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
RAY_AUTH_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
export RAY_AUTH_TOKEN
address=$address:$((20000 + SLURM_JOB_ID % 10000)) # a port of the job's own: nodes may be shared

on() { # on NODE COMMAND...: in the background, until the job ends
  srun --overlap --nodes=1 --ntasks=1 --cpus-per-task="$cpus" -w "$1" "${@:2}" &
}
on "$head" ray start --head --port="${address##*:}" --num-cpus="$cpus" --include-dashboard=false --block
until ray status --address "$address" >/dev/null 2>&1; do sleep 2; done
for node in "${nodes[@]:1}"; do
  on "$node" ray start --address="$address" --num-cpus="$cpus" --block
done

finbench sweep "$@" --ray "$address" &
driver=$!
trap 'kill -INT "$driver"' USR1 TERM
wait "$driver"
while kill -0 "$driver" 2>/dev/null; do wait "$driver"; done # the trap ends a wait before the driver has ended
wait "$driver"
code=$?
if [ "$code" = 130 ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
