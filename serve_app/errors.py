"""Every error that tierwise raises on purpose.

    TierwiseError                       status  OpenAI type
    ├── SettingsError                   (start)  -                a settings file that cannot be used
    ├── CalibrationError                (start)  -                a calibration artefact that cannot be used
    ├── RequestError                    400     invalid_request_error
    │   ├── Unauthorized                401     authentication_error
    │   ├── Forbidden                   403     permission_error         the key may not do that
    │   ├── NotFound                    404     invalid_request_error
    │   ├── MethodNotAllowed            405     invalid_request_error
    │   ├── RequestTimeout              408     invalid_request_error
    │   ├── BodyTooLarge                413     invalid_request_error
    │   └── EngineRejected              400     invalid_request_error    the engine refused the request
    ├── Overloaded                      429     rate_limit_error
    │   ├── RateLimited                 429     rate_limit_error         the key's requests or tokens per minute
    │   └── BudgetSpent                 429     insufficient_quota       the key's dollars per month
    └── UpstreamError                   502     api_error                the fault is ours
        ├── EngineFailed                502     api_error
        ├── EngineTimeout               504     api_error
        └── NotReady                    503     api_error

`gateway/errors.py` is the one place that turns them into HTTP. A message is written for the client: no internal text.
"""

from typing import ClassVar


class TierwiseError(Exception):
    """Base of the tree. `code` is OpenAI's short machine-readable reason, `param` the field at fault."""

    status: ClassVar[int] = 500
    type: ClassVar[str] = "api_error"
    default_code: ClassVar[str | None] = None

    def __init__(self, message: str, *, code: str | None = None, param: str | None = None, retry_after: float | None = None):
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.param = param
        self.retry_after = retry_after

    def __reduce__(self) -> tuple[object, ...]:
        """Errors cross process boundaries between replicas; keyword arguments would be lost by the default."""
        return _rebuild, (type(self), self.message, self.code, self.param, self.retry_after)


def _rebuild(cls: type[TierwiseError], message: str, code: str | None, param: str | None, retry_after: float | None) -> TierwiseError:
    return cls(message, code=code, param=param, retry_after=retry_after)


class SettingsError(TierwiseError):
    """`problems` are one-line sentences, each naming the path of what is wrong."""

    def __init__(self, problems: list[str]):
        super().__init__("\n".join(problems))
        self.problems = problems

    def __reduce__(self) -> tuple[object, ...]:
        return SettingsError, (self.problems,)


class CalibrationError(TierwiseError):
    pass


class RequestError(TierwiseError):
    status = 400
    type = "invalid_request_error"


class Unauthorized(RequestError):
    status = 401
    type = "authentication_error"
    default_code = "invalid_api_key"


class Forbidden(RequestError):
    status = 403
    type = "permission_error"
    default_code = "permission_denied"


class NotFound(RequestError):
    status = 404


class MethodNotAllowed(RequestError):
    status = 405
    default_code = "method_not_allowed"


class RequestTimeout(RequestError):
    status = 408
    default_code = "request_timeout"


class BodyTooLarge(RequestError):
    status = 413
    default_code = "request_too_large"


class EngineRejected(RequestError):
    """The engine's own validation refused the request; a retry elsewhere would be refused too."""


class Overloaded(TierwiseError):
    status = 429
    type = "rate_limit_error"
    default_code = "overloaded"


class RateLimited(Overloaded):
    default_code = "rate_limit_exceeded"


class BudgetSpent(Overloaded):
    type = "insufficient_quota"
    default_code = "insufficient_quota"


class UpstreamError(TierwiseError):
    status = 502


class EngineFailed(UpstreamError):
    default_code = "engine_error"


class EngineTimeout(UpstreamError):
    status = 504
    default_code = "engine_timeout"


class NotReady(UpstreamError):
    status = 503
    default_code = "not_ready"
