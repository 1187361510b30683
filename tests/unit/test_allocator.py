"""Buffers of chunk size are used again, by other threads too."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
from shardfs.allocator import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
bytes(bytearray(4 << 20))
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(50):
    bytearray(b"x") * (1 << 20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""

THREADS = """
import threading
from shardfs.allocator import keep_freed_memory
keep_freed_memory()
def work(number, turn=threading.Barrier(16)):
    for current in range(16):
        turn.wait()
        if current == number:
            [bytearray(b"x") * (1 << 20) for _ in range(32)]
threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
# Not ru_maxrss, which begins with what the parent had when it forked.
print(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])
"""

only_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has the options")


@only_glibc
def test_pages_are_not_asked_for_again() -> None:
    def faults(how: str) -> int:
        done = subprocess.run([sys.executable, "-c", PROGRAM, how], check=True, capture_output=True, text=True)
        return int(done.stdout)

    assert faults("kept") < faults("default") / 4


@only_glibc
def test_threads_do_not_keep_what_each_of_them_freed() -> None:
    done = subprocess.run([sys.executable, "-c", THREADS], check=True, capture_output=True, text=True)
    assert int(done.stdout) < 200 << 10  # KiB; one of the 16 threads at a time holds 32 MiB


GIVEN = """
from shardfs.allocator import give_back, keep_freed_memory
keep_freed_memory()
def resident():
    return int(open("/proc/self/status").read().split("VmRSS:")[1].split()[0])
kept = [bytearray(b"x") * (1 << 20) for _ in range(100)]
last = bytearray(b"x") * (1 << 20)  # above them in the heap: what is free below it does not go by itself
del kept
before = resident()
give_back()
print(before - resident())
"""


@only_glibc
def test_free_memory_goes_back_when_it_is_asked_for() -> None:
    done = subprocess.run([sys.executable, "-c", GIVEN], check=True, capture_output=True, text=True)
    assert int(done.stdout) > 90 << 10  # KiB


HOLES = """
from shardfs import allocator
allocator.keep_freed_memory()
def resident():
    return int(open("/proc/self/status").read().split("VmRSS:")[1].split()[0])
buffers = [bytearray(b"x") * (1 << 20) for _ in range(200)]
allocator.give_back_surplus()
full = resident()
del buffers[::16]  # holes between what is in use: 13 MiB
allocator.give_back_surplus()
few = resident()
del buffers[::2]  # and 94 more
allocator.give_back_surplus()
print(full - few, few - resident())
"""


@only_glibc
def test_many_holes_go_back_and_a_few_do_not() -> None:
    done = subprocess.run([sys.executable, "-c", HOLES], check=True, capture_output=True, text=True)
    few, many = map(int, done.stdout.split())
    assert few < 5 << 10  # KiB
    assert many > 90 << 10
