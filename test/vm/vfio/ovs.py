"""Makes the datapath of Open vSwitch as its daemon does (linux/openvswitch.h) and adds an interface to it, or removes it: ovs.py
INTERFACE, ovs.py"""
import socket
import struct
import sys

ACK, REQUEST, CONTROL = 4, 1, 16


def attribute(kind, value):
    data = struct.pack("<HH", 4 + len(value), kind) + value
    return data + b"\0" * (-len(data) % 4)


def ask(family, command, body):
    """One command of generic netlink. @returns the answers in front of the acknowledgement"""
    message = struct.pack("<BBH", command, 1, 0) + body
    link.send(struct.pack("<IHHII", 16 + len(message), family, REQUEST | ACK, 1, 0) + message)
    answers = []
    while True:
        data = link.recv(65536)
        while data:
            size, kind = struct.unpack_from("<IH", data)
            if kind == 2:
                error = -struct.unpack_from("<i", data, 16)[0]
                if error:
                    raise OSError(error, f"command {command} of family {family}")
                return answers
            answers.append(data[20:size])
            data = data[(size + 3) & ~3 :]


def family(name):
    """The number of a family, CTRL_ATTR_FAMILY_ID."""
    data = ask(CONTROL, 3, attribute(2, name.encode() + b"\0"))[0]
    while data:
        size, kind = struct.unpack_from("<HH", data)
        if kind == 1:
            return struct.unpack_from("<H", data, 4)[0]
        data = data[(size + 3) & ~3 :]
    raise OSError(f"no family {name}")


link = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 16)
link.bind((0, 0))
datapaths = family("ovs_datapath")
name = attribute(1, b"ovs-system\0")
none = attribute(2, struct.pack("<I", 0))
if len(sys.argv) == 1:
    ask(datapaths, 2, struct.pack("<i", 0) + name)  # OVS_DP_CMD_DEL
    sys.exit()
# OVS_DP_CMD_NEW with a name and nobody for packets without a flow
ask(datapaths, 1, struct.pack("<i", 0) + name + none)
index = socket.if_nametoindex("ovs-system")
# OVS_VPORT_CMD_NEW of type OVS_VPORT_TYPE_NETDEV
port = attribute(2, struct.pack("<I", 1)) + attribute(3, sys.argv[1].encode() + b"\0") + attribute(5, struct.pack("<I", 0))
ask(family("ovs_vport"), 1, struct.pack("<i", index) + port)
