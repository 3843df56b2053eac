"""Exceptions for errors that a user can cause and fix."""


class UserError(Exception):
    """Bad input; the message is one line: what is wrong, what was found, what to do.

    ``tagasc.utils.cli.run`` prints the message without a traceback and exits with ``status``.
    """

    status = 1


class SettingError(UserError, ValueError):
    """A setting out of range; also a ``ValueError``, as jsonargparse expects."""


class PartialFailure(UserError):
    """Some runs of a sweep failed; later stages can use the others."""

    status = 3
