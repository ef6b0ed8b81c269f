"""What the names of folders and files say: HR or LR, of which scale and set.

The layouts are those of benchmark sets and data sets in circulation: of EDSR, BasicSR,
KAIR, MMSR, RCAN and DIV2K, of RealSR and DRealSR. Upper and lower case are the same.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

# HR folders of one set: the first that is there is taken. GTmod12 is HR cut to
# multiples of 12: LR was made from it, but without LR the original is better.
HR_WITH_LR = ("hr", "gtmod", "original", "gt", "hq")
HR_ALONE = ("hr", "original", "gtmod", "gt", "hq")
# Words that say something only where both are there.
_TOGETHER = (("h", "l"), ("high", "low"), ("target", "input"), ("gt", "input"))
SRF = "image_srf_{s}"  # SelfExSR: NAME_SRF_2_HR.png, NAME_SRF_2_LR.png, and results
# What people call the folders in which they keep results.
RESULTS = re.compile(
    r"(?:.*[_-])?(?:sr|results?|outputs?|out|upscaled|enlarged|restored"
    r"|predictions?|visuali[sz]ations?)(?:[_-].*)?"
)
_HR = re.compile(
    r"(?:(?P<set>.+)[_-])?(?P<word>(?:hr|gt|hq)s?|gtmod\d+|originals?|ground[_-]?truth"
    r"|high[_-]?res(?:olution)?|hi[_-]?res)(?:[_-]?x\d)?(?:[_-](?:sub|images?|imgs?))?"
)
_KAIR = re.compile(r"(?P<set>train|test|val|valid)(?P<role>h|l)")
_LR = re.compile(
    r"(?:(?P<set>.+)[_-])?(?P<word>(?:bic?)?(?:lr|lq)|low[_-]?res(?:olution)?)"
    r"(?P<kind>[a-wyz]*)(?:[_-]?(?P<rest>(?:[_-].+|x?\d.*)))?"
)
_SCALE = re.compile(r"(?:^|[_-]|(?<=[a-z]))(?:x(\d)(?:\.0)?|(\d)x)(?=$|[_-])")
_LR_SCALE = re.compile(r"(?:lr|lq)[a-z]*[_-]?(\d)$")
_BICUBIC = re.compile(r"bic?(?:ubic)?(?=$|[_\W\dx])")
# The ends of files' names: NAME_HR, NAME/LR, NAMEx2, NAME_LR2, NAME_SRF_2_LR.
_LR_END = re.compile(
    r"(?:[_/-](?:lr|lq)[a-z]*?[_-]?x?([2-9])?|[_-]?x([2-9])(?:[md]|w\d)?)$"
)
_SRF = re.compile(r"[_-]srf[_-]([2-9])(?:[_-](?:hr|gt|hq))?$")
_END = re.compile(r"(?:[_-](?:hr|gt|hq)|[_-]srf[_-][2-9])$")


class Role(NamedTuple):
    """What the name of a folder says."""

    hr: bool
    """True for HR, False for LR."""

    set: str
    """What stands before: "div2k_valid" of DIV2K_valid_HR; "" for nothing."""

    word: str
    """The word itself: "hr", "gtmod12", "lr", "x2"."""


def role(name: str) -> Role | None:
    """Returns what the name of a folder says by itself; None for nothing."""
    name = name.lower()
    if match := _KAIR.fullmatch(name):
        return Role(match["role"] == "h", match["set"], match["role"])
    if match := _LR.fullmatch(name):
        return Role(False, match["set"] or "", match["word"])
    if match := _HR.fullmatch(name):
        return Role(True, match["set"] or "", match["word"])
    if re.fullmatch(r"(?:x\d|\dx)(?:[_-]sub)?", name):
        return Role(False, "", name)
    return None


def roles(names: Iterable[str]) -> dict[str, Role | None]:
    """Returns what the names of the folders in one place say, also together."""
    found = {name: role(name) for name in names}
    by_lower = {name.lower(): name for name in found}
    for hr, lr in _TOGETHER:
        others = [r for name, r in found.items() if name.lower() != hr]
        if hr in by_lower and lr in by_lower and not any(r and r.hr for r in others):
            found[by_lower[hr]] = Role(True, "", hr)
            found[by_lower[lr]] = Role(False, "", lr)
    # MMSR: Set5/ and Set5_bicLRx2/.
    sets = {r.set for r in found.values() if r and not r.hr}
    if not any(r and r.hr for r in found.values()):
        for name in found:
            if {name.lower()} == sets:
                found[name] = Role(True, name.lower(), "hr")
    return found


def scale_of(name: str, inside: bool = False) -> int | None:
    """Returns the scale that a folder's name says: 2 for X2, 2x, LRbicx2, LR_x2, lr2;
    with `inside`, for folders in a folder of LR, also for 2."""
    name = name.lower()
    if inside and re.fullmatch(r"(?:scale_?|s)?\d", name):
        return int(name[-1])
    found = [a or b for a, b in _SCALE.findall(name)] + _LR_SCALE.findall(name)
    return int(found[-1]) if found else None


def is_bicubic(path: str) -> bool:
    """Returns True if the path of an LR folder says that it was made by bicubic
    interpolation."""
    return any(_BICUBIC.search(re.sub("lr|lq", "", p)) for p in path.lower().split("/"))


def is_hr_name(name: str) -> bool:
    """Returns True for HR, GTmod12 and the like: it says nothing of which set it is."""
    found = role(name)
    return bool(found and found.hr and not found.set)


def lr_end(name: str) -> tuple[str, int | None] | None:
    """Returns (the rest, scale) of a file's name that ends as LR files' do: of
    "baby_LRx2" and "babyx2" ("baby", 2), of "baby_LR" ("baby", None), of "a_SRF_2_LR"
    ("a_srf_2", 2)."""
    match = _LR_END.search(name.lower())
    if match is None or not match.start():
        return None
    rest, scale = name[: match.start()].lower(), match[1] or match[2]
    return rest, int(scale) if scale else srf_scale(rest)


def srf_scale(name: str) -> int | None:
    """Returns the scale that a file's name says as SelfExSR's do: of "a_SRF_2_HR" 2."""
    match = _SRF.search(name.lower())
    return int(match[1]) if match else None


def stem(name: str) -> str:
    """Returns a file's name without what says HR or LR or scale, in lower case."""
    name = name.lower()
    while True:
        short = _END.sub("", _LR_END.sub("", name))
        if short in ("", name):
            return name
        name = short
