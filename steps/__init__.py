"""One program a stage: reads files, calls tagasc, writes files."""
