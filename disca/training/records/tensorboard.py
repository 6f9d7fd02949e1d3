"""The log as TensorBoard event files, written by hand: its package is not part of ComfyUI's environment.

A file is a row of records (length, CRC, data, CRC), each an Event protocol buffer of tensorflow/core/util/event.proto.
"""

import os
import struct
import time
from pathlib import Path
from typing import Any

CRC32C = 0x82F63B78  # Castagnoli's polynomial, reversed


def _table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (CRC32C if value & 1 else 0)
        table.append(value)
    return table


TABLE = _table()


class Events:
    """One event file of a run; a resumed run writes another, which takes over from its first iteration."""

    def __init__(self, folder: Path, iteration: int):
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time_ns() // 10**9:010d}.disca.{os.getpid()}.{iteration}"
        self._file = open(folder / name, "ab")  # noqa: SIM115 (closed by close)
        self._write(_bytes(3, b"brain.Event:2"), 0)
        self._write(_bytes(9, b"\x08\x01"), iteration + 1)  # a session starts: what was there from here on is void

    def add(self, line: dict[str, Any]) -> None:
        """Writes an iteration's line of the log."""
        self._write_scalars(_scalars(line), line["iteration"])

    def add_previews(self, iteration: int, distances: dict[str, float]) -> None:
        """Writes what the previews were apart."""
        self._write_scalars([(f"previews/{name}", value) for name, value in distances.items()], iteration)

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _write_scalars(self, scalars: list[tuple[str, float]], step: int) -> None:
        summary = b"".join(_bytes(1, _bytes(1, tag.encode()) + _float(2, value)) for tag, value in scalars)
        self._write(_bytes(5, summary), step)
        self._file.flush()

    def _write(self, content: bytes, step: int) -> None:
        event = b"\x09" + struct.pack("<d", time.time()) + b"\x10" + _varint(step) + content
        length = struct.pack("<Q", len(event))
        self._file.write(length + _masked(length) + event + _masked(event))


def crc32c(data: bytes) -> int:
    """Castagnoli's checksum."""
    value = 0xFFFFFFFF
    for byte in data:
        value = value >> 8 ^ TABLE[(value ^ byte) & 0xFF]
    return value ^ 0xFFFFFFFF


def _masked(data: bytes) -> bytes:
    value = crc32c(data)
    return struct.pack("<I", ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(found) + bytes([value])


def _bytes(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _float(field: int, value: float) -> bytes:
    return _varint(field << 3 | 5) + struct.pack("<f", value)


def _scalars(line: dict[str, Any]) -> list[tuple[str, float]]:
    bands = {
        f"loss by t/{name} {place / len(values):.2f}-{(place + 1) / len(values):.2f}": value
        for name, values in line["bands"].items()
        for place, value in enumerate(values)
    }
    groups = {"loss": line["loss"], "extra": line["extra"], "lr": line["lr"], "gradient norm": line["gradient_norm"]}
    named = {f"{group}/{name}": value for group, values in groups.items() for name, value in values.items()}
    return [(tag, value) for tag, value in (named | bands | {"seconds": line["seconds"]}).items() if value is not None]
