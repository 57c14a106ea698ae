"""A headless Chromium in a node of the lab, driven over the pipe of its DevTools protocol; needs nothing but Python."""

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from . import net
from .net import LabError

# Nothing of its own accord over the network, and no sandbox: the lab's tests run as root, on a page of ours.
OPTIONS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-default-apps", "--disable-extensions",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--remote-debugging-pipe", "about:blank",
]  # fmt: skip


def program():
    """Where Chromium is; `PSHIM6_CHROMIUM` names another one."""
    found = os.environ.get("PSHIM6_CHROMIUM") or shutil.which("chromium")
    if not found:
        raise LabError("chromium is not there: run scripts/install-deps --services")
    return found


class Browser:
    """One tab. Use as a context: it ends with it."""

    def __init__(self, node):
        self.node = node
        self.events, self.buffer, self.last = [], b"", 0

    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory(prefix="pshim6-chromium-", ignore_cleanup_errors=True)
        theirs_in, self.to = os.pipe()
        self.of, theirs_out = os.pipe()
        command = [program(), f"--user-data-dir={self.folder.name}", *OPTIONS]
        # The protocol wants descriptors 3 and 4.
        shell = ["sh", "-c", f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}', "sh", *command]
        self.process = subprocess.Popen(
            net.inside(self.node, shell), pass_fds=(theirs_in, theirs_out), stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, "HOME": self.folder.name},
        )  # fmt: skip
        os.close(theirs_in)
        os.close(theirs_out)
        self.session = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        return self

    def __exit__(self, *_):
        os.close(self.to)
        os.close(self.of)
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.folder.cleanup()

    def call(self, method, timeout_s=15.0, **parameters):
        """One command of the protocol, and what it came to."""
        self.last += 1
        message = {"id": self.last, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.to, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + timeout_s
        while True:
            answer = self.read(deadline)
            if answer is None:
                raise LabError(f"chromium does not answer {method}")
            if answer.get("id") == self.last:
                if "error" in answer:
                    raise LabError(f"{method}: {answer['error']}")
                return answer["result"]

    def read(self, deadline):
        """The next message; events are kept as well."""
        while b"\0" not in self.buffer:
            ready, _, _ = select.select([self.of], [], [], max(0.0, deadline - time.monotonic()))
            octets = os.read(self.of, 1 << 16) if ready else b""
            if not octets:
                return None
            self.buffer += octets
        line, self.buffer = self.buffer.split(b"\0", 1)
        message = json.loads(line)
        if "method" in message:
            self.events.append(message)
        return message

    def open(self, address):
        self.call("Page.navigate", url=address)

    def value(self, expression):
        """What an expression is in the page."""
        done = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in done:
            raise LabError(f"{expression}: {done['exceptionDetails'].get('exception', {}).get('description')}")
        return done["result"].get("value")

    def rows(self, table):
        """A table's rows: its heads -> the texts below them."""
        return self.value(
            f"""(() => {{ const table = document.getElementById({json.dumps(table)});
            const heads = [...table.querySelectorAll("thead th")].map(it => it.textContent);
            return [...table.querySelectorAll("tbody tr")].map(row =>
              Object.fromEntries([...row.children].map((cell, at) => [heads[at], cell.textContent]))); }})()"""
        )

    def text(self, name):
        return self.value(f"document.getElementById({json.dumps(name)}).textContent")

    def resize(self, width, height):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)

    def scheme(self, name):
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": name}])

    def picture(self, file):
        """The whole page as PNG."""
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        Path(file).write_bytes(base64.b64decode(shot["data"]))

    def requests(self):
        """Every address the page asked for."""
        return [it["params"]["request"]["url"] for it in self.events if it["method"] == "Network.requestWillBeSent"]

    def complaints(self):
        """What went wrong in the page by its own account: exceptions, and what its policy forbade."""
        thrown = [it["params"]["exceptionDetails"] for it in self.events if it["method"] == "Runtime.exceptionThrown"]
        entries = [it["params"]["entry"] for it in self.events if it["method"] == "Log.entryAdded"]
        return thrown + [entry for entry in entries if entry["level"] == "error" and entry["source"] != "network"]
