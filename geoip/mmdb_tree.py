"""The search tree of an MMDB file: where it leads to, each of its nodes read once."""

import mmap
from array import array
from collections.abc import Iterator

METADATA_MARKER = b"\xab\xcd\xefMaxMind.com"
METADATA_SIZE = 128 * 1024  # bytes at the end of the file that the marker is looked for in
SEPARATOR_SIZE = 16  # bytes between tree and data
ADDRESS_BITS = 128
IPV4_AT = 96  # bits, which are 0, before an IPv4 address
MOST_WAYS = 16  # that lead to records, for each node; where none is shared it is one
UNKNOWN, ON_PATH, DONE = 0, 1, 2  # states of a node

Node = tuple[int, int]  # its two records


class Tree:
    """The search tree of a database.

    Attributes:
        size: its bytes.
    """

    def __init__(self, content: mmap.mmap, nodes: int, record_size: int) -> None:
        self.size = nodes * record_size // 4
        self._content = content
        self._nodes = nodes
        self._node_size = record_size // 4
        self._split = {24: _split_24, 28: _split_28, 32: _split_32}[record_size]
        marker = content.rfind(METADATA_MARKER, max(len(content) - METADATA_SIZE, 0))
        self._data_size = marker - self.size - SEPARATOR_SIZE
        self._order = array("L")  # the nodes, each after all that are below it
        self._shared = False

    def data_offsets(self) -> Iterator[int]:
        """Yield where in the file the data records are to which the tree leads, each once.

        Raises:
            ValueError: a record leads to nowhere, or the way to it is longer than an address, or
                there are many more ways to records than nodes, or one network has IPv4 addresses
                and others.
        """
        if self._data_size < 0:
            raise ValueError("the tree is larger than the file")
        seen = bytearray(self._data_size // 8 + 1)  # a bit for each offset
        first = self._nodes + SEPARATOR_SIZE
        for record in self._leaves():
            data = record - first
            if not 0 <= data < self._data_size:
                raise ValueError(f"a record of the tree leads to {record:,}, where nothing is")
            byte, bit = data >> 3, 1 << (data & 7)
            if not seen[byte] & bit:
                seen[byte] |= bit
                yield self.size + SEPARATOR_SIZE + data
        if self._shared:
            self._check_ways()
        self._check_ipv4()

    def _leaves(self) -> Iterator[int]:
        """Yield the records that lead to data, of each node once, depth first.

        On the stack, ~node stands where all below the node is done.
        """
        nodes, size, split, content = self._nodes, self._node_size, self._split, self._content
        states = bytearray(nodes)
        stack = [0]
        depth = 0
        while stack:
            node = stack.pop()
            if node < 0:
                states[~node] = DONE
                self._order.append(~node)
                depth -= 1
            elif states[node] == UNKNOWN:
                states[node] = ON_PATH
                depth += 1
                if depth > ADDRESS_BITS:
                    raise ValueError("a path in the tree is longer than an address")
                stack.append(~node)
                for record in split(content[node * size : (node + 1) * size]):
                    if record < nodes:
                        stack.append(record)
                    elif record > nodes:
                        yield record
            elif states[node] == ON_PATH:
                raise ValueError("a path in the tree is a loop")
            else:
                self._shared = True

    def _check_ways(self) -> None:
        """Raise ValueError where nodes are shared so that the tree has too many networks.

        6to4, Teredo and mapped addresses lead to the node of the IPv4 addresses, which is right. A
        reader that iterates enters a node again for each way that leads to it.
        """
        nodes, size, split, content = self._nodes, self._node_size, self._split, self._content
        most = MOST_WAYS * (nodes + 1)
        ways = array("L", bytes(array("L").itemsize * nodes))
        depths = bytearray(nodes)
        ways[0] = depths[0] = 1
        networks = 0
        for node in reversed(self._order):
            for record in split(content[node * size : (node + 1) * size]):
                if record < nodes:
                    ways[record] += ways[node]
                    depths[record] = max(depths[record], depths[node] + 1)
                    if depths[record] > ADDRESS_BITS:
                        raise ValueError("a path in the tree is longer than an address")
                elif record > nodes:
                    networks += ways[node]
            if ways[node] > most or networks > most:
                raise ValueError(f"more than {most:,} networks in a tree of {nodes:,} nodes")

    def _check_ipv4(self) -> None:
        """Raise ValueError where the IPv4 addresses have no node: the reader in C can't iterate."""
        record = 0
        for _ in range(IPV4_AT):
            if record >= self._nodes:
                break
            record, _ = self._split(
                self._content[record * self._node_size : (record + 1) * self._node_size]
            )
        else:
            return
        if record > self._nodes:
            raise ValueError("a network has IPv4 addresses and others")


def _split_24(node: bytes) -> Node:
    both = int.from_bytes(node, "big")
    return both >> 24, both & 0xFFFFFF


def _split_28(node: bytes) -> Node:
    """Split two records whose highest four bits share the byte in the middle."""
    both = int.from_bytes(node, "big")
    return (both >> 28 & 0xF) << 24 | both >> 32, both & 0xFFFFFFF


def _split_32(node: bytes) -> Node:
    both = int.from_bytes(node, "big")
    return both >> 32, both & 0xFFFFFFFF
