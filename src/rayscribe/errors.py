"""The one exception that a user is meant to read."""

DISCLAIMER = "Research draft written by a machine-learning model. Not a medical device; not for clinical use."


class InputError(ValueError):
    """Something that the user gave cannot be used. The message says what is wrong, names the file, and says what to do."""
