"""What providers ask for a GPU hour, from gpuhunt's catalogue: offers by price, each with the date of the catalogue that it stands in.

gpuhunt publishes one catalogue a provider, collected from the providers' own price lists; they are fetched when asked for, and nothing is kept. Its own
variable GPUHUNT_CATALOG_DIR, or `folder` here, reads catalogues from disk instead (<provider>.csv). Prices are in USD. An offer is no promise: no
figure goes from here into a plan by itself.
"""

from __future__ import annotations

import difflib
import logging
import os
import re
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from perfbench.errors import InputError, MissingPartError, PerfbenchError

if TYPE_CHECKING:
    from gpuhunt import Catalog

_NO_NAME = re.compile(r"sxm\d?|pcie|nvidia|amd|geforce|instinct|tesla")
"""Words that people add and gpuhunt's names lack."""
_CATALOGUE_DIR = "GPUHUNT_CATALOG_DIR"
_TIMEOUT_S = 20.0
_COLUMNS = ("instance_name", "location", "price", "cpu", "memory", "gpu_count", "gpu_name", "gpu_memory", "spot")
"""Of a catalogue, in gpuhunt's words; it reads older ones too, which have no more than these and disk_size."""


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """One instance type in one place."""

    provider: str
    instance: str
    region: str
    gpu: str
    gpus: int
    gpu_memory_gb: float | None
    spot: bool
    hour_usd: float
    """The whole instance."""
    gpu_hour_usd: float
    """hour_usd / gpus."""


class Offers(msgspec.Struct, frozen=True, kw_only=True):
    """What was found, the cheapest GPU hour first."""

    catalogue_dates: dict[str, str]
    """Provider -> version of its catalogue, which begins with its date; of a catalogue on disk, when the file was written."""
    found: int
    """Offers that match, those left out by the limit too."""
    offers: list[Offer]
    unread: int = 0
    """Rows of the catalogues that gpuhunt could not read."""


class _Unread(logging.Handler):
    """Counts the rows that gpuhunt skips, which it says one by one in its log."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.rows = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.rows += record.msg.startswith("Skipping malformed row")


def find_offers(
    gpu: str | None = None, *, gpus: int | None = None, providers: Sequence[str] = (), spot: bool | None = False, limit: int | None = 20,
    folder: Path | None = None,
) -> Offers:  # fmt: skip
    """Offers with GPUs by the price of a GPU hour.

    `gpu` is a name as people write it (`h100`, `a100-80gb`); `spot` None takes both kinds. Raises InputError for a GPU or provider that gpuhunt does not
    know, PerfbenchError where the catalogue cannot be had, MissingPartError without gpuhunt.
    """
    try:
        import gpuhunt
        from gpuhunt._internal.catalog import OFFLINE_PROVIDERS
    except ModuleNotFoundError:
        raise MissingPartError("prices come from gpuhunt, which is not installed", hint="pip install 'perfbench[prices]'") from None
    wanted = [_known(provider, OFFLINE_PROVIDERS, "--provider") for provider in providers] or list(OFFLINE_PROVIDERS)
    name, memory_gb = _name_and_memory(gpu, [one.name for one in gpuhunt.KNOWN_ACCELERATORS]) if gpu is not None else (None, None)
    with _rows_counted() as unread, _catalogue(gpuhunt.Catalog(auto_reload=False), wanted, folder) as (catalogue, dates):
        items = catalogue.query(
            provider=list(dates), gpu_name=name, min_gpu_memory=memory_gb, max_gpu_memory=memory_gb, spot=spot, min_gpu_count=gpus or 1, max_gpu_count=gpus
        )
    offers = sorted((_offer(item) for item in items if item.gpu_count), key=lambda offer: (offer.gpu_hour_usd, offer.provider, offer.instance, offer.region))
    return Offers(catalogue_dates=dates, found=len(offers), offers=offers[:limit], unread=unread.rows)


@contextmanager
def _rows_counted() -> Iterator[_Unread]:
    log, unread = logging.getLogger("gpuhunt"), _Unread()
    propagates = log.propagate
    log.addHandler(unread)
    log.propagate = False
    try:
        yield unread
    finally:
        log.removeHandler(unread)
        log.propagate = propagates


@contextmanager
def _catalogue(catalogue: Catalog, providers: Sequence[str], folder: Path | None) -> Iterator[tuple[Catalog, dict[str, str]]]:
    """A catalogue that can be asked, with the date of each provider's part."""
    local = str(folder) if folder is not None else os.environ.get(_CATALOGUE_DIR)
    if local is not None:
        dates = _local_dates(Path(local), providers)
        before = os.environ.get(_CATALOGUE_DIR)
        os.environ[_CATALOGUE_DIR] = local
        try:
            yield catalogue, dates
        finally:
            if before is None:
                del os.environ[_CATALOGUE_DIR]
            else:
                os.environ[_CATALOGUE_DIR] = before
        return
    log, timeout = logging.getLogger("gpuhunt"), socket.getdefaulttimeout()
    level = log.level
    log.setLevel(logging.CRITICAL)  # its tracebacks of unreachable hosts; the sentence below says it
    socket.setdefaulttimeout(_TIMEOUT_S)
    try:
        catalogue.load()
    except Exception as error:  # noqa: BLE001 (whatever its HTTP client raises: it ends in the same sentence)
        cause = error.__cause__ or error
        reason = str(getattr(cause, "reason", cause)) or type(cause).__name__
        raise PerfbenchError(
            f"the price catalogue of gpuhunt cannot be reached ({reason}); go online, or give --catalogue with a folder of <provider>.csv files",
            hint="a price that you know goes into the scenario as it is: cost.gpu_hour_usd",
        ) from None
    finally:
        socket.setdefaulttimeout(timeout)
        log.setLevel(level)
    dates = {provider: catalogue.catalog[provider].version for provider in providers if provider in catalogue.catalog}
    if not dates:
        raise PerfbenchError(f"gpuhunt has published no catalogue of {', '.join(providers)} that could be fetched; name others with --provider")
    yield catalogue, dates


def _local_dates(folder: Path, providers: Sequence[str]) -> dict[str, str]:
    files = {provider: folder / f"{provider}.csv" for provider in providers}
    written = {provider: path.stat().st_mtime for provider, path in files.items() if path.is_file()}
    for provider in written:
        _check_columns(files[provider])
    if not written:
        raise InputError(f"{folder} holds no catalogue; expected a folder with <provider>.csv files of gpuhunt, say {next(iter(files.values())).name}")
    return {provider: f"file of {datetime.fromtimestamp(moment, UTC).date().isoformat()}" for provider, moment in written.items()}


def _check_columns(path: Path) -> None:
    with path.open(encoding="utf-8", errors="replace") as lines:
        columns = lines.readline().strip().split(",")
    missing = [column for column in _COLUMNS if column not in columns]
    if missing:
        raise InputError(f"{path}: expected the columns of a gpuhunt catalogue, as in the <provider>.csv of its catalog.zip; there is no {', '.join(missing)}")


def _name_and_memory(gpu: str, known: Sequence[str]) -> tuple[str, int | None]:
    """`a100-80gb` -> (A100, 80): gpuhunt has one name for all memory sizes and forms of a GPU."""
    plain = "".join(word for word in re.split(r"[^a-z0-9]+", gpu.lower()) if not _NO_NAME.fullmatch(word))
    names = {name.lower(): name for name in known}
    if plain.endswith("gb"):
        # The longest name that leaves a number: `h10080gb` is H100 with 80 GB.
        for end in range(len(plain) - 3, 0, -1):
            if plain[:end] in names and plain[end:-2].isdigit():
                return names[plain[:end]], int(plain[end:-2])
    return _known(plain, names.values(), "--gpu"), None


def _known(name: str, known: Any, flag: str) -> str:
    """The spelling that gpuhunt has for a name. Raises InputError with the nearest one."""
    names = {one.lower(): one for one in known}
    if name.lower() in names:
        return str(names[name.lower()])
    close = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.5)
    meant = f"did you mean `{names[close[0]]}`?" if close else f"expected one of {', '.join(dict.fromkeys(names.values()))}"
    raise InputError(f"{flag}: gpuhunt does not know `{name}`; {meant}")


def _offer(item: Any) -> Offer:
    return Offer(
        provider=item.provider, instance=item.instance_name, region=item.location, gpu=str(item.gpu_name), gpus=item.gpu_count,
        gpu_memory_gb=item.gpu_memory, spot=item.spot, hour_usd=item.price, gpu_hour_usd=item.price / item.gpu_count,
    )  # fmt: skip
