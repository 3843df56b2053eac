"""The one exception for what a user can cause."""


class UserError(Exception):
    """Bad input. Its text is one line: what is wrong, in which file, what to do.

    ``tagasc.utils.cli.run`` prints that line without a traceback and exits with ``status``.
    """

    status = 1


class SettingError(UserError, ValueError):
    """A setting of a configuration that is out of range; also a ``ValueError``, as parsers of settings expect."""


class PartialFailure(UserError):
    """Some runs of a sweep failed while others are done, so later stages have something to go on with."""

    status = 3
