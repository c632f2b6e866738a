"""The page of the paper's plan with every run finished: how long it takes to write, its size, how fast it opens.

The runs are made up (tests/large_plan.py): 80 epochs, 21 classes, six photographs each. Chromium opens the page from
the disk, headless, at 1280 by 900: the time is from the start of the navigation to the end of the load event, which
runs the page's script, the median of OPENED with the range of all.

    python benchmarks/page.py
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path
from shutil import which

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from large_plan import write_large_plan
from selenium import webdriver

from u2pl.page.write import write
from u2pl.reporting.results import collect_all

OPENED = 7
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")
TIMES = "const t = performance.getEntriesByType('navigation')[0]; return [t.domInteractive, t.loadEventEnd]"


def opened(address: str) -> list[tuple[float, float]]:
    """Milliseconds until the page can be clicked, and until all of it has loaded, for each time it was opened."""
    options = webdriver.ChromeOptions()
    options.binary_location = which("chromium") or which("google-chrome") or ""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        for flag in (*FLAGS, f"--user-data-dir={profile}", "--window-size=1280,900"):
            options.add_argument(flag)
        browser = webdriver.Chrome(options, webdriver.ChromeService(which("chromedriver")))
        found = []
        for _ in range(OPENED):
            browser.get("about:blank")
            browser.get(address)
            found.append(tuple(browser.execute_script(TIMES)))
        browser.quit()
    return found


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        project, plan = write_large_plan(Path(folder))
        tables = collect_all(project, plan)
        started = time.perf_counter()
        page = project.root / write(project, plan, tables)[0]
        written = time.perf_counter() - started
        print(f"runs      {len(list(project.results.iterdir()))}")
        print(f"written   {written:.1f} s")
        print(f"size      {page.stat().st_size / 1e6:.2f} MB")
        for name, times in zip(
            ("clickable", "loaded"), zip(*opened(page.as_uri()), strict=True), strict=True
        ):
            print(f"{name:9} {statistics.median(times):.0f} ms ({min(times):.0f} to {max(times):.0f})")


if __name__ == "__main__":
    main()
