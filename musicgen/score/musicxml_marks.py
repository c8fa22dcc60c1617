"""Segno, coda, Fine, D.C. and D.S. of MusicXML's <direction> and <sound>."""

from fractions import Fraction
from xml.etree.ElementTree import Element

from .bars import CODA, CODA_SIGN, DA_CAPO, DAL_SEGNO, FINE, SEGNO, TO_CODA, Mark, mark_of_words

_SOUNDS = {"segno": SEGNO, "coda": CODA, "tocoda": TO_CODA, "dalsegno": DAL_SEGNO, "dacapo": DA_CAPO, "fine": FINE}
_MAX_LABEL = 40  # characters


def marks_of(item: Element, place: Fraction) -> list[Mark]:
    """Marks of a <direction> or <sound> at a place of its measure. What <sound> says goes before words, and these before glyphs."""
    sound = item if item.tag == "sound" else item.find("sound")
    words = " ".join(element.text or "" for element in item.findall("direction-type/words"))
    written = mark_of_words(words, place)
    marks = []
    for name, kind in _SOUNDS.items() if sound is not None else ():
        value = (sound.get(name) or "").strip() if sound is not None else ""
        if value and value != "no":
            until = written.until if written and written.kind == kind else ""
            marks.append(Mark(kind, place, until, "" if kind in (DA_CAPO, FINE) else value[:_MAX_LABEL]))
    if marks:
        return marks
    if written:
        return [written]
    signs = {"segno": SEGNO, "coda": TO_CODA if words.strip().lower() in ("to", "da", "al") else CODA_SIGN}
    return [Mark(kind, place) for name, kind in signs.items() if item.find(f"direction-type/{name}") is not None]
