"""The child's end of a channel."""

import socket
import subprocess
import sys

from service.processes.channel import framed
from service.processes.messages import Stop

PROGRAM = """
import sys
from service.processes import messages
from service.processes.channel import Channel
channel = Channel.inherited(sys.argv[1], messages.to_engine)
channel.receive()
channel.send(messages.Stop())
channel.receive()
"""


def test_a_child_whose_parent_is_gone_with_messages_unread_ends_and_says_nothing() -> None:
    ours, theirs = socket.socketpair()
    with theirs, ours:
        command = [sys.executable, "-c", PROGRAM, str(theirs.fileno())]
        child = subprocess.Popen(command, pass_fds=[theirs.fileno()], stderr=subprocess.PIPE, text=True)
        ours.sendall(framed(Stop()))
        # It is there, and not read.
        ours.recv(1, socket.MSG_PEEK)
    assert child.communicate()[1] == ""
    assert child.returncode == 1
