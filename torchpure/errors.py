"""The exceptions that this library raises.

    TorchpureError
    ├── StructureError    (ValueError)     two trees, or a tree and a module, do not fit together
    │   └── ParameterError                 parameters are missing, unexpected or of the wrong shape
    ├── TransformError    (ValueError)     a transform was asked for what it cannot give
    ├── ImpureError       (RuntimeError)   a function drew without a key or changed state that it was not given
    ├── CheckError        (ValueError)     a check of the user's own, `tp.check`, does not hold
    └── InputError        (ValueError)     a file, an expression or an option from outside is not usable

Each also is the built-in exception that a caller would expect to catch.
"""


class TorchpureError(Exception):
    """Group every error of this library."""


class StructureError(TorchpureError, ValueError):
    """Report two trees that do not fit together, naming the first path that differs."""


class ParameterError(StructureError):
    """Report parameters that a module cannot take, naming each path."""


class TransformError(TorchpureError, ValueError):
    """Report a transform that was asked for what it cannot give."""


class ImpureError(TorchpureError, RuntimeError):
    """Report a function that drew without a key, or changed state that it was not given."""


class CheckError(TorchpureError, ValueError):
    """Report a check that does not hold, naming the members of a batch for which it does not."""


class InputError(TorchpureError, ValueError):
    """Report a file, an expression or an option from outside that is not usable."""
