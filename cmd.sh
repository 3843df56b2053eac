# shellcheck shell=bash
# Where a step runs: a prefix to its command. Empty is here.
#
# On a Slurm cluster (srun waits for the job and passes its output on; the folders must be shared). The last line of a
# program's output is "# done"; without it a step has failed, whatever status the prefix reports:
#   cpu_cmd="srun --cpus-per-task=8 --mem=16G"
#   gpu_cmd="srun --gres=gpu:1 --cpus-per-task=8 --mem=32G"

export cpu_cmd=
export gpu_cmd=
