#!/usr/bin/env python3
"""Run a program as a Slurm batch job and wait for it, in the manner of Kaldi's slurm.pl; see cmd.sh.

slurm.py [--mem 16G] [--num-threads 8] [--gpu 1] [--time 24:00:00] [--leftovers wait|cancel] ... PROGRAM [OPTION...]
"""

from tagasc.cluster.submit import main

if __name__ == "__main__":
    main()
