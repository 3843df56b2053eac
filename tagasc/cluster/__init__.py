"""Batch jobs: options in Kaldi's manner, submission to Slurm, and what runs on the node.

Neither submitit, which pickles functions and asks Slurm's accounting for states, nor ``sbatch --wait``, which shows
nothing until the end, fits steps that are programs and resume by themselves.
"""
