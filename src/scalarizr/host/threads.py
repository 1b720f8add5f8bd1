"""The threads of a pool, where the system may refuse a further one."""

from concurrent.futures import ThreadPoolExecutor

from scalarizr.errors import OutsideFailure


class Threads(ThreadPoolExecutor):
    """A pool of threads that lets work wait for those that it has, where it gets no more.

    Python's own takes the work, fails to start a thread, says that it failed, and has the work done all the same by the
    next thread that is free.
    """

    def _adjust_thread_count(self) -> None:
        """Start a thread where one is wanted.

        :raises OutsideFailure: there is none and cannot be; the work is given up.
        """
        try:
            super()._adjust_thread_count()
        except RuntimeError as error:
            if not self._threads:
                # Whoever submits holds the pool's lock, and nobody takes work out: it is what was put in just now.
                self._work_queue.get_nowait()
                raise OutsideFailure(f"The agent may have no more threads: {error}. Nothing was done.") from error
