"""Runs the checks of a client library: functions `check_*` of a module, each given a client and the name of its model.

Checks named `check_calls_*` are for a server whose model thinks, says something and calls get_weather twice (`--scripted-url`);
all others are for a served project (`--base-url`).
"""

import argparse
import sys
import traceback


def main(title, checks, connect):
    parser = argparse.ArgumentParser()
    parser.add_argument("--base-url", help="of a served project, without /v1")
    parser.add_argument("--scripted-url", help="of a server with a scripted model, without /v1")
    options = parser.parse_args()
    passed = failed = 0
    for url, scripted in ((options.base_url, False), (options.scripted_url, True)):
        if url is None:
            continue
        client = connect(url)
        model = client.models.list().data[0].id
        for name, check in checks.items():
            if not name.startswith("check_") or name.startswith("check_calls_") != scripted:
                continue
            try:
                check(client, model)
                print(f"ok      {name}")
                passed += 1
            except Exception:
                failed += 1
                print(f"FAILED  {name}")
                traceback.print_exc(file=sys.stdout)
    print(f"{title}: {passed} passed, {failed} failed")
    sys.exit(1 if failed or not passed else 0)
