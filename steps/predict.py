#!/usr/bin/env python3
"""Classify recordings with a bundle of stage 9: predict.py BUNDLE AUDIO... (--help lists the options)."""

from tagasc.bundle.command import main

if __name__ == "__main__":
    main()
