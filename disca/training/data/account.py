"""What became of a user's files on their way into a dataset, counted by kind and named."""

from ...messages import listing, quoted

NAMED = 5  # files of a kind that are named; the others are counted

Kinds = dict[str, list[str]]  # what is said of them -> the files


class UnusableError(ValueError):
    """Why a clip cannot be used: a sentence with its name, quoted, and the kind of fault that others may share."""

    def __init__(self, name: str, kind: str, detail: str = ""):
        super().__init__(_with(f"{name} {kind}", detail) + ".")
        self.kind, self.file = kind, _with(name, detail)


class Account:
    """The clips that were left out for a fault, the files that are no clips, and what was changed in the others."""

    def __init__(self):
        self.left_out: Kinds = {}
        self.passed_over: Kinds = {}
        self.changed: Kinds = {}

    def leave_out(self, fault: UnusableError) -> None:
        """Notes a clip that cannot be used."""
        self.left_out.setdefault(fault.kind, []).append(fault.file)

    def pass_over(self, name: str, kind: str) -> None:
        """Notes a file that is not meant to be a clip."""
        self.passed_over.setdefault(kind, []).append(quoted(name))

    def change(self, name: str, kind: str, detail: str = "") -> None:
        """Notes what was done to a clip, or what the user should know of it."""
        self.changed.setdefault(kind, []).append(_with(quoted(name), detail))

    def faults(self) -> list[str]:
        """A line for each kind of fault."""
        return _lines("Left out because it ", self.left_out)

    def lines(self) -> list[str]:
        """A line for each kind, faults first."""
        return [*self.faults(), *_lines("Passed over, ", self.passed_over), *_lines("Noted, ", self.changed)]


def _lines(start: str, kinds: Kinds) -> list[str]:
    return [f"{start}{kind} ({len(files)}): {listing(files, NAMED, str)}." for kind, files in kinds.items()]


def _with(text: str, detail: str) -> str:
    return f"{text} ({detail})" if detail else text
