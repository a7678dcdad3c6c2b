"""Print how many lines one must read to trust the queue: `make check` ends with it.

Runs on the system's Python: the standard library alone.
"""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
READ = (
    "schema/states.py",
    "schema/order.py",
    "schema/queue",
    "orders_worker/dispatch",
    "orders_worker/attempt",
    "orders_worker/upkeep",
)


def main() -> None:
    """Print a line for each module or folder, and the sum."""
    counts = {name: _lines(ROOT / name) for name in READ}
    for name, count in {**counts, "to trust the queue": sum(counts.values())}.items():
        print(f"{name:<24}{count:>6,} lines")


def _lines(path: Path) -> int:
    """Count the lines of a module, or of a folder's modules."""
    modules = [path] if path.is_file() else sorted(path.glob("*.py"))
    return sum(len(module.read_text().splitlines()) for module in modules)


main()
