"""A function prepared in a fresh process, for settings that a process cannot take back."""

import multiprocessing
from collections.abc import Callable
from typing import Any

Measure = Callable[..., Any]


class Fresh:
    """Calls a function in a process of its own, which waits between the calls.

    Args:
        prepare: called there, once; returns the function. Both it and its arguments are pickled.
        arguments: of `prepare`.
    """

    def __init__(self, prepare: Callable[..., Measure], *arguments: Any) -> None:
        """Start the process."""
        context = multiprocessing.get_context("spawn")
        self._pipe, there = context.Pipe()
        # No daemon, because the workers of a data loader are its children.
        usual = multiprocessing.get_start_method()
        self._process = context.Process(target=_serve, args=(there, usual, prepare, arguments))
        self._process.start()
        there.close()

    def __call__(self, *arguments: Any) -> Any:
        """Return what the function returns.

        Raises:
            MemoryError: if the process is gone, as when the system's memory ran out.
            Exception: what the function, or preparing it, raised.
        """
        try:
            self._pipe.send(arguments)
            returned, error = self._pipe.recv()
        except (EOFError, OSError):
            self._process.join()
            raise MemoryError(f"a process ended with code {self._process.exitcode}") from None
        if error is not None:
            raise error
        return returned

    def __enter__(self) -> "Fresh":
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the process."""
        self._pipe.close()
        self._process.join(timeout=10)
        self._process.kill()
        self._process.join()


def _serve(
    pipe: Any, start_method: str, prepare: Callable[..., Measure], arguments: tuple[Any, ...]
) -> None:
    """Answer calls until the other end is closed."""
    import torch

    # A loader's workers shall be started as in the command itself, not as this process was.
    multiprocessing.set_start_method(start_method, force=True)
    function: Measure | None = None
    try:
        while True:
            wanted = pipe.recv()
            try:
                function = function or prepare(*arguments)
                answer: tuple[Any, Exception | None] = (function(*wanted), None)
            except Exception as error:
                answer = (None, _plain(error))
            if torch.cuda.is_initialized():
                torch.cuda.empty_cache()  # the next in turn needs the room
            pipe.send(answer)
    except (EOFError, KeyboardInterrupt):
        pass


def _plain(error: Exception) -> Exception:
    """Return the error as one that can be sent: some of torch's cannot be built from its text."""
    from skinlesion.errors import SkinlesionError

    kind = SkinlesionError if isinstance(error, SkinlesionError) else RuntimeError
    return kind(str(error) if kind is SkinlesionError else f"{type(error).__name__}: {error}")
