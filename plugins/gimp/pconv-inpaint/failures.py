"""What a user is told when something cannot be done. The text is a sentence with a remedy."""


class Refusal(Exception):  # noqa: N818 - it is no error of the program
    """The plug-in cannot do what was asked; nothing has been changed."""


class NoServerError(Refusal):
    """No server answers where one is expected."""


class ServerError(Refusal):
    """The server refused or failed.

    Args:
        status: Name of the gRPC status, such as "NOT_FOUND".
        text: The server's sentence.
    """

    def __init__(self, status: str, text: str) -> None:
        super().__init__(text)
        self.status = status
