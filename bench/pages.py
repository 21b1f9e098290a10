"""Where printed tables go: between the markers of a page, and as rows of the README's short table."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
HEADLINES = "headlines"
_HEAD = ("| what | beside | times as fast |", "|---|---|---|")


def _markers(name):
    return f"<!-- {name}: begin -->", f"<!-- {name}: end -->"


def put(name, text):
    """Replace what stands between the markers of that name, in the page that has them."""
    begin, end = _markers(name)
    for page in (README, *sorted((ROOT / "docs").glob("*.md"))):
        whole = page.read_text(encoding="utf-8")
        if begin in whole:
            before, rest = whole.split(begin)
            page.write_text(f"{before}{begin}\n{text}\n{end}{rest.split(end)[1]}", encoding="utf-8")
            return
    raise SystemExit(f"no page has the markers {begin}; put them where the table goes")


def headlines(rows):
    """Put (what, beside, ratio) rows into the README's short table; rows of other benchmarks stay."""
    begin, end = _markers(HEADLINES)
    between = README.read_text(encoding="utf-8").split(begin)[1].split(end)[0]
    kept = {}
    for line in between.splitlines():
        if line.startswith("|") and line not in _HEAD:
            what, beside, ratio = (cell.strip() for cell in line.strip("|").split("|"))
            kept[what, beside] = ratio
    kept.update({(what, beside): ratio for what, beside, ratio in rows})
    put(HEADLINES, "\n".join((*_HEAD, *(f"| {what} | {beside} | {ratio} |" for (what, beside), ratio in kept.items()))))


def times(*ratios):
    """'12' or '1.4 to 3.2', of one or several ratios."""
    low, high = min(ratios), max(ratios)
    shown = [f"{x:.{1 if x < 10 else 0}f}" for x in (low, high)]
    return shown[0] if shown[0] == shown[1] else " to ".join(shown)
