"""The exceptions of crosstok, all below `CrosstokError`; what makes no sense is a ValueError or TypeError."""


class CrosstokError(Exception):
    """Base of every error that crosstok raises on purpose."""


class UnsupportedTokenizerError(CrosstokError):
    """A tokenizer.json asks for something that is not supported; the message names the field."""


class NotCanonicalError(CrosstokError):
    """A token sequence that the tokenizer would never produce."""


class ZeroProbabilityError(CrosstokError):
    """A condition has probability zero."""


class TextError(CrosstokError):
    """A text is not admissible: ``index`` says which of those given, ``offset`` the byte where it goes wrong.

    ``index`` is None where no list of texts was given; ``offset`` is None where no single byte is to blame.
    """

    def __init__(self, reason: str, index: int | None = None, offset: int | None = None) -> None:
        super().__init__(reason, index, offset)
        self.reason, self.index, self.offset = reason, index, offset

    def __str__(self) -> str:
        where = [] if self.index is None else [f"text {self.index}"]
        where += [] if self.offset is None else [f"byte {self.offset}"]
        return ": ".join([*where, self.reason])


class PlanError(CrosstokError):
    """A plan cannot be made, or would be larger than allowed."""


class TeacherError(CrosstokError):
    """A teacher cannot be used, or returned something that is not a row of log-probabilities.

    ``index`` says which of the texts given it was about; None: no single one.
    """

    def __init__(self, reason: str, index: int | None = None) -> None:
        super().__init__(reason, index)
        self.reason, self.index = reason, index

    def __str__(self) -> str:
        return self.reason if self.index is None else f"text {self.index}: {self.reason}"


class TargetsError(CrosstokError):
    """Stored targets are damaged or belong to another tokenizer."""
