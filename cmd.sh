# shellcheck shell=bash
# Where a step runs: a prefix to its command. cpu_cmd is that of manifests, packing, SVMs and the report, gpu_cmd that of
# networks; with --ngpu 0 cpu_cmd is that of all. An empty prefix is here.
#
# With slurm each step is a batch job (docs/cluster.md; the folders must be shared). utils/slurm.conf translates
#   --mem 32G  --num-threads 8  --gpu 1  --time 24:00:00  --partition NAME  --account NAME  --exclude NODES
# and utils/slurm.py has options of its own [defaults]:
#   --leftovers wait|cancel  what to do with jobs that a killed run left [wait]
#   --tries N                how often a lost job is submitted, and a job at its time limit requeued [10]
#   --stage-to \$TMPDIR      copy packed audio to this folder of the node first
#   --poll SECONDS  --patience SECONDS  --config FILE: docs/cluster.md
# Another launcher works too. A program's last line of output is "# done"; without it the step has failed.

cmd_backend=local # local | slurm

case $cmd_backend in
local) export cpu_cmd='' gpu_cmd='' ;;
slurm)
    export cpu_cmd="slurm.py --num-threads 8 --mem 16G"
    export gpu_cmd="slurm.py --num-threads 8 --mem 32G --gpu 1"
    ;;
*) fail "cmd_backend in cmd.sh must be local or slurm, not '$cmd_backend'" ;;
esac
