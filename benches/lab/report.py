"""Tables, goals, and what went wrong."""

import statistics

# What stands in a table of windows: key, heading, shape.
COLUMNS = [("cpu_us", "us/{unit}", ".1f"), ("user_us", "user", ".1f"), ("rate", "{unit}/s", ",.0f"), ("busy", "busy", ".2f"),
           ("per_core", "{unit}/s a core", ",.0f"), ("load", "load busy", ".2f"), ("foreign", "foreign", ".2f")]
AT_RATE = [("rate_cpu_us", "us/{unit} at 2,000/s", ".1f"), ("p50_us", "p50 us", ".0f"), ("p99_us", "p99 us", ".0f")]
# Above this share of the subject's processor taken by others a window counts only when there is no better one.
DISTURBED = 0.1


def medians(samples, at_rate):
    """The figures of one subject."""
    found = median_of(samples, ["cpu_us", "user_us", "rate", "busy", "per_core", "load", "foreign", "resumed"])
    costs = [sample["cpu_us"] for sample in samples]
    found["lowest"], found["highest"] = min(costs), max(costs)
    if at_rate:
        second = median_of(at_rate, ["cpu_us", "p50_us", "p99_us"])
        found.update({"rate_cpu_us": second["cpu_us"], "p50_us": second["p50_us"], "p99_us": second["p99_us"]})
    found["failed"] = sum(sample["failed"] for sample in [*samples, *at_rate])
    found["failure"] = next((sample["failure"] for sample in [*samples, *at_rate] if sample["failure"]), None)
    found["disturbed"] = sum(sample["foreign"] > DISTURBED for sample in [*samples, *at_rate])
    found["windows"] = len(samples) + len(at_rate)
    return found


def median_of(samples, keys):
    calm = [sample for sample in samples if sample["foreign"] <= DISTURBED] or samples
    return {key: statistics.median(sample[key] for sample in calm) for key in keys}


def windows(scenario, figures, notes):
    print(f"\n{scenario.name}: {scenario.title}")
    columns = COLUMNS + (AT_RATE if scenario.at_rate else [])
    if scenario.unit == "GB":
        columns = [("cpu_ms", "ms/GB", ".0f"), ("user_ms", "user", ".0f"), ("rate", "GB/s", ".2f"), ("busy", "busy", ".2f"),
                   ("per_core", "GB/s a core", ".2f"), ("load", "load busy", ".2f"), ("foreign", "foreign", ".2f")]
    if scenario.arguments.get("resume"):
        columns = columns + [("resumed", "resumed", ".2f")]
    heading = ["", *(title.format(unit=scenario.unit) for _, title, _ in columns), "range", "weft / it", "it / floor",
               "MiB idle", "after", "failed"]
    rows = [heading]
    for name, of in figures.items():
        of = {**of, "cpu_ms": of["cpu_us"] / 1000, "user_ms": of["user_us"] / 1000}
        scale, shape = (1000, ".0f") if scenario.unit == "GB" else (1, ".1f")
        rows.append([name, *(format(of.get(key, 0), shape) for key, _, shape in columns),
                     f"{of['lowest'] / scale:{shape}}-{of['highest'] / scale:{shape}}",
                     over(figures.get("weft"), of), over(of, figures.get("floor")),
                     f"{of['idle']:.1f}", f"{of['after']:.1f}", str(of["failed"])])
    align(rows)
    for name, note in notes.items():
        print(f"  {name}: {note}")
    for name, of in figures.items():
        if of["failure"]:
            print(f"  {name}: {of['failed']} failed, first: {of['failure']}")
        if of["disturbed"]:
            print(f"  {name}: {of['disturbed']} of {of['windows']} windows were disturbed")


def over(one, other):
    return f"{one['cpu_us'] / other['cpu_us']:.2f}" if one and other and other["cpu_us"] else "-"


def once(scenario, figures, notes):
    print(f"\n{scenario.name}: {scenario.title}")
    rows = [["", *(title for _, title, _ in scenario.columns)]]
    for name, of in figures.items():
        rows.append([name, *(format(of[key], shape) for key, _, shape in scenario.columns)])
    align(rows)
    for name, note in notes.items():
        print(f"  {name}: {note}")


def align(rows):
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = (cell.ljust(width) if column == 0 else cell.rjust(width)
                 for column, (cell, width) in enumerate(zip(row, widths)))
        print("  " + "  ".join(cells))


def goals(found):
    """A line for every goal; `found` are pairs of a scenario's name and a goal."""
    if not found:
        return
    print("\ngoals")
    rows = [["", "what", "goal", "measured", "reached"]]
    for name, goal in found:
        value = "-" if goal.value is None else f"{goal.value:.2f}"
        reached = {None: "not measured", True: "yes", False: "NO"}[goal.reached()]
        rows.append([name, goal.text, f"{'>=' if goal.is_least else '<='} {goal.limit:.2f}", value, reached])
    align(rows)
