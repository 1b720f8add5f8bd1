"""Run again, alone, the few tests that failed while others kept the processors busy: the last word of `make test`.

Real servers on two processors now and then take longer than a test may wait. What fails for that passes when it has the
machine to itself, twice; what is broken does not. The first failure stays in the output, to be mended all the same.
"""

import json
import subprocess
import sys
from pathlib import Path

_FAILED = Path(".pytest_cache/v/cache/lastfailed")
_MOST = 3
_TIMES = 2


def main() -> int:
    """Run them; give the exit code: 0 where every one of them passed each time."""
    failed = sorted(json.loads(_FAILED.read_text())) if _FAILED.exists() else []
    if not 0 < len(failed) <= _MOST or any("::" not in name for name in failed):
        return 1
    print(f"\nFailed beside others, now {_TIMES} times alone:", *failed, sep="\n  ", flush=True)
    for _ in range(_TIMES):
        if subprocess.run([sys.executable, "-m", "pytest", "-q", *failed], check=False).returncode != 0:
            return 1
    print("Passed alone, so this run counts as passed; what made them fail wants to be mended:", *failed, sep="\n  ")
    return 0


if __name__ == "__main__":
    sys.exit(main())
