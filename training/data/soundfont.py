"""Cuts a soundfont (SF2 or SF3) down to some presets, so that it is small enough to be carried along.

Source: SoundFont 2.04 specification, section 7; SF3 is the same with each sample an Ogg Vorbis stream, whose start and end
are bytes of the sample chunk and whose loop is relative to the sample.
"""

import itertools
import struct
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

_BAG, _MOD, _GEN = struct.Struct("<HH"), struct.Struct("<HHhHH"), struct.Struct("<HH")
_PRESET, _INSTRUMENT, _SAMPLE = struct.Struct("<20sHHHIII"), struct.Struct("<20sH"), struct.Struct("<20sIIIIIBbHH")
_INSTRUMENT_ID, _SAMPLE_ID = 41, 53  # generators whose amount is an index
_COMPRESSED = 0x10  # flag of a sample that is a Vorbis stream
_SILENCE = 46  # sample points that must follow each sample of an SF2


@dataclass(frozen=True)
class _Level:
    """A preset or an instrument: its header, and its zones, each with generators and modulators."""

    header: tuple
    zones: list[tuple[list[tuple], list[tuple]]]


def cut(source: Path, target: Path, presets: Collection[tuple[int, int]]) -> list[str]:
    """Write the presets (bank, program) of `source` with what they need to `target`; their names. KeyError if one is missing."""
    chunks = _read(source.read_bytes())
    found = {
        (level.header[2], level.header[1]): level
        for level in _levels(chunks, b"phdr", b"pbag", b"pmod", b"pgen", _PRESET, 3)
    }
    chosen = [found[preset] for preset in sorted(presets)]
    instruments = _levels(chunks, b"inst", b"ibag", b"imod", b"igen", _INSTRUMENT, 1)
    chosen, used_instruments = _renumbered(chosen, _INSTRUMENT_ID)
    instruments, used_samples = _renumbered([instruments[i] for i in used_instruments], _SAMPLE_ID)
    headers = list(_SAMPLE.iter_unpack(chunks[b"shdr"]))
    new_index = {old: new for new, old in enumerate(used_samples)}
    samples, sample_headers = bytearray(), []
    for old in used_samples:
        sample_headers.append(_moved(headers[old], chunks[b"smpl"], samples, new_index))
    sample_headers.append((b"EOS", *(0,) * 9))
    pdta = b"".join(
        (
            _written(chosen, (b"phdr", b"pbag", b"pmod", b"pgen"), _PRESET, 3, (b"EOP", 0, 0, 0, 0, 0, 0)),
            _written(instruments, (b"inst", b"ibag", b"imod", b"igen"), _INSTRUMENT, 1, (b"EOI", 0)),
            _chunk(b"shdr", b"".join(_SAMPLE.pack(*header) for header in sample_headers)),
        )
    )
    body = b"sfbk" + _list(b"INFO", chunks[b"INFO"]) + _list(b"sdta", _chunk(b"smpl", bytes(samples)))
    target.write_bytes(_chunk(b"RIFF", body + _list(b"pdta", pdta)))
    return [level.header[0].split(b"\0")[0].decode("latin-1") for level in chosen]


def _read(data: bytes) -> dict[bytes, bytes]:
    """The chunks of the hydra by name, the sample data, and all of INFO."""
    chunks: dict[bytes, bytes] = {}
    offset = 12
    while offset + 8 <= len(data):
        name, size = data[offset : offset + 4], int.from_bytes(data[offset + 4 : offset + 8], "little")
        kind, inner = data[offset + 8 : offset + 12], offset + 12
        if name == b"LIST" and kind == b"INFO":
            chunks[b"INFO"] = data[inner : offset + 8 + size]
        while name == b"LIST" and kind != b"INFO" and inner + 8 <= offset + 8 + size:
            part, n = data[inner : inner + 4], int.from_bytes(data[inner + 4 : inner + 8], "little")
            chunks[part] = data[inner + 8 : inner + 8 + n]
            inner += 8 + n + n % 2
        offset += 8 + size
        offset += data[offset : offset + 4] not in (b"LIST", b"") and size % 2  # some SF3 writers leave out the padding
    return chunks


def _levels(
    chunks: dict[bytes, bytes], header: bytes, bag: bytes, mod: bytes, gen: bytes, form: struct.Struct, bag_field: int
) -> list[_Level]:
    headers = list(form.iter_unpack(chunks[header]))
    bags, mods, gens = (list(each.iter_unpack(chunks[name])) for each, name in ((_BAG, bag), (_MOD, mod), (_GEN, gen)))
    return [
        _Level(
            one,
            [
                (gens[bags[i][0] : bags[i + 1][0]], mods[bags[i][1] : bags[i + 1][1]])
                for i in range(one[bag_field], following[bag_field])
            ],
        )
        for one, following in itertools.pairwise(headers)
    ]


def _renumbered(levels: list[_Level], index_generator: int) -> tuple[list[_Level], list[int]]:
    """The levels with what they refer to numbered anew, and the old numbers in the new order."""
    used = sorted(
        {amount for level in levels for gens, _ in level.zones for kind, amount in gens if kind == index_generator}
    )
    new = {old: i for i, old in enumerate(used)}

    def changed(gens: list[tuple]) -> list[tuple]:
        return [(kind, new[amount] if kind == index_generator else amount) for kind, amount in gens]

    return [_Level(level.header, [(changed(gens), mods) for gens, mods in level.zones]) for level in levels], used


def _moved(header: tuple, source: bytes, samples: bytearray, new_index: dict[int, int]) -> tuple:
    """The sample's header where its data, appended to `samples`, now lies."""
    name, start, end, loop_start, loop_end, rate, key, tuning, link, flags = header
    if flags & _COMPRESSED:
        first = len(samples)
        samples += source[start:end]
        start, end = first, len(samples)
    else:
        first = len(samples) // 2
        samples += source[2 * start : 2 * end] + bytes(2 * _SILENCE)
        loop_start, loop_end = loop_start - start + first, loop_end - start + first
        start, end = first, first + end - start
    if link not in new_index:  # the other half of a stereo pair is not there: mono
        flags, link = flags & _COMPRESSED | 1, 0
    else:
        link = new_index[link]
    return name, start, end, loop_start, loop_end, rate, key, tuning, link, flags


def _written(levels: list[_Level], names: tuple[bytes, ...], form: struct.Struct, field: int, last: tuple) -> bytes:
    headers, bags, mods, gens = [], [], [], []
    for level in levels:
        headers.append((*level.header[:field], len(bags), *level.header[field + 1 :]))
        for zone_gens, zone_mods in level.zones:
            bags.append((len(gens), len(mods)))
            gens += zone_gens
            mods += zone_mods
    headers.append((*last[:field], len(bags), *last[field + 1 :]))
    bags.append((len(gens), len(mods)))
    mods.append((0,) * 5)
    gens.append((0, 0))
    return b"".join(
        _chunk(name, b"".join(each.pack(*row) for row in rows))
        for name, each, rows in zip(names, (form, _BAG, _MOD, _GEN), (headers, bags, mods, gens), strict=True)
    )


def _chunk(name: bytes, data: bytes) -> bytes:
    return name + len(data).to_bytes(4, "little") + data + bytes(len(data) % 2)


def _list(kind: bytes, data: bytes) -> bytes:
    return _chunk(b"LIST", kind + data)
