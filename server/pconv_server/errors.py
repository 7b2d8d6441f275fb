"""What can go wrong, in the domain's words. `service` alone turns these into gRPC's statuses."""


class RequestError(ValueError):
    """The caller's mistake; the message says what was found and what was expected."""


class ModelNotFoundError(LookupError):
    """There is no such model; the message has the command that gets it."""


class LimitError(RuntimeError):
    """Too large or too busy; the message has the limit."""


class NotFiniteError(RuntimeError):
    """The network gave NaN or Inf in float32, too."""


class ProtocolError(RuntimeError):
    """Client and server speak different versions; the message says which to update."""


class TokenError(RuntimeError):
    """No token, or the wrong one."""


class SilenceError(TimeoutError):
    """The client said, or read, nothing for too long."""


class StoppingError(RuntimeError):
    """The server stops before the job is done."""


class CancelledJobError(Exception):
    """Nobody waits for the job any more; raised between tiles to free the worker."""


class PictureError(ValueError):
    """A picture file cannot be read or written; the message says why and what to do."""


class SetupError(RuntimeError):
    """The server cannot start, or be reached, as asked for; the message has the remedy."""
