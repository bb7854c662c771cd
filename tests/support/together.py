"""Hold up the thread of an encoder, so that queries of other threads come while it is busy."""

import time
from concurrent.futures import ThreadPoolExecutor
from threading import Event


def answered_together(thread, batches, ask, queries):
    """The answers to the queries, or their errors, in order; all of them wait when the first one is computed."""
    gate = Event()
    thread.submit(gate.wait)
    with ThreadPoolExecutor(len(queries)) as pool:
        try:
            answers = [pool.submit(ask, query) for query in queries]
            deadline = time.monotonic() + 60
            while len(batches._waiting) < len(queries) and time.monotonic() < deadline:
                time.sleep(0.001)
        finally:
            gate.set()
        return [answer.exception() or answer.result() for answer in answers]
