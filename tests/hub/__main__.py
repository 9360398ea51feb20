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
from faults import Faults
from http_engine import Origin
from hub import HubApp
from recorder import Recorder
from signing import Signer
from store import ACCOUNTS, Store
from switches import SWITCHES


def arguments():
    parser = argparse.ArgumentParser(prog="tests/hub", description="A local Hub for tests and demonstrations.")
    parser.add_argument("--root", required=True, help="directory for repositories and objects; may be empty or new")
    parser.add_argument("--port", type=int, default=0, help="port of the Hub (default: any free one)")
    parser.add_argument("--data-port", type=int, default=0, help="port of the data origin (default: any free one)")
    for name in ("multipart_threshold", "chunk_size", "signature_lifetime_s", "page_size"):
        parser.add_argument("--" + name.replace("_", "-"), type=int, default=getattr(Config, name),
                            help=f"initial value of the setting {name}")
    for name, switch in SWITCHES.items():
        parser.add_argument("--" + name.replace("_", "-"), type=type(switch.default), default=switch.default,
                            choices=[switch.default, *switch.others], help=switch.meaning)
    return parser.parse_args()


def main():
    options = arguments()
    settings = Config()
    settings.update({name: value for name, value in vars(options).items() if name in vars(settings)})
    quit_event = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: quit_event.set())
    store, recorder, faults = Store(options.root, settings), Recorder(), Faults()
    data = Origin("data", None, recorder, faults, options.data_port)
    signer = Signer(store.secret(), f"localhost:{data.port}", settings)
    data.app = DataOrigin(store, signer)
    hub = Origin("hub", None, recorder, faults, options.port, Control(store, settings, recorder, faults, quit_event))
    hub.app = HubApp(store, settings, signer, f"http://127.0.0.1:{hub.port}")
    data.start()
    hub.start()
    ready = {"endpoint": hub.app.endpoint, "data": f"http://localhost:{data.port}",
             "tokens": {account.name: account.token for account in ACCOUNTS}}
    print(json.dumps(ready), flush=True)
    quit_event.wait()
    faults.clear()


if __name__ == "__main__":
    sys.exit(main())
