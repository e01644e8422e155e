"""Tables of what measure.py found, as aligned text or as Markdown."""

from __future__ import annotations

import statistics

BEGIN, END = "<!-- benchmarks/run.py --markdown: begin -->", "<!-- benchmarks/run.py --markdown: end -->"


def spread(milliseconds: list[float]) -> dict[str, float]:
    several = milliseconds if len(milliseconds) > 1 else milliseconds * 2
    low, median, high = statistics.quantiles(several, n=4, method="inclusive")
    return {"min": min(milliseconds), "q1": low, "median": median, "q3": high, "runs": len(milliseconds)}


def short(number: float) -> str:
    return f"{number:.0f}" if number >= 100 else f"{number:.1f}" if number >= 10 else f"{number:.2f}"


def cell(milliseconds: list[float]) -> str:
    """median [min | quartiles]"""
    s = spread(milliseconds)
    if s["runs"] == 1:
        return f"{short(s['median'])} (one run)"
    return f"{short(s['median'])} [{short(s['min'])} | {short(s['q1'])}-{short(s['q3'])}]"


def ratio(peer: list[float] | None, ours: list[float]) -> float | None:
    return statistics.median(peer) / statistics.median(ours) if peer else None


def times(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}x"


class Table:
    def __init__(self, *head: str):
        self.rows = [list(head)]

    def add(self, *cells: str) -> None:
        self.rows.append([str(c) for c in cells])

    def lines(self, markdown: bool) -> list[str]:
        if markdown:
            rows = [self.rows[0], ["---"] * len(self.rows[0]), *self.rows[1:]]
            return ["| " + " | ".join(c.replace("|", "\\|") for c in row) + " |" for row in rows]
        widths = [max(len(row[i]) for row in self.rows) for i in range(len(self.rows[0]))]
        return ["  ".join(c.ljust(w) for c, w in zip(row, widths)).rstrip() for row in self.rows]


# --- preprocessing ---


def preprocess_verdict(entry: dict, peers: list[float | None], of_store: float, of_one_thread: float | None) -> str:
    """The goal of docs/performance.md for this row and whether it was met; what must hold is said where it does not."""
    tv, rs = peers
    if entry["threads"] != 1:
        goal, met = "1.8x of one thread", of_one_thread and of_one_thread >= 0.9 * min(entry["threads"], 2)
    elif entry["large"]:
        goal, met = "1.5 of store", of_store <= 1.5
    else:
        goal, met = "4x and 2.5x", bool(tv and rs) and tv >= 4 and rs >= 2.5
    slower = any(p is not None and p <= 1 for p in peers)
    return f"{goal}: {'met' if met else 'missed'}" + (", SLOWER THAN A PEER" if slower else "")


def preprocess_table(entries: list[dict], memory: str) -> Table:
    table = Table("processor", "picture", "threads", "oriel ms", "of one thread", "plain store ms", "of store",
                  "torchvision ms", "ratio", "hf-processors-rs ms", "ratio", "goal")  # fmt: skip
    one_thread: list[float] | None = None  # of the same case: it comes first
    for entry in (e for e in entries if e["memory"] == memory):
        samples, problems = entry["samples"], entry["problems"]
        ours, store = (samples["oriel torchvision"][key] for key in ("ms", "store_ms"))
        if entry["threads"] == 1:
            one_thread = ours
        peers = {name: samples.get(name, {}).get("ms") for name in ("torchvision", "hf-processors-rs")}
        ratios = [ratio(peer, ours) for peer in peers.values()]
        shown = [cell(p) if p else ("refused" if name in problems else "not installed") for name, p in peers.items()]
        of_store = statistics.median(ours) / statistics.median(store)
        speed_up = ratio(one_thread, ours)
        size = "{} x {}".format(*entry["picture"])
        table.add(entry["title"], size, entry["threads"], cell(ours), times(speed_up),
                  cell(store), f"{of_store:.2f}", shown[0], times(ratios[0]), shown[1], times(ratios[1]),
                  preprocess_verdict(entry, ratios, of_store, speed_up))  # fmt: skip
    return table


def pillow_table(entries: list[dict]) -> Table:
    table = Table("processor", "picture", "oriel, Pillow's pixels ms", "transformers pil ms", "ratio")
    for entry in entries:
        if peer := entry["samples"].get("pil"):
            ours = entry["samples"]["oriel pillow"]["ms"]
            table.add(entry["title"], "{} x {}".format(*entry["picture"]), cell(ours), cell(peer["ms"]),
                      times(ratio(peer["ms"], ours)))  # fmt: skip
    return table


# --- towers ---


def tower_table(entries: list[dict]) -> Table:
    table = Table("tower", "picture", "patches", "threads", "oriel ms", "sdpa ms", "eager ms", "ratio to the faster",
                  "goal", "difference of scale")  # fmt: skip
    for e in entries:
        shown = [e["title"], "{} x {}".format(*e["picture"]), e["oriel"]["patches"], e["threads"]]
        distance = f"{max(e['distances'].values()):.1e} (sdpa from eager {e['peer_distance']:.1e})"
        if "problem" in e:
            table.add(*shown, "refused: " + e["problem"], "-", "-", "-", "-", distance)
            continue
        ours, sdpa, eager = (e["samples"][name]["ms"] for name in ("oriel", "sdpa", "eager"))
        value = min(ratio(sdpa, ours), ratio(eager, ours))
        verdict = "met" if value >= e["goal"] else "missed" if value >= 1 else "missed, SLOWER THAN THE PEER"
        table.add(*shown, cell(ours), cell(sdpa), cell(eager), times(value), f"{e['goal']}x: {verdict}", distance)
    return table


def loading_table(entries: list[dict]) -> Table:
    table = Table("tower", "file GB", "oriel s", "transformers s", "oriel to first rows s",
                  "transformers to first rows s", "ratio", "oriel peak / file", "transformers peak / file")  # fmt: skip
    for e in entries:
        seconds = [[ms / 1000 for ms in e[side]["load_ms"]] for side in ("oriel", "transformers")]
        peaks = [e[side]["load_peak_kib"] * 1024 / e["file_bytes"] for side in ("oriel", "transformers")]
        sides = ("oriel", "transformers")
        first = [statistics.median(s) + e[side]["first_ms"][0] / 1000 for s, side in zip(seconds, sides)]
        table.add(e["title"], f"{e['file_bytes'] / 1e9:.2f}", cell(seconds[0]), cell(seconds[1]), short(first[0]),
                  short(first[1]), times(first[1] / first[0]), *(f"{p:.2f}" for p in peaks))  # fmt: skip
    return table


# --- all together ---


def sections(results: dict) -> list[tuple[str, Table]]:
    out = []
    if pixels := results.get("preprocess"):
        fresh = "Preprocessing, result in fresh memory (page faults included, as by default)"
        kept = "Preprocessing, memory of earlier results reused (all sides)"
        out += [(fresh, preprocess_table(pixels, "fresh")), (kept, preprocess_table(pixels, "kept"))]
        out += [("Preprocessing with Pillow's pixels, one thread, fresh memory", pillow_table(pixels))]
    if towers := results.get("towers"):
        out += [
            ("Towers, float32", tower_table(towers)),
            ("Loading to float32, page cache warm", loading_table(towers)),
        ]
    return [(title, table) for title, table in out if len(table.rows) > 1]


def problems(results: dict) -> list[str]:
    found = []
    for e in results.get("preprocess", []):
        case = "{}, {} x {}".format(e["title"], *e["picture"])
        found += [f"{case}: {peer}: {why}" for peer, why in e["problems"].items()]
    found += [f"{e['title']}: {e['problem']}" for e in results.get("towers", []) if "problem" in e]
    return list(dict.fromkeys(found))


def render(results: dict, markdown: bool) -> str:
    lines = [BEGIN] if markdown else []
    lines += [*results["machine"], ""]
    lines.append("Milliseconds are medians [fastest | quartiles]; ratios are peer / oriel, of medians.")
    for title, table in sections(results):
        lines += ["", f"### {title}" if markdown else title, "", *table.lines(markdown)]
    if found := problems(results):
        lines += ["", "Not timed:", *(f"- {line}" for line in found)]
    return "\n".join(lines + ([END] if markdown else []))
