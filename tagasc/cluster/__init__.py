"""Batch jobs: options in Kaldi's manner, submission to Slurm, and what runs on the node."""
