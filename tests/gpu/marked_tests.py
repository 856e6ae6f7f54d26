"""The tests marked gpu; on a CPU they are only found."""

import os
import sys

import part

os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"

import pytest


class Results:
    """Counts tests, and reports those that fail."""

    def __init__(self, report: part.Report) -> None:
        self.report = report
        self.found = self.passed = self.failed = self.skipped = 0

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.found = len(session.items)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed += 1
            self.report.check("a test", False, f"{report.nodeid}: {report.longreprtext.splitlines()[-1]}")
        elif report.skipped:
            self.skipped += 1
        elif report.when == "call":
            self.passed += 1


def main() -> int:
    """Run them."""
    options, report = part.start("tests")
    tests = part.ROOT / "tests"
    files = [file for file in sorted(tests.rglob("test_*.py")) if "mark.gpu" in file.read_text(encoding="utf-8")]
    results, on_cpu = Results(report), options.device == "cpu"
    # pyproject's own -m comes first, so that this one counts.
    words = ["-m", "gpu", "-q", "-p", "no:cacheprovider", "--rootdir", str(part.ROOT), *map(str, files)]
    code = pytest.main(["-c", str(part.ROOT / "pyproject.toml"), *words, *(["--co"] if on_cpu else [])], [results])
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        return int(code)
    if on_cpu:
        report.skip(f"{results.found} tests marked gpu", "needs CUDA")
    else:
        detail = f"{results.failed} failed, {results.skipped} skipped"
        report.check(f"{results.passed} of {results.found} pass", results.found > 0 and not results.failed, detail)
    return 0


if __name__ == "__main__":
    sys.exit(main())
