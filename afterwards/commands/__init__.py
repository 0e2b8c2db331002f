"""What a person does at a terminal: run tasks, look at them, change them, check what is set up."""


class Complaint(Exception):
    """Something is wrong; the text says what, and what to do. `status` is the process's exit."""

    def __init__(self, text: str, status: int = 1) -> None:
        super().__init__(text)
        self.status = status
