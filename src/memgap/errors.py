"""The one exception whose text is meant for the user."""


class UserError(Exception):
    """A mistake the user can mend.

    The message is one sentence that says what is wrong, where, and what would be right.
    Entry points print it without a traceback and exit with status 2.
    """
