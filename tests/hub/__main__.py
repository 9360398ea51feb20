"""Start the test Hub: `python3 tests/hub --root DIR`.

Prints one line of JSON when it is ready and runs until SIGTERM, SIGINT or POST /_test/quit.
"""

import argparse
import json
import signal
import sys
import threading

from config import Config
from control import Control
from data_origin import DataOrigin
from faults import Faults, list_faults
from gzip_trap import GzipTrap
from http_engine import Origin
from hub import HubApp
from recorder import Recorder
from signing import Signer
from store import ACCOUNTS, Store
from switches import SWITCHES
from tls import authority, server_context


NUMBERS = {"multipart_threshold": int, "chunk_size": int, "signature_lifetime_s": int, "page_size": int,
           "upload_lifetime_s": int, "commit_takes_ms": int, "time_limit_ms": int,
           "rate_window_s": float, "action_window_s": float}
DICTS = ("rate_quota", "action_quota", "storage_quota")


def amounts(text):
    """{name: number} of `api=1000,pages=200`."""
    return {name: int(number) for name, _, number in (item.partition("=") for item in text.split(","))}


def arguments():
    parser = argparse.ArgumentParser(prog="tests/hub", description="A local Hub for tests and demonstrations.")
    parser.add_argument("--list-faults", action="store_true", help="print the kinds of faults and end")
    parser.add_argument("--root", help="directory for repositories and objects; may be empty or new")
    parser.add_argument("--port", type=int, default=0, help="port of the Hub (default: any free one)")
    parser.add_argument("--data-port", type=int, default=0, help="port of the data origin (default: any free one)")
    parser.add_argument("--tls", action="store_true", help="https, with an authority of its own in ROOT/tls/ca.pem")
    parser.add_argument("--expired", choices=["hub", "data"], help="with --tls: the origin whose certificate is too old")
    for name, kind in NUMBERS.items():
        parser.add_argument("--" + name.replace("_", "-"), type=kind, default=getattr(Config, name),
                            help=f"initial value of the setting {name}")
    for name in DICTS:
        parser.add_argument("--" + name.replace("_", "-"), type=amounts, default={}, metavar="NAME=N,...",
                            help=f"initial values of the setting {name}")
    for name, switch in SWITCHES.items():
        parser.add_argument("--" + name.replace("_", "-"), type=type(switch.default), default=switch.default,
                            choices=[switch.default, *switch.others], help=switch.meaning)
    options = parser.parse_args()
    if not options.root and not options.list_faults:
        parser.error("--root is missing")
    return options


def main():
    options = arguments()
    if options.list_faults:
        print(list_faults())
        return
    settings = Config()
    settings.update({name: value for name, value in vars(options).items() if name in vars(settings)})
    quit_event = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: quit_event.set())
    store, recorder = Store(options.root, settings), Recorder()
    faults = Faults(store)
    contexts, scheme = {}, "http"
    if options.tls:
        contexts = {name: server_context(options.root, name, name == options.expired) for name in ("hub", "data")}
        scheme = "https"
    data = Origin("data", None, recorder, faults, settings, options.data_port, tls=contexts.get("data"))
    signer = Signer(store.secret(), f"localhost:{data.port}", settings, scheme)
    data.app = GzipTrap(DataOrigin(store, signer), settings)
    control = Control(store, settings, recorder, faults, quit_event)
    hub = Origin("hub", None, recorder, faults, settings, options.port, control, contexts.get("hub"))
    endpoint = f"{scheme}://127.0.0.1:{hub.port}"
    hub.app = GzipTrap(HubApp(store, settings, signer, endpoint), settings)
    data.start()
    hub.start()
    ready = {"endpoint": endpoint, "data": f"{scheme}://localhost:{data.port}",
             "tokens": {account.name: account.token for account in ACCOUNTS}}
    if options.tls:
        ready["ca"] = authority(options.root)
    print(json.dumps(ready), flush=True)
    quit_event.wait()
    faults.clear()


if __name__ == "__main__":
    sys.exit(main())
