"""The one exception for what a person can put right."""


class InputError(ValueError):
    """Something given from outside is wrong: a file, a flag, a value.

    The message is one sentence for the person at the keyboard: what was given, where, and
    what would do. The command line prints it alone, without a traceback.
    """


class UsageError(InputError):
    """The command line or a configuration can't be read: the program ends with exit code 2."""


def root_cause(error: BaseException) -> BaseException:
    """The exception that the others were raised from: the one that says what is wrong."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error
