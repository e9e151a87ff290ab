"""Work side by side: what it gives and raises, what its threads know. (Limits for BLAS: engines/test_threads.py.)"""

import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minillm.debug import debug_mode, watching
from minillm.numpy_ops.cores import blas_threads, shares, side_by_side
from minillm.tensor import Tensor, no_grad, records_graph


@given(st.integers(0, 60), st.integers(0, 9))
def test_shares_are_all_in_order_and_nearly_equal(n, parts):
    found = shares(n, parts)
    assert [i for own in found for i in range(n)[own]] == list(range(n))
    sizes = [own.stop - own.start for own in found]
    assert len(sizes) == max(1, min(parts, n)) and max(sizes) - min(sizes) <= 1


def test_each_task_has_a_thread_and_results_keep_their_order():
    met = threading.Barrier(3, timeout=60)  # whom one thread would wait for in vain

    def task(i):
        met.wait()
        return i, threading.get_ident(), blas_threads()

    found = side_by_side([lambda i=i: task(i) for i in range(3)])
    assert [i for i, _, _ in found] == [0, 1, 2] and len({thread for _, thread, _ in found}) == 3
    assert found[0][1] == threading.get_ident() and all(n in (1, None) for _, _, n in found)
    before = blas_threads()
    assert side_by_side([blas_threads]) == [before] == [blas_threads()]  # one alone is just called


@pytest.mark.parametrize("wrong", [0, 1])
def test_where_one_raises_the_others_are_waited_for(wrong):
    done, before = [], blas_threads()

    def task(i):
        if i == wrong:
            raise ValueError(f"task {i}")
        time.sleep(0.05)
        done.append(i)

    with pytest.raises(ValueError, match=f"task {wrong}"):
        side_by_side([lambda i=i: task(i) for i in range(3)])
    assert sorted(done) == sorted({0, 1, 2} - {wrong}) and blas_threads() == before


def test_threads_know_the_context():
    parameter = Tensor(np.ones(1), requires_grad=True)

    def seen():
        with np.errstate(divide="ignore"):  # its own
            pass
        return np.geterr()["over"], records_graph(parameter), bool(watching.get())

    with np.errstate(over="ignore"), no_grad():
        assert side_by_side([seen] * 3) == [("ignore", False, False)] * 3
    with np.errstate(over="raise"), debug_mode():
        assert side_by_side([seen] * 2) == [("raise", True, True)] * 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_process_has_threads_of_its_own():
    script = """
import os
from minillm.numpy_ops.cores import blas_threads, limit_blas_threads, side_by_side
assert side_by_side([int, int, int]) == [0, 0, 0]
before = blas_threads()
with limit_blas_threads(1):  # which the child leaves as its parent does
    child = os.fork()
    assert side_by_side([int, int, int]) == [0, 0, 0] and blas_threads() in (1, None)
assert blas_threads() == before
if child:
    raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", script]
    assert subprocess.run(command, timeout=60).returncode == 0
