"""What every part of the project needs: errors, files, provenance, command line, logging, sweeps, devices."""
