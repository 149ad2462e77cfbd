"""Processes that are killed at a chosen step: before a statement of SQLite, before a request is sent, or after its answer came."""

import os
import signal
import sqlite3
import sys
import threading
import traceback

from everlearn.serve.client import Client


class Steps:
    """Counts steps, and ends this process by SIGKILL at the one that is its last."""

    def __init__(self, last):
        self.last, self.number = last, 0

    def step(self, *_):
        self.number += 1
        if self.number == self.last:
            os.kill(os.getpid(), signal.SIGKILL)
            threading.Event().wait()  # a signal to oneself may take a moment

    def install(self):
        connect, send = sqlite3.connect, Client._send

        def traced(*given, **named):
            connection = connect(*given, **named)
            connection.set_trace_callback(self.step)
            return connection

        def counted(client, request):
            self.step()
            reply = send(client, request)
            self.step()
            return reply

        sqlite3.connect, Client._send = traced, counted


def forked(work):
    """A child process that does this work and nothing else: whatever goes wrong there ends it, and the tests go on here alone."""
    child = os.fork()
    if child:
        return child
    done = False
    try:
        work()
        done = True
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(0 if done else 1)


def life(work, last=0):
    """Run `work(say)` in a child process that is killed at step `last` (0: never). Gives whether it was killed, and what it said."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reader)
            Steps(last).install()
            work(lambda text: os.write(writer, f"{text}\n".encode()))
            os._exit(0)
        except BaseException:
            sys.excepthook(*sys.exc_info())
            os._exit(1)
    os.close(writer)
    with os.fdopen(reader) as heard:
        said = heard.read().split()
    _, status = os.waitpid(child, 0)
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    assert killed or status == 0, f"a life ended with status {status}"
    return killed, said
