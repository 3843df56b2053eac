"""``python -m tagasc.bundle BUNDLE AUDIO...`` classifies files; see ``tagasc.bundle.command``."""

from tagasc.bundle.command import main

if __name__ == "__main__":
    main()
