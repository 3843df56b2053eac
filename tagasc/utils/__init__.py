"""Shared by all packages: errors, files, provenance, command line, logging, sweeps, devices."""
