"""Hugepages for as long as something is measured; afterwards the kernel has its memory back."""

from pathlib import Path

FOLDER = Path("/sys/kernel/mm/hugepages/hugepages-2048kB")
MB = 2


class Hugepages:
    """At least `megabytes` of free hugepages inside the `with`."""

    def __init__(self, megabytes, folder=FOLDER):
        self.wanted, self.folder, self.added = -(-megabytes // MB), folder, 0

    def _number(self, name):
        return int((self.folder / name).read_text())

    def _resize(self, pages):
        (self.folder / "nr_hugepages").write_text(str(pages))

    def __enter__(self):
        before = self._number("nr_hugepages")
        missing = self.wanted - (self._number("free_hugepages") - self._number("resv_hugepages"))
        if missing > 0:
            # The kernel says nothing when it finds fewer.
            self._resize(before + missing)
            self.added = self._number("nr_hugepages") - before
        if self.added < missing:
            found, self.added = self.added, 0
            self._resize(before)
            raise MemoryError(f"{missing * MB} MB more in hugepages would be needed, and the kernel finds {found * MB} MB")
        return self

    def __exit__(self, *_):
        if self.added:
            # Others may have changed the number meanwhile: what was added is taken away, and no more.
            self._resize(max(0, self._number("nr_hugepages") - self.added))
