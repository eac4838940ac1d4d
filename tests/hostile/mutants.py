"""Good pictures gone wrong: seeded mutations of the golden inputs.

`of(group, count)` yields `(name, bytes)`; a group is the beginning of an input's name up to its first underscore.
The same seed gives the same files, so a finding is told by its name. Standard library only.
"""

import os
import random
import struct

GOLDEN = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "golden", "inputs")
INTERESTING = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def groups():
    return sorted({name.split("_")[0] for name in os.listdir(GOLDEN) if "_" in name})


def of(group, count, seed=0):
    names = sorted(name for name in os.listdir(GOLDEN) if name.startswith(group + "_"))
    sources = []
    for name in names:
        with open(os.path.join(GOLDEN, name), "rb") as file:
            sources.append(file.read())
    for number in range(count):
        dice = random.Random(f"{seed}:{group}:{number}")
        at = number % len(names)
        data = bytearray(sources[at])
        for _ in range(dice.choice((1, 1, 1, 2, 3, 8))):
            data = dice.choice(WAYS)(dice, data, sources)
        stem, _, ending = names[at].rpartition(".")
        yield f"{stem}-{seed}-{number}.{ending}", bytes(data)


def somewhere(dice, data):
    """A place; more often near the beginning, where the headers are."""
    if not data:
        return 0
    return dice.randrange(min(len(data), 600)) if dice.random() < 0.6 else dice.randrange(len(data))


def truncate(dice, data, _):
    return data[: dice.randrange(len(data) + 1)]


def flip(dice, data, _):
    for _ in range(dice.choice((1, 2, 4, 30))):
        if data:
            data[somewhere(dice, data)] ^= 1 << dice.randrange(8)
    return data


def overwrite(dice, data, _):
    at = somewhere(dice, data)
    value = dice.choice(INTERESTING)
    form = dice.choice((">I", "<I", ">H", "<H", "B"))
    piece = struct.pack(form, value & ((1 << 8 * struct.calcsize(form)) - 1))
    data[at : at + len(piece)] = piece
    return data


def splice(dice, data, sources):
    other = dice.choice(sources)
    at, there = somewhere(dice, data), somewhere(dice, other)
    length = dice.choice((4, 16, 64, 1024, len(other)))
    data[at : at + length] = other[there : there + length]
    return data


def duplicate(dice, data, _):
    at = somewhere(dice, data)
    piece = data[at : at + dice.choice((1, 4, 12, 100, 2000))]
    data[at:at] = piece * dice.choice((1, 1, 2, 50))
    return data


def remove(dice, data, _):
    at = somewhere(dice, data)
    del data[at : at + dice.choice((1, 2, 4, 12, 100, 2000))]
    return data


def fill(dice, data, _):
    at = somewhere(dice, data)
    length = min(dice.choice((4, 16, 300)), len(data) - at)
    data[at : at + length] = bytes([dice.choice((0, 0xFF, dice.randrange(256)))]) * length
    return data


WAYS = (truncate, flip, flip, overwrite, overwrite, splice, duplicate, remove, fill)
