"""A process that has imported what every command begins with, nothing heavy, and forks for each command.

It runs as a program of its own. Each line of its input is a request as JSON: module, arguments, cwd, outputs
(a folder) and environment. The fork leaves stdout, stderr and modules, the names of all it has imported, in
outputs; the server answers with a line of exit status and seconds of CPU, its own imports included.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
import traceback
from typing import Any

import mohge.apps.runner
import mohge.config.load  # noqa: F401


def main() -> None:
    start_up = time.process_time()
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            _command(json.loads(line))
        _, status, usage = os.wait4(pid, 0)
        answer = os.waitstatus_to_exitcode(status), start_up + usage.ru_utime + usage.ru_stime
        print(json.dumps(answer), flush=True)


def _command(request: dict[str, Any]) -> None:
    """Ends the process as the command would."""
    os.chdir(request["cwd"])
    os.environ.update(request["environment"])
    outputs = request["outputs"]
    for stream in (sys.stdout, sys.stderr):
        with open(f"{outputs}/{stream.name.strip('<>')}", "wb") as file:
            os.dup2(file.fileno(), stream.fileno())
    sys.argv = [request["module"], *request["arguments"]]
    status = 0
    try:
        importlib.import_module(request["module"]).main()
    except SystemExit as error:
        status = int(error.code or 0)
    except BaseException:
        traceback.print_exc()
        status = 1
    with open(f"{outputs}/modules", "w", encoding="utf-8") as file:
        json.dump(sorted(sys.modules), file)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    main()
